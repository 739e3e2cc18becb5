"""The command line: a config file, overrides, and checks of everything that can be checked before any work.

Imports no torch, so `--help` and a typo answer at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reward_models import VERIFYING_REWARDS, RewardSpec, validate
from reward_models.learned import quality_of

from ..errors import OneLineParser
from . import Config, ConfigError, RunConfig, load_config
from .reading import nearest, parse_override
from .reference import settings_of

SECTIONS = {field.name for field in dataclasses.fields(RunConfig)} | {"reward_model"}
OTHER_OPTIONS = [*(f"--{name}" for name in sorted(SECTIONS - {"chosen"})), "--launch", "--num_processes"]
CONFIGS = Path(__file__).parents[2] / "configs"


def config_path(name: str) -> Path:
    """A config file by its path, or a packaged one by its name, such as `gsm8k_qwen`. ConfigError if there is none."""
    if Path(name).exists():
        return Path(name)
    packaged = shipped_config(name if name.endswith(".yaml") else f"{name}.yaml")
    if "/" not in name and packaged.is_file():
        return packaged
    known = (path.stem for path in shipped_config("").glob("*.yaml"))
    raise ConfigError(f"config file {name!r} does not exist; {nearest(Path(name).stem, known)}")


def shipped_config(name: str) -> Path:
    """A file of configs/, of the checkout or of the installed package."""
    if CONFIGS.is_dir():
        return CONFIGS / name
    from importlib import resources

    return Path(str(resources.files("rl_distill.configs"))) / name


def parse(argv: Sequence[str] | None = None, program: str = "launch/ppo.py") -> RunConfig:
    """The run's settings; exits with one clear line on anything wrong. `program`: the name that the help shows."""
    parser = config_parser(
        program,
        "R1-style reward distillation: PPO with a critic under a KL anchor to a teacher.",
        RunConfig,
        "demo.yaml",
    )
    parser.add_argument(
        "--dry_run", nargs="?", const=True, type=_truth, metavar="true", help="print the plan, train nothing"
    )
    parser.add_argument("--resume_from_checkpoint", nargs="?", const="latest", help="a checkpoint folder, or `latest`")
    return read_config(parser, argv, load_config, _check_evidence, _check_sampling, _check_readings)


def _truth(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, got {word!r}")
    return word.lower() == "true"


def parse_distill(argv: Sequence[str] | None = None, program: str = "launch/distill.py") -> RunConfig:
    """The settings of launch/distill.py, with the defaults of `distill` where the config leaves it out."""
    parser = config_parser(
        program,
        "Distillation: soft targets, hidden states, on-policy samples; the stage before PPO by itself.",
        RunConfig,
        "distill.yaml",
    )
    return read_config(parser, argv, _load_distill)


def _load_distill(path: str | Path, overrides: dict[str, Any]) -> RunConfig:
    config: RunConfig = load_config(path, overrides)
    return config if config.distill is not None else load_config(path, overrides | {"distill": {}})


def config_parser(program: str, description: str, cls: type[RunConfig], default: str) -> OneLineParser:
    """What every program with a RunConfig understands; `default`: the file of configs/ that it takes by itself."""
    parser = OneLineParser(
        prog=program,
        description=description,
        epilog="Every setting of the config is an option: --ppo.learning_rate 1e-4, --anchor.schedule fixed, "
        "--demo.num_test 500. Settings:\n" + describe(cls),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        default=Path(default).stem,
        help="a YAML file, or the name of a packaged config (`rl-distill list configs`); default %(default)s",
    )
    parser.add_argument("--seed", type=int, help="random seed of the whole run")
    parser.add_argument("--output_dir", help="folder for everything the run writes")
    return parser


def read_config(
    parser: OneLineParser,
    argv: Sequence[str] | None,
    load: Callable[[str | Path, dict[str, Any]], Config],
    *checks: Callable[[Config], None],
) -> Config:
    """The settings that `load` makes of the file and the overrides; exits with one clear line on anything wrong.

    Rewards must be found and output_dir writable; `checks` raise ConfigError where a program wants more.
    """
    known, rest = parser.parse_known_args(list(sys.argv[1:] if argv is None else argv))
    try:
        overrides = overrides_of(rest, parser)
        named = {name: value for name, value in vars(known).items() if name != "config" and value is not None}
        config = load(config_path(known.config), overrides | named)
        validate([RewardSpec.from_config(entry) for entry in config.rewards])
        for check in checks:
            check(config)
        check_writable(Path(config.output_dir))
    except (ConfigError, ValueError, ImportError) as error:
        parser.fail(error)
    return config


def overrides_of(arguments: Sequence[str], parser: OneLineParser) -> dict[str, Any]:
    """Settings by dotted name from words such as `--ppo.num_steps 200`; ConfigError on anything else, with the nearest
    option of the parser, of those that start several processes, or of the settings' sections.
    """
    overrides: dict[str, Any] = {}
    queue = list(arguments)
    while queue:
        word = queue.pop(0)
        if not word.startswith("--"):
            raise ConfigError(f"unexpected argument {word!r}; settings are given as --name value")
        name, equals, value = word[2:].partition("=")
        if "." not in name and name not in SECTIONS:
            raise ConfigError(f"unknown option --{name}{parser.nearest_option(f'--{name}', OTHER_OPTIONS)}")
        if not equals:
            if not queue or (queue[0].startswith("--") and not _is_number(queue[0])):
                raise ConfigError(f"--{name} needs a value")
            value = queue.pop(0)
        overrides[name] = parse_override(value)
    return overrides


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_evidence(config: RunConfig) -> None:
    """An anchor that follows the evidence, or the teacher's answers, needs a reward that verifies answers."""
    labels = [RewardSpec.from_config(entry).label for entry in config.rewards]
    if set(labels) & set(VERIFYING_REWARDS):
        return
    if config.anchor.prompts != "all":
        raise ConfigError(
            f"anchor.prompts: {config.anchor.prompts} needs one of the rewards {', '.join(VERIFYING_REWARDS)} (weight "
            "0 will do); or set anchor.prompts to all"
        )
    if config.anchor.placement != "none" and config.anchor.schedule == "evidence":
        raise ConfigError(
            f"anchor.schedule: evidence needs one of the rewards {', '.join(VERIFYING_REWARDS)} (weight 0 will do); "
            "or set anchor.schedule to fixed"
        )


def _check_sampling(config: RunConfig) -> None:
    """Sampling that follows success needs a reward that verifies answers."""
    labels = [RewardSpec.from_config(entry).label for entry in config.rewards]
    if config.sampling.kind != "fixed" and not set(labels) & set(VERIFYING_REWARDS):
        raise ConfigError(
            f"sampling.kind: {config.sampling.kind} needs one of the rewards {', '.join(VERIFYING_REWARDS)} (weight 0 "
            "will do); or set sampling.kind to fixed"
        )


def _check_readings(config: RunConfig) -> None:
    """A reward model that reads the teacher was trained at one temperature; readings at another are others."""
    settings = config.generation
    for spec in (RewardSpec.from_config(entry) for entry in config.rewards):
        trained = quality_of(spec.kwargs["model"]).get("temperature") if spec.fn == "learned" else None
        if trained is not None and {settings.temperature, settings.temperature_end or trained} != {trained}:
            raise ConfigError(
                f"generation.temperature: {spec.label} reads the teacher at temperature {trained:g}, which it was "
                "trained with; sample at that, leave out temperature_end, or train the model at yours"
            )


def check_writable(folder: Path) -> None:
    """Makes the folder; ConfigError where it cannot be made or written."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ConfigError(f"output_dir {str(folder)!r} cannot be written: {str(existing)!r} is not a writable folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output_dir {str(folder)!r} cannot be made: {error.strerror}") from error


def describe(cls: type) -> str:
    """One line per setting: its name, default, range and meaning."""
    return "\n".join(f"  {setting}" for setting in settings_of(cls))
