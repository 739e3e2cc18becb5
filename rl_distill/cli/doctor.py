"""`rl-distill doctor`: examines models, data and memory before a long run, from the run's config or from options.

The options describe a run that has no config yet; with `--config` the run's own settings say everything.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..config import ConfigError, RunConfig, load_config
from ..config.command_line import config_path, overrides_of
from ..errors import OneLineParser

if TYPE_CHECKING:
    from ..doctor.diagnosis import Case


def main(argv: Sequence[str]) -> int:
    args, config = parse(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch starts threads: they must not spin

    from .. import distributed
    from ..doctor import diagnosis
    from ..progress import Stages, quiet_libraries

    quiet_libraries()
    distributed.set_threads(None if config is None else config.num_threads)
    try:
        findings = diagnosis.diagnose(case_from(args, config), Stages())
    except (ConfigError, OSError) as error:  # OSError: a model that is neither a folder nor reachable
        print(f"error: {' '.join(str(error).split())[:300]}", file=sys.stderr)
        return 2
    print(diagnosis.show(findings))
    return 1 if any(finding.level == "bad" for finding in findings) else 0


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, RunConfig | None]:
    """The options, and the run's settings with `--config`; exits with one line on a mistake."""
    parser = make_parser()
    args, rest = parser.parse_known_args(list(argv))
    try:
        if args.config is not None:
            return args, load_config(config_path(args.config), overrides_of(rest, parser))
        missing = [f"--{name}" for name in ("student", "teacher", "data") if getattr(args, name) is None]
        if missing or rest:
            problem = f"{', '.join(missing)} not given"
            if rest:
                problem = f"unknown option {rest[0]}{parser.nearest_option(rest[0])}"
            raise ConfigError(f"{problem}; give --config FILE, or --student, --teacher and --data")
    except ConfigError as error:
        parser.fail(error)
    return args, None


def case_from(args: argparse.Namespace, config: RunConfig | None) -> Case:
    from ..doctor import diagnosis, from_config, memory

    if config is not None:
        return from_config.case_of(config, args.num_gpus, args.zero_stage, args.gpu_gib)
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
    return diagnosis.Case(args.student, args.teacher, args.data, args.data_path, plan, args.gpu_gib)


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="rl-distill doctor",
        description="Checks what could ruin a long run: tokenizers, weights, gold answers, lengths, memory.",
    )
    add = parser.add_argument
    add("--config", help="the run's YAML file or a packaged config; settings can be overridden as in `rl-distill ppo`")
    add("--num_gpus", type=int, default=1, help="GPUs of the student")
    add("--zero_stage", type=int, default=0, choices=[0, 1, 2, 3])
    add("--gpu_gib", type=float, help="memory of one GPU, to say whether the run fits")
    group = parser.add_argument_group("without --config")
    add = group.add_argument
    add("--student", help="folder or hub id")
    add("--teacher", help="folder or hub id")
    add("--data", help="prompts: a file, a hub id, or a task such as gsm8k or ./my_task.py:make")
    add("--data_path", help="local data of a task")
    add("--placement", default="colocated", choices=["colocated", "dedicated", "remote"], help="of the teacher")
    add("--teacher_gpus", type=int, default=1, help="GPUs of a dedicated teacher")
    add("--teacher_sharded", action="store_true", help="the teacher's weights are sharded over its GPUs")
    add("--teacher_quantization", choices=["4bit", "8bit"])
    add("--student_quantization", choices=["4bit", "8bit"], help="of the frozen weights below --lora_r")
    add("--lora_r", type=int, help="rank of the student's LoRA adapters")
    add("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the student's weights")
    add("--gradient_checkpointing", action="store_true")
    add("--separate_critic", action="store_true", help="a critic as large as the student")
    add("--micro_batch_size", type=int, default=4)
    add("--generation_batch_size", type=int, default=64)
    add("--max_prompt_length", type=int, default=512)
    add("--max_completion_length", type=int, default=512)
    return parser
