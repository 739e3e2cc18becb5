"""Settings: what a user types wrong is answered in one clear line, before anything heavy is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from rl_distill.config import ConfigError, RunConfig, load_config
from rl_distill.config.command_line import config_path, parse
from rl_distill.config.reading import parse_override, read_word
from rl_distill.reward_model.settings import load_reward_config

ROOT = Path(__file__).parents[2]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_shipped_configs_load():
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        load = load_reward_config if "reward_model:" in path.read_text() else load_config
        assert isinstance(load(path), RunConfig), path


def test_overrides_win_over_the_file_and_the_file_over_its_base(tmp_path):
    write(tmp_path, "base.yaml", "seed: 1\nppo: {num_steps: 10, learning_rate: 1.0e-3}\n")
    path = write(tmp_path, "run.yaml", "base: base.yaml\nppo: {num_steps: 20}\n")
    config = load_config(path, {"ppo.num_epochs": 3})
    assert (config.seed, config.ppo.num_steps, config.ppo.learning_rate, config.ppo.num_epochs) == (1, 20, 1e-3, 3)


def test_a_wrong_key_names_the_nearest_one():
    with pytest.raises(ConfigError, match=r"unknown setting 'ppo.learning_rat'; did you mean 'learning_rate'\?"):
        load_config(None, {"ppo.learning_rat": 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ppo.num_steps": "many"}, "ppo.num_steps: expected int, got 'many'"),
        ({"ppo.lam": None}, "ppo.lam: expected float, got None"),
        ({"ppo.lam": 10**400}, "ppo.lam: expected float, got 1000"),
        ({"ppo.bf16": 1}, "ppo.bf16: expected bool, got 1"),
        ({"anchor.schedule": "sometimes"}, "anchor.schedule: 'sometimes' is not one of fixed, anneal"),
        ({"ppo": 3}, "ppo: expected settings"),
        ({"rewards": "math"}, "rewards: expected a list"),
        ({"ppo.advantage": "group_mean"}, "set ppo.group_size to 2 or more"),
        ({"ppo.batch_size": 10, "ppo.group_size": 4}, "must be a multiple"),
        ({"ppo.num_steps": 5, "ppo.critic_warmup_steps": 5}, r"warmup_steps \(5\) must be below ppo.num_steps \(5\)"),
        ({"generation.stop": ["\nQ:", ""]}, "generation.stop: an empty text"),
        ({"demo": None}, "student.model, teacher.model, data.train must be set"),
        ({"anchor.placement": "reward", "anchor.estimator": "k3"}, "k3 as a reward has the gradient of another"),
    ],
)
def test_wrong_values_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, settings)


def test_a_critics_warm_up_may_be_longer_than_a_run_without_a_critic():
    settings = {"ppo.num_steps": 5, "ppo.critic_warmup_steps": 9, "ppo.advantage": "group_mean", "ppo.group_size": 2}
    assert load_config(None, settings).ppo.critic_warmup_steps == 9
    assert load_config(None, {"ppo.num_steps": 6, "ppo.critic_warmup_steps": 5}).ppo.num_steps == 6


def test_command_line_values_are_read_as_yaml():
    assert [
        read_word(parse_override(text), object, "x") for text in ("1e-4", "3", "true", "null", "[a, b]", "word")
    ] == [
        1e-4,
        3,
        True,
        None,
        ["a", "b"],
        "word",
    ]


def test_a_config_survives_results_json(tmp_path):
    config = load_config(ROOT / "configs" / "demo.yaml", {"seed": 7})
    import yaml

    path = write(tmp_path, "again.yaml", yaml.safe_dump(config.to_dict()))
    assert load_config(path) == config


def run_launcher(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-X", "importtime", str(ROOT / "launch" / "ppo.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)


def heavy_imports(done: subprocess.CompletedProcess) -> set[str]:
    names = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    return names & {"torch", "transformers", "trl", "datasets", "deepspeed"}


def test_help_lists_the_settings_without_importing_torch():
    done = run_launcher("--help")
    assert done.returncode == 0
    assert "ppo.learning_rate = " in done.stdout
    assert not heavy_imports(done)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ppo.num_step", "3"], "did you mean 'num_steps'?"),
        (["--config", "nowhere.yaml"], "config file 'nowhere.yaml' does not exist"),
        (["--rewards", "[{fn: math_anser}]"], "math_answer"),
        (["--rewards", "[{fn: ./nowhere.py:f}]"], "nowhere.py"),
        (["--rewards", "[{fn: repetition}]"], "anchor.schedule: evidence needs one of the rewards"),
        (["--output_dir", "/proc/nowhere/run"], "/proc/nowhere/run"),
        (["stray"], "unexpected argument 'stray'"),
        (["--ppo.num_steps"], "--ppo.num_steps needs a value"),
    ],
)
def test_a_wrong_command_line_is_one_clear_line_and_no_work(arguments, message):
    done = run_launcher(*arguments)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2
    assert len(errors) == 1
    assert message in errors[0]
    assert not heavy_imports(done)


@pytest.mark.parametrize(
    "text", ["Q: {prompt}\nA:", "{prompt}", "[INST] {prompt}", "- {prompt}", "a: b: c", "007", "x #y"]
)
def test_a_text_setting_takes_what_was_typed(text):
    config = load_config(None, {"data.prompt_template": parse_override(text)})
    assert config.data.prompt_template == text


def test_a_text_setting_still_reads_null_quotes_and_lists(tmp_path):
    typed = {"data.prompt_template": "null", "data.task": "'a b'", "data.train": "[a.jsonl, b.jsonl]"}
    own = {"demo": None, "student.model": "s", "teacher.model": "t"}
    data = load_config(None, own | {name: parse_override(text) for name, text in typed.items()}).data
    assert (data.prompt_template, data.task, data.train) == (None, "a b", ("a.jsonl", "b.jsonl"))


@pytest.mark.parametrize("name", ["student.model", "teacher.model", "data.train", "data.validation", "data.test"])
def test_what_the_demo_would_ignore_is_refused(name):
    with pytest.raises(ConfigError, match=rf"{name} would be ignored, .* --demo null"):
        load_config(None, {name: "mine"})


def test_malformed_yaml_on_the_command_line_is_told_with_the_setting():
    with pytest.raises(ConfigError, match=r"ppo\.num_steps: '\[1' is not valid YAML"):
        load_config(None, {"ppo.num_steps": parse_override("[1")})


def test_target_modules_may_be_a_list():
    settings = {"student.lora": {"target_modules": ["q_proj", "v_proj"]}}
    assert load_config(None, settings).student.lora.target_modules == ("q_proj", "v_proj")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: mine.yaml\n", r"mine.yaml' is its own base; take the line `base:` out"),
        ("base: other.yaml\n", r"other.yaml' does not exist \(base of .*mine.yaml\)"),
        ("base: [a, b]\n", r"base: expected the name of a YAML file, got \['a', 'b'\]"),
        ("ppo: {num_steps: 3}\nppo: {num_steps: 4}\n", r"'ppo' stands there twice; keep one .*line 2"),
        ("ppo: {num_steps: 3, num_steps: 4}\n", r"'num_steps' stands there twice"),
        ("ppo: [\n", "not valid YAML"),
    ],
)
def test_a_config_file_that_cannot_be_used_is_told_with_its_name(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as told:
        load_config(tmp_path / "mine.yaml", {})
    assert "mine.yaml" in str(told.value)


def test_a_config_that_is_a_folder_or_not_text_is_told(tmp_path):
    with pytest.raises(ConfigError, match="is a folder; give a YAML file in it"):
        load_config(config_path(str(tmp_path)), {})
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary.yaml: not a YAML file in UTF-8"):
        load_config(tmp_path / "binary.yaml", {})


def test_merge_keys_of_yaml_are_no_double_keys(tmp_path):
    text = "evaluation: {every_steps: 5}\n"
    (tmp_path / "mine.yaml").write_text(text + "checkpoint:\n  <<: {every_steps: 7}\n  keep_last: 2\n")
    assert load_config(tmp_path / "mine.yaml", {}).checkpoint.every_steps == 7


@pytest.mark.parametrize(
    ("words", "is_dry"),
    [([], False), (["--dry_run"], True), (["--dry_run", "true"], True), (["--dry_run", "false"], False)],
)
def test_dry_run_is_a_flag_and_takes_a_value(words, is_dry, tmp_path):
    assert parse([*words, "--output_dir", str(tmp_path)]).dry_run is is_dry
