"""Best of n by a reward model: who is chosen, by hand, and the whole command on real tiny models."""

import json
from pathlib import Path

import pytest

from reward_models import learned as learned_module
from reward_models.learned import QUALITY_FILE, learned
from rl_distill.evals.best_of import choosing, judging
from rl_distill.evals.command_line import parse
from rl_distill.evals.stages import run, table
from tests.reward_model.test_training import quality


def record(index, sample, accuracy, extracted=None):
    return {"index": index, "sample": sample, "scores": {"accuracy": accuracy}, "extracted": extracted}


SAMPLES = [
    record(0, 0, 0.0, "7"),
    record(0, 1, 1.0, "8"),
    record(0, 2, 0.0, "7"),
    record(1, 0, 1.0),
    record(1, 1, 0.0),
    record(1, 2, 0.0),
]
GREEDY = [record(0, 0, 0.0), record(1, 0, 0.0)]


def test_the_model_chooses_the_highest_and_the_first_of_equals():
    assert choosing.chosen(SAMPLES, [0.1, 0.9, 0.3, None, 0.2, 0.2]) == [SAMPLES[1], SAMPLES[4]]
    assert choosing.chosen(SAMPLES, [None] * 6) == [SAMPLES[0], SAMPLES[3]]


def test_the_majority_is_of_extracted_answers_and_the_first_sample_where_there_is_none():
    assert choosing.majority(SAMPLES) == [SAMPLES[0], SAMPLES[3]]


def test_the_comparison_by_hand():
    found = choosing.compare("accuracy", GREEDY, SAMPLES, [0.1, 0.9, 0.3, None, 0.2, 0.8], seed=0)
    values = {name: way["value"] for name, way in found["ways"].items()}
    assert values == {"best_of": 0.5, "greedy": 0.0, "majority": 0.5, "random": pytest.approx(1 / 3)}
    assert found["any_right"] == 1.0
    assert found["not_scored"] == 1
    leads = {name: lead["difference"] for name, lead in found["best_of_minus"].items()}
    assert leads == {"greedy": 0.5, "majority": 0.0, "random": pytest.approx(1 / 6)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--best_of", "4"], "--by FOLDER belong together"),
        (["--by", "runs/rm"], "--by FOLDER belong together"),
        (["--best_of", "1", "--by", "runs/rm"], "of at least 2"),
        (["--readings_from", "teacher"], "belongs to --by"),
        (["--best_of", "4", "--by", "x", "--num_samples", "2", "--temperature", "1"], "leave out --num_samples"),
    ],
)
def test_options_that_contradict_are_refused_in_one_line(capsys, options, message):
    with pytest.raises(SystemExit) as ended:
        parse(["--model", "m", "--tasks", "demo", *options])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def folders(tmp_path, tokenizer, make_policy):
    """A student, a teacher, and a reward model with untrained heads that reads the teacher and claims to be good."""
    import torch

    from reward_models.learned_model import from_trunk

    for name, seed in (("student", 1), ("teacher", 2)):
        make_policy(seed).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    torch.manual_seed(0)
    trunk = make_policy(3).get_decoder()
    model = from_trunk(trunk, max_tokens=300, pad_token_id=tokenizer.pad_token_id, readings=True)
    model.save_pretrained(tmp_path / "rm")
    tokenizer.save_pretrained(tmp_path / "rm")
    poor = {"spearman": 0.2, "auc_score": 0.6, "auc_correct": 0.6}
    found = quality() | {"readings": True, "without_teacher_without_readings": poor}
    (tmp_path / "rm" / QUALITY_FILE).write_text(json.dumps(found))
    learned_module._load_once.cache_clear()
    return tmp_path


def settings_of(folders: Path, *options: str):
    words = ["--model", str(folders / "student"), "--tasks", "demo_math", "--limit", "4", "--max_new_tokens", "8"]
    return parse([*words, "--output_dir", str(folders / "out"), "--best_of", "3", *options])


def test_the_command_chooses_what_the_model_likes_most(folders):
    settings = settings_of(folders, "--by", str(folders / "rm"), "--readings_from", str(folders / "teacher"))
    results = run(settings, "the command")
    found = results["tasks"]["demo_math"]["best_of"]
    assert (found["num_samples"], found["temperature"]) == (3, 1.0)
    assert set(found["ways"]) == {"best_of", "greedy", "majority", "random"}
    assert "| demo_math | best of |" in table(results)
    lines = (folders / "out" / judging.LABEL / "demo_math.jsonl").read_text().splitlines()
    assert len(lines) == 12
    assert len((folders / "out" / "model" / "demo_math.jsonl").read_text().splitlines()) == 4
    records = [json.loads(line) for line in lines]
    columns = judging.readings_by(settings, settings.readings_from)(records)
    values = learned(str(folders / "rm"), output="correct")(
        prompts=[r["prompt"] for r in records], completions=[r["completion"] for r in records], **columns
    )
    assert judging.make_judge(settings)(records) == values
    assert len(set(values)) > 6


def test_a_model_that_may_not_be_used_so_is_refused(folders):
    from rl_distill.config import ConfigError

    judge = judging.make_judge(settings_of(folders, "--by", str(folders / "rm")))
    with pytest.raises(ConfigError, match="--readings_from TEACHER gives it readings"):
        judge([{"prompt": "p", "completion": "c"}])
    with pytest.raises(ConfigError, match="is no reward model"):
        judging.make_judge(settings_of(folders, "--by", str(folders / "student")))
    (folders / "rm" / QUALITY_FILE).write_text(json.dumps(quality()))
    plain = settings_of(folders, "--by", str(folders / "rm"), "--readings_from", str(folders / "teacher"))
    with pytest.raises(ConfigError, match="reads no teacher"):
        judging.make_judge(plain)
