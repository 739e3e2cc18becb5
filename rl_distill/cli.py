"""The console script: `rl-distill init-student`, `rl-distill report RUN ...`, `rl-distill doctor ...` and others.

Imports nothing heavy until a sub-command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import errors_in_one_line
from .students import command as init_student


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a sub-command and returns its exit status: 0 well, 1 something was found wrong, 2 it could not be done."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["check-sandbox"]:
        from sandboxes import check

        return check.main(words[1:])
    args = parser().parse_args(words)
    with errors_in_one_line():
        return args.run(args)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="rl-distill", description="Makes students, looks at runs before and after.")
    commands = found.add_subparsers(required=True, metavar="COMMAND")
    report = commands.add_parser("report", help="one HTML page about one run or several")
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output_dir of a training run or evaluation")
    report.add_argument("--out", type=Path, help="the file to write (default: report.html in the first RUN)")
    report.set_defaults(run=run_report)
    init_student.add_arguments(
        commands.add_parser("init-student", help="a smaller student from its teacher: fewer layers, heads, channels")
    )
    add_doctor(commands.add_parser("doctor", help="what would spoil a long run, and what to do about it"))
    commands.add_parser("check-sandbox", help="which isolation this machine offers, tried against hostile programs")
    return found


def add_doctor(doctor: argparse.ArgumentParser) -> None:
    add = doctor.add_argument
    add("--student", required=True, help="folder or hub id")
    add("--teacher", required=True, help="folder or hub id")
    add("--data", required=True, help="prompts: a file, a hub id, or a task such as gsm8k or ./my_task.py:make")
    add("--data_path", help="local data of a task")
    add("--num_gpus", type=int, default=1, help="GPUs of the student")
    add("--zero_stage", type=int, default=0, choices=[0, 1, 2, 3])
    add(
        "--placement", default="colocated", choices=["colocated", "dedicated", "remote"], help="where the teacher lives"
    )
    add("--teacher_gpus", type=int, default=1, help="the teacher's own GPUs under split")
    add("--teacher_sharded", action="store_true", help="its weights are shared out over the GPUs that hold it")
    add("--teacher_quantization", choices=["4bit", "8bit"])
    add("--student_quantization", choices=["4bit", "8bit"], help="of the frozen weights below --lora_r")
    add("--lora_r", type=int, help="rank of the adapters, where the student trains with LoRA")
    add("--gpu_gib", type=float, help="memory of one GPU, to say whether the run fits")
    add("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the student's weights")
    add("--gradient_checkpointing", action="store_true")
    add("--separate_critic", action="store_true", help="a critic as large as the student")
    add("--micro_batch_size", type=int, default=4)
    add("--generation_batch_size", type=int, default=64)
    add("--max_prompt_length", type=int, default=512)
    add("--max_completion_length", type=int, default=512)
    doctor.set_defaults(run=run_doctor)


def run_report(args: argparse.Namespace) -> int:
    from .reporting.html import write

    print(write(args.runs, args.out))
    return 0


def run_doctor(args: argparse.Namespace) -> int:
    from .doctor import diagnosis, memory

    plan = memory.Plan(
        num_gpus=args.num_gpus,
        zero_stage=args.zero_stage,
        placement=args.placement,
        teacher_gpus=args.teacher_gpus,
        teacher_sharded=args.teacher_sharded,
        teacher_quantization=args.teacher_quantization,
        student_quantization=args.student_quantization,
        lora_r=args.lora_r,
        student_dtype=args.dtype,
        separate_critic=args.separate_critic,
        gradient_checkpointing=args.gradient_checkpointing,
        micro_batch_size=args.micro_batch_size,
        generation_batch_size=args.generation_batch_size,
        prompt_length=args.max_prompt_length,
        completion_length=args.max_completion_length,
    )
    case = diagnosis.Case(args.student, args.teacher, args.data, args.data_path, plan, args.gpu_gib)
    findings = diagnosis.diagnose(case)
    print(diagnosis.show(findings))
    return 1 if any(finding.level == "bad" for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
