"""Few labels: which prompts keep their gold, what scores the others, and the table of the comparison, by hand."""

import json
import math
from pathlib import Path

import pytest
import yaml

from reward_models import RewardBlend, RewardSpec, validate
from rl_distill.config import DemoConfig, load_config
from rl_distill.demo.models import make_splits
from rl_distill.reward_model.data import split_problems
from rl_distill.reward_model.settings import load_reward_config
from rl_distill.run_setup import evidence_problems
from rl_distill.startup.rewards import has_gold
from rl_distill.types import Splits
from tests.reward_model.test_training import make_config
from tests.tiny_run import make_context

ROOT = Path(__file__).parents[2]
SMALL = {"num_teacher_outputs": 10, "num_train_prompts": 40, "num_validation": 4, "num_test": 4}


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import few_labels

    return few_labels


def right_or_none(completions, **kwargs):
    """A check that applies to digits alone."""
    return [float(text == "4") if text.isdigit() else None for text in completions]


def length(completions, **kwargs):
    return [len(text) / 10 for text in completions]


def specs(**fallback):
    here = str(Path(__file__))
    return [RewardSpec(f"{here}:length", 0.5, **fallback), RewardSpec(f"{here}:right_or_none", 2.0, name="check")]


def test_a_fallback_adds_to_the_total_only_where_the_other_does_not_apply():
    batch = {"prompts": ["?"] * 3, "completions": ["4", "55", "words"], "completion_ids": [[1]] * 3, "columns": {}}
    with RewardBlend(specs(fallback_for="check")) as blend:
        scores = blend.score(**batch)
    assert scores.total == [2.0, 0.0, 0.25]
    assert scores.parts["length"] == [0.1, 0.2, 0.5]  # as it said, for the audit
    with RewardBlend(specs()) as blend:
        assert blend.score(**batch).total == [2.05, 0.1, 0.25]


def test_a_fallback_for_nothing_is_refused():
    with pytest.raises(ValueError, match=r"length is a fallback for 'chek', .* called check; did you mean 'check'"):
        validate(specs(fallback_for="chek"))
    with pytest.raises(ValueError, match="called nothing"):
        validate([RewardSpec("bleu", fallback_for="bleu")])


def test_the_first_prompts_keep_their_gold_and_all_keep_their_text():
    whole = make_splits(DemoConfig(**SMALL), 0)
    few = make_splits(DemoConfig(**SMALL, num_labelled_prompts=6), 0)
    assert [problem.prompt for problem in few.train] == [problem.prompt for problem in whole.train]
    assert few.train[:6] == whole.train[:6]
    assert {problem.task for problem in whole.train[6:]} == {"math", "code"}
    assert [has_gold(problem) for problem in few.train] == [True] * 6 + [False] * 34
    assert not any(has_gold(problem) or problem.solution for problem in few.cold_start)
    assert all(has_gold(problem) for problem in few.validation + few.test)


def test_unlabelled_prompts_have_no_check_and_labelled_ones_the_real_one():
    few = make_splits(DemoConfig(**SMALL, num_labelled_prompts=6), 0)
    from rl_distill.evals.evaluation import verdicts
    from rl_distill.types import Completion, Finish

    whole = make_splits(DemoConfig(**SMALL), 0)
    gold = [Completion(problem.solution, [1], Finish.STOP) for problem in whole.train]
    assert verdicts(few.train, gold, [RewardSpec("task_check")]) == [1.0] * 6 + [None] * 34


def test_evidence_comes_from_prompts_with_gold():
    few = make_splits(DemoConfig(**SMALL, num_labelled_prompts=6), 0)
    assert evidence_problems(few) == few.train[:6]
    whole = make_splits(DemoConfig(**SMALL), 0)
    assert evidence_problems(whole) == whole.cold_start
    none = make_splits(DemoConfig(**SMALL, num_labelled_prompts=0), 0)
    assert evidence_problems(none) == none.cold_start
    assert evidence_problems(Splits([], none.train, [], [])) == none.train


def test_the_model_learns_from_labelled_prompts_alone(tmp_path):
    context = make_context(make_config(tmp_path))
    few = make_splits(DemoConfig(**SMALL, num_labelled_prompts=6), 0).train
    train, heldout = split_problems(few, make_config(tmp_path, labelled_only=True, num_heldout_prompts=2))
    assert (len(train), len(heldout)) == (4, 2)
    assert all(has_gold(problem) for problem in train + heldout)
    assert context.splits.train


def test_the_shipped_configs_fit_together():
    run, model = (
        load_config(ROOT / "configs" / "few_labels.yaml"),
        load_reward_config(ROOT / "configs" / "few_labels_model.yaml"),
    )
    assert run.demo == model.demo
    assert run.demo.num_train_prompts - run.demo.num_labelled_prompts == 12_000
    assert run.rewards[1]["kwargs"]["model"] == model.output_dir
    used = model.reward_model.num_train_prompts + model.reward_model.num_heldout_prompts
    assert used == run.demo.num_labelled_prompts


def test_every_arm_has_settings_that_a_run_takes(benchmark, tmp_path):
    (tmp_path / "quality.json").write_text(json.dumps({"predicts_correctness": True, "limits": {}}))
    for arm, (_, settings) in benchmark.ARMS.items():
        pairs = dict(zip(settings[::2], settings[1::2], strict=True))
        run = load_config(
            benchmark.CONFIG, {name.removeprefix("--"): yaml.safe_load(text) for name, text in pairs.items()}
        )
        labelled = 13_000 if arm == "check_all" else 1_000
        assert run.demo.num_labelled_prompts == labelled
        assert run.rewards[0]["fn"] == "task_check"


def test_the_costs_of_a_model_are_its_student_answers_and_what_the_teacher_read(benchmark, tokenizer, tmp_path):
    from rl_distill.reward_model.data import ledger_of
    from rl_distill.reward_model.examples import Example

    rows = [
        Example("k", "math", "ab", None, "c", "student", 0.0, 0.0, [[-1.0, 0.5]] * 3),
        Example("k", "math", "ab", None, "d", "probe_flattery", 0.0, 0.0, [[-1.0, 0.5]] * 5),
        Example("k", "math", "ab", "e", "e", "teacher", 1.0, 1.0),
    ]
    num_prompt, num_text = (len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in ("ab", "e"))
    cost = ledger_of(rows, tokenizer)
    scored = 3 + 5 + 2 * num_prompt
    assert cost == {
        "student_sequences": 1,
        "teacher_tokens_generated": num_text + 1,
        "teacher_tokens_scored": scored,
    }
    run = {"ledger": {"student_sequences": 10, "teacher_tokens_generated": 0, "teacher_tokens_scored": 100}}
    for name, content in (("learned-0", run), ("labelled-0", run), ("model-0", {"ledger": cost})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(content))
    found = benchmark.found(tmp_path, [0, 1], list(benchmark.ARMS))
    assert list(found) == ["labelled", "learned"]
    assert found["labelled"][0]["ledger"]["student_sequences"] == 10
    assert found["learned"][0]["ledger"]["student_sequences"] == 11
    assert found["learned"][0]["ledger"]["teacher_tokens_scored"] == 100 + scored


def test_the_table_pairs_arms_by_seed(benchmark):
    ledger = {"student_sequences": 1000, "teacher_tokens_generated": 0, "teacher_tokens_scored": 2000}

    def run(accuracy):
        return {"student_after": {"overall": accuracy}, "ledger": ledger}

    results = {
        "anchor_only": {0: run(0.5), 1: run(0.6)},
        "learned": {0: run(0.6), 1: run(0.8), 2: run(0.1)},
        "check_all": {0: run(0.9), 1: run(0.8)},
    }
    assert benchmark.differences(results, "learned", "anchor_only") == pytest.approx({0: 0.1, 1: 0.2})
    row = next(line for line in benchmark.table(results).splitlines() if line.startswith("| reward model |"))
    error = math.sqrt((0.05**2 + 0.05**2) / 1) / math.sqrt(2)  # of 0.1 and 0.2 around 0.15
    assert f"0.150 ± {error:.3f} | 50% | 1.0 k" in row  # 0.3 of 0.6
