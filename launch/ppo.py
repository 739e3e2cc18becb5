"""R1-style reward distillation, end to end: `accelerate launch launch/ppo.py [--config FILE] [--ppo.num_steps 200]`.

settings      rl_distill/config.py, rl_distill/arguments.py     (no torch until they are right)
problems      rl_distill/tasks/                                 prompts, and what grades an answer to them
models        rl_distill/models/, rl_distill/sft.py             the teacher's warm-up, the student's cold start
teacher       rl_distill/teachers/, rl_distill/distributed/     scores every token of the student's completions
rewards       reward_models/, sandboxes/                        similarity and task checks; code runs in a sandbox
rollouts      rl_distill/generation.py, rl_distill/rollout.py   sample, score, advantages (assembly.py, advantages.py)
PPO           rl_distill/trainer.py, rl_distill/losses.py       on transformers.Trainer
evaluation    rl_distill/solving.py, rl_distill/evaluation.py   greedy, with the graders of training
report        rl_distill/reporting.py                           results.json, report.md, curves, samples
"""

import os
import shlex
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a spinning thread on a busy core slows everybody down
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from rl_distill.arguments import parse


def main() -> None:
    config = parse()

    from rl_distill import distributed, pipeline, worlds
    from rl_distill.reporting import Stages, quiet_libraries
    from rl_distill.solving import solve, solve_with
    from rl_distill.teachers.service import serve
    from rl_distill.training_arguments import check_launch

    quiet_libraries()
    launch = distributed.start(config.teacher.num_separate_processes, config.distributed.timeout_s)
    distributed.set_threads(config.num_threads)
    bridge = distributed.Bridge(launch, distributed.device()) if launch.num_teachers else None
    if bridge is not None and launch.is_teacher:
        return serve(config, bridge)
    check_launch(config)
    stages = Stages(quiet=not distributed.is_main())
    world = worlds.prepare(config, stages, bridge)
    with stages("before", f"teacher and student solve {len(world.splits.test)} held-out problems"):
        before = {
            "teacher": solve_with(world.teacher, world.tokenizer, world.splits.test, config),
            "student": solve(world.student, world.tokenizer, world.splits.test, config),
        }
    trainer = pipeline.make_trainer(config, world)
    with stages("ppo", f"{config.ppo.num_steps} steps of {config.ppo.batch_size} rollouts"):
        finished = pipeline.train(config, trainer)
    if not finished:
        return world.close()
    with trainer.whole_weights():
        pipeline.export(config, trainer, world.tokenizer)
        with stages("after", "the student solves the held-out problems again"):
            after = solve(trainer.model.policy, world.tokenizer, world.splits.test, config)
    world.close()
    command = shlex.join(["accelerate", "launch", "launch/ppo.py", *sys.argv[1:]])
    if distributed.is_main():
        pipeline.compare(config, world, before, after, stages, command)


if __name__ == "__main__":
    main()
