"""`rl-distill rounds`: its options beside those of a run. Imports nothing heavy until the settings are right."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reward_models import RewardSpec, validate

from ..config import ConfigError, RunConfig, load_config
from ..config.command_line import check_writable, config_parser, config_path, overrides_of
from ..config.ranges import Interval
from ..config.reading import convert_field, plain, read_file, set_dotted
from ..config.sampling import mixture_shares
from ..config.schema import DataConfig
from ..errors import UserError
from ..files import write_atomically
from .command import KINDS

NUMBERS = {
    "rounds": (int, 3, "[1, inf)", "PPO runs, one after the other"),
    "share": (
        float,
        0.2,
        "[0, 0.5]",
        "largest share of a round's prompts from the mined pool; 0: none",
    ),
    "patience": (int, 2, "[1, inf)", "stop after so many rounds in a row below the best"),
    "mining_share": (float, 0.2, "(0, 0.5]", "part of --problems that is not trained on but asked after every round"),
    "mining_size": (int, 500, "[1, inf)", "most problems of that part that are asked after a round"),
    "max_repeats": (float, 4.0, "(0, inf)", "how often a row of the pool may come in a round, on average"),
    "size": (int, 1000, "[1, inf)", "most problems of a pool, those failed most often first"),
    "per_user": (int, 5, "[0, inf)", "problems that one user's feedback may bring"),
    "feedback_share": (float, 0.25, "[0, 1]", "part of the pool that feedback alone may bring"),
    "ngram": (int, 13, "[1, inf)", "words that a problem may not share with data.test"),
}
"""Name: type, default, range, help."""
SETTINGS = "settings.json"
MAY_CHANGE = ("rounds", "patience", "launcher", "num_threads", "report_to", "chosen", "checkpoint")
"""What the same rounds may go on with: it changes no finished round."""


def parser() -> Any:
    found = config_parser(
        "rl-distill rounds",
        "Rounds of PPO, each with the last student's errors as a part of its prompts, under a held-out test.",
        RunConfig,
        "demo.yaml",
    )
    add = found.add_argument
    add("--problems", nargs="+", required=True, metavar="FILE", help="problems with gold answers that you trust")
    add("--feedback", action="append", default=[], metavar="FILE", help="users' feedback, mined too; repeatable")
    add("--augment", default="", metavar="KINDS", help=f"add rows like those that failed: {', '.join(KINDS)}")
    add("--launch", help="as for `rl-distill ppo`: a launch config of Accelerate")
    add("--num_processes", type=int, help="as for `rl-distill ppo`")
    for name, (kind, default, interval, words) in NUMBERS.items():
        add(f"--{name}", type=kind, default=default, help=f"{words} {interval} (default: {default})")
    return found


def main(argv: Sequence[str]) -> int:
    """Runs the rounds, or goes on with them; tells where the resulting student is."""
    options_parser = parser()
    args, rest = options_parser.parse_known_args(list(argv))
    _check_numbers(args)
    config, base = settings_of(args, overrides_of(rest, options_parser))
    options = _options(args)
    from . import round_data
    from .rounds import Rounds

    folder = Path(config.output_dir)
    _check_same(folder, config, base, options, args.problems)
    column = config.data.prompt_column
    test, name = config.data.test, config.data.config_name
    parts = round_data.parted(folder / "problems", args.problems, test, name, options, config.seed, column)
    found = Rounds(folder, config, base, parts, options).run()
    print(f"student: {found['student']}")
    return 0


def settings_of(args: Any, overrides: dict[str, Any]) -> tuple[RunConfig, list[dict[str, Any]]]:
    """(settings that every round shares, entries of data.mixture without the pool). Raises ConfigError."""
    named = {name: getattr(args, name) for name in ("seed", "output_dir") if getattr(args, name) is not None}
    path = config_path(args.config)
    settings = read_file(path)
    for name, value in (overrides | named).items():
        set_dotted(settings, name, value)
    folder = Path(settings.get("output_dir", RunConfig.output_dir)) / "problems"
    given = (settings.get("data") or {}).get("mixture")
    task = (settings.get("data") or {}).get("task", DataConfig.task)
    own = [{"train": str(folder / "train.jsonl"), "task": task, "name": "problems", "share": 1.0}]
    base = plain(_as_dicts(convert_field(DataConfig, "mixture", given, "data.mixture"))) if given else own
    fixed: dict[str, Any] = {"data.train": None, "data.mixture": base}
    if not (settings.get("data") or {}).get("validation"):
        fixed["data.validation"] = str(folder / "validation.jsonl")
    fixed |= {} if settings.get("cache_dir") else {"cache_dir": str(folder.parent / "cache")}
    config: RunConfig = load_config(path, overrides | named | fixed)
    _check(config)
    if config.data.mixture and config.data.mixture_preset is not None:  # the pool's share is beside what a preset says
        shares = mixture_shares(config.data.mixture, config.data.mixture_preset)
        base = [entry | {"share": shares[entry["name"] or entry["task"]]} for entry in base]
    return config, base


def _as_dicts(entries: Any) -> list[dict[str, Any]]:
    return [dataclasses.asdict(entry) for entry in entries]


def _check(config: RunConfig) -> None:
    if config.demo is not None:
        raise ConfigError("rounds need models and problems of your own: --config YOUR.yaml with demo: null")
    if config.data.test is None:
        raise ConfigError("rounds need data.test: problems that no round trains on, to decide by")
    validate([RewardSpec.from_config(entry) for entry in config.rewards])
    check_writable(Path(config.output_dir))


def _check_numbers(args: Any) -> None:
    for name, (_, _, interval, _) in NUMBERS.items():
        if getattr(args, name) not in Interval.parse(interval):
            raise UserError(f"--{name} {getattr(args, name)} is not in {interval}")
    unknown = [kind for kind in _kinds(args) if kind not in KINDS]
    if unknown:
        raise UserError(f"--augment {unknown[0]}: there are {', '.join(KINDS)}")


def _kinds(args: Any) -> tuple[str, ...]:
    return tuple(kind.strip() for kind in args.augment.split(",") if kind.strip())


def _options(args: Any) -> Any:
    from .rounds import Options

    given = (("--launch", args.launch), ("--num_processes", args.num_processes))
    launcher = tuple(word for name, value in given if value is not None for word in (name, str(value)))
    numbers = {name: getattr(args, name) for name in NUMBERS}
    return Options(**numbers, augment=_kinds(args), feedback=tuple(args.feedback), launcher=launcher)


def _check_same(folder: Path, config: RunConfig, base: Any, options: Any, problems: Sequence[str]) -> None:
    """UserError where the folder holds rounds of other settings; keeps the settings of new ones."""
    now = json.loads(json.dumps(config.to_dict() | vars(options) | {"base": base, "problems": list(problems)}))
    path = folder / SETTINGS
    if not path.is_file():
        write_atomically(path, json.dumps(now, indent=1) + "\n")
        return
    before = json.loads(path.read_text())
    unlike = [name for name in now if name not in MAY_CHANGE and now[name] != before.get(name)]
    if unlike:
        name = unlike[0]
        raise UserError(
            f"{folder} holds rounds with other settings ({name}: {str(before.get(name))[:60]}, now "
            f"{str(now[name])[:60]}): set another --output_dir, or the same settings to go on"
        )
