"""Distillation by itself: `accelerate launch launch/distill.py [--config FILE] [--distill.divergence reverse_kl]`.

settings      rl_distill/config/                     schema, checks, command line (no torch until they are right)
run context   rl_distill/run_setup/                 teacher, student, problems
sequences     rl_distill/student_stages.py           the teacher's texts or reference solutions, verified or not
losses        rl_distill/maths/distillation.py       soft targets, exact over the vocabulary in chunks
inner states  rl_distill/distill/inner_states.py     hidden states, attention maps and embeddings of mapped layers
training      rl_distill/distill/trainer.py          on transformers.Trainer, resumed exactly
held out      rl_distill/distill/heldout.py          KL both ways, agreement of the best token, perplexity
evaluation    rl_distill/evals/                      greedy, with the graders of training
report        rl_distill/reporting/                  results.json, report.md, samples
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a spinning thread on a busy core slows everybody down
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from rl_distill.config.command_line import parse_distill
from rl_distill.errors import errors_in_one_line, keep_tracebacks_in

PROGRAM = "accelerate launch launch/distill.py"


@errors_in_one_line()
def main(argv: Sequence[str] | None = None, program: str = PROGRAM) -> None:
    argv = sys.argv[1:] if argv is None else argv
    config = parse_distill(argv, program)
    keep_tracebacks_in(Path(config.output_dir))

    from rl_distill import distributed, pipeline, run_setup, student_stages
    from rl_distill.evals.distributed import solve
    from rl_distill.progress import Stages, quiet_libraries
    from rl_distill.provenance import command_line
    from rl_distill.reporting.sessions import Sessions
    from rl_distill.teachers.worker import serve

    quiet_libraries()
    student_stages.check_stages(config)
    launch = distributed.start(config.num_teacher_processes, config.distributed.timeout_s)
    distributed.set_threads(config.num_threads)
    link = distributed.TeacherLink(launch, distributed.device()) if launch.num_teachers else None
    if link is not None and launch.is_teacher:
        return serve(config, link)
    stages = Stages(quiet=not distributed.is_main())
    context = run_setup.prepare(config, stages, link, with_anchor=False)
    before = pipeline.solve_before(config, context, stages)
    student_stages.prepare_student(config, context, stages)
    student_stages.export(config, context)
    with stages("after", "the student solves the held-out problems again"):
        after = solve(context.student, context.tokenizer, context.splits.test, config)
    context.close()
    command = command_line(program, argv)
    if distributed.is_main():
        spent = student_stages.spent(config, context)
        sessions = Sessions(Path(config.output_dir), stages, command, resumed=False)
        pipeline.compare(config, context, before, after, spent, sessions.summary())


if __name__ == "__main__":
    main()
