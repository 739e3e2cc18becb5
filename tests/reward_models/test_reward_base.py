"""Names, specs and schedules: what a configuration may say, and how it is told what is wrong."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reward_models.base import RewardSpec, WeightSchedule, resolve, text_of, validate
from reward_models.registry import SHORT_NAMES, bind

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(SHORT_NAMES))
def test_every_short_name_resolves_to_a_function_of_that_name(name):
    assert resolve(name).__name__ == name


def test_resolving_and_validating_every_short_name_imports_neither_torch_nor_a_grader():
    """`learned` needs the folder of a trained model: it is resolved here and validated in test_reward_model.py."""
    code = (
        "import sys, reward_models; from reward_models.registry import SHORT_NAMES\n"
        "overlong = {'max_completion_len': 9, 'soft_punish_cache': 3}\n"
        "kwargs = {'cosine_length': {'max_len': 9}, 'soft_overlong': overlong}\n"
        "names = [name for name in SHORT_NAMES if name != 'learned']\n"
        "reward_models.validate([reward_models.RewardSpec(n, 1.0, kwargs.get(n, {})) for n in names])\n"
        "reward_models.resolve('learned')\n"
        "sys.exit([m for m in ('torch', 'math_verify', 'sympy', 'sacrebleu', 'trl') if m in sys.modules] or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_a_wrong_short_name_lists_what_there_is_and_the_nearest():
    with pytest.raises(ValueError, match=r"'math_anser'; did you mean 'math_answer'\?; there are: bleu, code_exec"):
        resolve("math_anser")


def test_functions_of_modules_and_files_resolve(tmp_path, monkeypatch):
    assert resolve("reward_models.similarity:bleu").__name__ == "bleu"
    (tmp_path / "my_rewards.py").write_text("def brevity(completions, limit, **kwargs):\n    return [1.0]\n")
    assert resolve(f"{tmp_path}/my_rewards.py:brevity").__name__ == "brevity"
    monkeypatch.chdir(tmp_path)
    assert resolve("./my_rewards.py:brevity") is resolve("my_rewards.py:brevity")


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        ("no_such_package.rewards:style", "cannot import the module of no_such_package"),
        ("reward_models.similarity:blue", r"has no 'blue'; did you mean 'bleu'\?"),
        ("./nowhere.py:fn", "there is no reward file ./nowhere.py"),
        ("reward_models.similarity:TeacherOutput", "not callable|is not a|takes no"),
        ("reward_models.audit:PROXY_FUNCTIONS", "is not callable but a tuple"),
        ("", "non-empty string"),
    ],
)
def test_wrong_functions_are_told_in_one_line(fn, message):
    with pytest.raises(ValueError, match=message) as raised:
        bind(fn, {})
    assert "\n" not in str(raised.value)


def test_a_file_that_fails_to_import_is_told_with_its_error(tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_module_here\n")
    with pytest.raises(ValueError, match=r"importing .*broken.py failed: ModuleNotFoundError"):
        resolve(f"{tmp_path}/broken.py:fn")


def test_threads_that_resolve_a_file_at_once_wait_for_its_one_import(tmp_path):
    path = tmp_path / "slow_to_import.py"
    path.write_text("import time\ntime.sleep(0.2)\ndef later(completions, **kwargs):\n    return [0.0]\n")
    with ThreadPoolExecutor(4) as pool:
        functions = list(pool.map(resolve, [f"{path}:later"] * 4))
    assert all(function is functions[0] for function in functions)


def test_spec_from_config_with_every_key():
    spec = RewardSpec.from_config(
        {"fn": "bleu", "weight": 0.7, "kwargs": {"tokenize": "char"}, "name": "similarity", "normalize": "rank",
         "time_limit": 5, "on_error": "skip"}
    )  # fmt: skip
    assert spec == RewardSpec("bleu", 0.7, {"tokenize": "char"}, "similarity", "rank", 5, "skip")
    assert spec.label == "similarity"
    assert RewardSpec.from_config({"fn": "./my_rewards.py:brevity", "weight": 0}).label == "brevity"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"fn": "bleu", "wieght": 1}, r"unknown key 'wieght' in the entry for 'bleu'; did you mean 'weight'\?"),
        ({"weight": 1.0}, "lacks its fn"),
        ({"fn": "bleu", "weight": "much"}, "weight of bleu must be a finite number"),
        ({"fn": "bleu", "weight": float("nan")}, "finite number"),
        ({"fn": "bleu", "weight": True}, "finite number"),
        ({"fn": "bleu", "normalize": "runing"}, r"did you mean 'running'"),
        ({"fn": "bleu", "on_error": "ignore"}, "one of raise, skip"),
        ({"fn": "bleu", "time_limit": 0}, "must be positive"),
        ({"fn": "bleu", "kwargs": [1]}, "must be a mapping"),
        ({"fn": "bleu", "weight": {"start": 0, "end": 1}}, "lacks until"),
        ({"fn": "bleu", "weight": {"start": 0, "end": 1, "untill": 0.2}}, r"did you mean 'until'\?"),
        ({"fn": "bleu", "weight": {"start": 0, "end": 1, "until": 20}}, "fraction of the run between 0 and 1"),
        ("bleu", "each entry is a mapping"),
    ],
)
def test_wrong_entries_are_told(entry, message):
    with pytest.raises(ValueError, match=message):
        RewardSpec.from_config(entry)


def test_validate_names_unknown_arguments_and_double_names():
    validate([RewardSpec("bleu", 0.7), RewardSpec("math_answer", 0.3)])
    with pytest.raises(ValueError, match=r"could not be called with .*unexpected keyword argument 'max_len'"):
        validate([RewardSpec("trl.rewards:get_soft_overlong_punishment", 1.0, {"max_len": 9})])
    with pytest.raises(ValueError, match="two entries are called 'bleu'"):
        validate([RewardSpec("bleu", 0.7), RewardSpec("bleu", 0.1, {"tokenize": "char"})])
    validate([RewardSpec("bleu", 0.7), RewardSpec("bleu", 0.1, {"tokenize": "char"}, name="bleu_char")])


def test_an_argument_that_the_function_does_not_take_is_told(tmp_path):
    (tmp_path / "mine.py").write_text("def brevity(completions, limit=1):\n    return [1.0]\n")
    with pytest.raises(ValueError, match=r"takes no argument 'limt'; did you mean 'limit'\?"):
        validate([RewardSpec(f"{tmp_path}/mine.py:brevity", 1.0, {"limt": 3})])


def test_a_setting_that_is_missing_is_told_before_any_work():
    with pytest.raises(ValueError, match="cosine_length needs max_len; give it under kwargs"):
        validate([RewardSpec("cosine_length", 0.1)])


def test_builders_of_trl_are_called_once_with_the_kwargs():
    function, extra = bind(
        "trl.rewards:get_soft_overlong_punishment", {"max_completion_len": 100, "soft_punish_cache": 20}
    )
    assert function(completion_ids=[[1] * 90]) == [-0.5]
    assert extra == {}


def test_weight_schedules():
    step = WeightSchedule(start=0.0, end=0.3, until=0.2)
    assert [step.at(p) for p in (0.0, 0.19, 0.2, 1.0)] == [0.0, 0.0, 0.3, 0.3]
    ramp = WeightSchedule(start=1.0, end=0.0, until=0.2, ramp=0.4)
    assert [round(ramp.at(p), 12) for p in (0.1, 0.2, 0.4, 0.6, 0.9)] == [1.0, 1.0, 0.5, 0.0, 0.0]


def test_text_of_strings_and_messages():
    assert text_of("plain") == "plain"
    assert text_of([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]) == "a"
    assert text_of([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}]) == "a"
    assert text_of([{"role": "assistant", "content": None}]) == ""
    assert text_of([]) == ""
