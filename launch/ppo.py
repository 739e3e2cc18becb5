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
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a spinning thread on a busy core slows everybody down
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from rl_distill.config.command_line import parse
from rl_distill.errors import errors_in_one_line, keep_tracebacks_in

PROGRAM = "accelerate launch launch/ppo.py"


@errors_in_one_line()
def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> None:
    argv = sys.argv[1:] if argv is None else argv
    config = parse(argv, program)
    keep_tracebacks_in(Path(config.output_dir))

    from rl_distill import distributed, pipeline, run_setup, student_stages
    from rl_distill.doctor.dry_run import plan_text
    from rl_distill.ppo.hf_arguments import check_launch
    from rl_distill.ppo.lifecycle.resume import check_resume
    from rl_distill.progress import Stages, quiet_libraries
    from rl_distill.provenance import command_line
    from rl_distill.reporting.hub import check_hub
    from rl_distill.teachers.worker import serve

    quiet_libraries()
    launch = distributed.start(config.num_teacher_processes, config.distributed.timeout_s)
    distributed.set_threads(config.num_threads)
    link = distributed.TeacherLink(launch, distributed.device()) if launch.num_teachers else None
    if link is not None and launch.is_teacher:
        return serve(config, link)
    check_launch(config)
    check_resume(config)
    check_hub(config)
    student_stages.check_stages(config)
    stages = Stages(quiet=not distributed.is_main())
    context = run_setup.prepare(config, stages, link)
    student_stages.prepare_student(config, context, stages)
    if config.dry_run:
        trainer = pipeline.make_trainer(config, context)
        if distributed.is_main():
            print(plan_text(config, context, trainer.get_num_trainable_parameters()))
        trainer.collector.blend.close()
        return context.close()
    pipeline.run(config, context, stages, command_line(program, argv))


if __name__ == "__main__":
    main()
