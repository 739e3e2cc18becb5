"""R1-style reward distillation, end to end: `accelerate launch launch/ppo.py [--config FILE] [--ppo.num_steps 200]`.

settings      rl_distill/config/                         schema, checks, command line (no torch until they are right)
problems      rl_distill/tasks/, data/, demo/            prompts, and what grades an answer to them
models        rl_distill/models/, distill/sft.py         the teacher's warm-up, the student's cold start
before PPO    rl_distill/student_stages.py, distill/     warm-up and distillation, where the config asks for them
teacher       rl_distill/teachers/, distributed/         scores every token of the student's completions
rewards       reward_models/, sandboxes/                 similarity and task checks; code runs in a sandbox
rollouts      rl_distill/generation/, ppo/rollout.py     sample, score, rewards and advantages (ppo/rollout_building.py)
PPO           rl_distill/ppo/trainer.py, maths/          the losses, on transformers.Trainer
evaluation    rl_distill/evals/                          greedy, with the graders of training
report        rl_distill/reporting/                      results.json, report.md, curves, samples
"""

import os
import shlex
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a spinning thread on a busy core slows everybody down
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from rl_distill.config.command_line import parse
from rl_distill.errors import errors_in_one_line, keep_tracebacks_in


@errors_in_one_line()
def main() -> None:
    config = parse()
    keep_tracebacks_in(Path(config.output_dir))

    from rl_distill import distributed, pipeline, run_setup, student_stages
    from rl_distill.evals.distributed import solve, solve_with
    from rl_distill.ppo.hf_arguments import check_launch
    from rl_distill.ppo.lifecycle.resume import check_resume
    from rl_distill.progress import Stages, quiet_libraries
    from rl_distill.teachers.worker import serve

    quiet_libraries()
    launch = distributed.start(config.num_teacher_processes, config.distributed.timeout_s)
    distributed.set_threads(config.num_threads)
    link = distributed.TeacherLink(launch, distributed.device()) if launch.num_teachers else None
    if link is not None and launch.is_teacher:
        return serve(config, link)
    check_launch(config)
    check_resume(config)
    student_stages.check_stages(config)
    stages = Stages(quiet=not distributed.is_main())
    context = run_setup.prepare(config, stages, link)
    student_stages.prepare_student(config, context, stages)
    with stages("before", f"teacher and student solve {len(context.splits.test)} held-out problems"):
        before = {
            "teacher": solve_with(context.teacher, context.tokenizer, context.splits.test, config),
            "student": solve(context.student, context.tokenizer, context.splits.test, config),
        }
    trainer = pipeline.make_trainer(config, context)
    with stages("ppo", f"{config.ppo.num_steps} steps of {config.ppo.batch_size} rollouts"):
        finished = pipeline.train(config, trainer)
    if not finished:
        return context.close()
    with trainer.gathered_weights():
        pipeline.export(config, trainer, context.tokenizer)
        with stages("after", "the student solves the held-out problems again"):
            after = solve(trainer.model.policy, context.tokenizer, context.splits.test, config)
    context.close()
    command = shlex.join(["accelerate", "launch", "launch/ppo.py", *sys.argv[1:]])
    if distributed.is_main():
        pipeline.compare(config, context, before, after, trainer.spent(), stages, command)


if __name__ == "__main__":
    main()
