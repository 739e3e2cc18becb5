"""The trained reward model: what it learns from, what it says of held-out answers, and how it refuses to mislead."""

import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest

from reward_models import RewardBlend, RewardSpec, validate
from reward_models.learned import QUALITY_FILE, PoorQualityError, learned
from rl_distill.config import ConfigError
from rl_distill.reward_model.settings import RewardModelRunConfig, load_reward_config
from tests.tiny_run import SETTINGS, make_context

ROOT = Path(__file__).parents[2]
REWARDS = [{"fn": "bleu", "weight": 0.7}, {"fn": "task_check", "weight": 0.3}]


def make_config(folder: Path, **settings) -> RewardModelRunConfig:
    """Test settings under overrides for the section `reward_model`: num_steps=4."""
    small = {"num_train_prompts": 10, "num_heldout_prompts": 6, "num_steps": 2, "batch_size": 4, "warmup_steps": 1}
    section = {f"reward_model.{name}": value for name, value in (small | settings).items()}
    return load_reward_config(None, SETTINGS | {"output_dir": str(folder), "rewards": REWARDS} | section)


def quality(spearman=0.9, auc=0.95, auc_without=0.9, **changes):
    """What quality.json holds of a model with these held-out numbers."""
    limits = {"spearman": 0.85, "auc": 0.9, "auc_without_teacher": 0.8}
    with_teacher = {"spearman": spearman, "auc_score": auc, "auc_correct": auc}
    without = {"spearman": spearman, "auc_score": auc_without, "auc_correct": auc_without}
    found = {"predicts_correctness": True, "limits": limits, "with_teacher": with_teacher, "without_teacher": without}
    return found | changes


@pytest.fixture
def saved_model(tmp_path, tokenizer, make_policy):
    """A folder with an untrained reward model that claims a good quality."""
    from reward_models.learned_model import from_trunk

    folder = tmp_path / "saved"
    model = from_trunk(make_policy(3).get_decoder(), max_tokens=200, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / QUALITY_FILE).write_text(json.dumps(quality()))
    return folder


# --- settings and the gate: no torch


def test_the_command_answers_a_typo_before_torch_and_names_the_nearest_key():
    code = (
        "import sys; from rl_distill.reward_model.settings import parse\n"
        "try: parse(['--reward_model.num_step', '3'])\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "unknown setting 'reward_model.num_step'; did you mean 'num_steps'?" in done.stderr
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward_model.num_steps": 0}, "reward_model.num_steps must be at least 1"),
        ({"reward_model.teacher_dropout": 1.5}, "teacher_dropout must be at least 0 and at most 1"),
        ({"reward_model.objective": "ranking"}, "not one of regression, preference"),
        ({"rewards": [{"fn": "learned", "kwargs": {"model": "x"}}]}, "cannot learn from `learned`"),
        ({"rewards": [{"fn": "bleu", "weight": 0}]}, "all weights are 0"),
        ({"teacher.placement": "dedicated"}, "set teacher.placement to colocated"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_reward_config(None, settings)


def test_the_shipped_config_is_the_demo_world_with_the_seed_blend():
    config = load_reward_config(ROOT / "configs" / "reward_model.yaml")
    assert config.demo == load_reward_config(ROOT / "configs" / "demo.yaml").demo
    assert [(entry["fn"], entry["weight"]) for entry in config.rewards] == [("bleu", 0.7), ("task_check", 0.3)]


@pytest.mark.parametrize(
    ("found", "output", "message"),
    [
        (quality(spearman=0.84), "score", "held-out spearman with the teacher's output is 0.840, the limit 0.85"),
        (quality(auc=0.5), "score", "held-out auc with"),
        (quality(auc=0.5), "correct", "held-out auc with"),
        (quality(auc=None), "score", "is not measured"),
    ],
)
def test_a_poor_model_is_refused_when_the_rewards_are_checked_unless_forced(tmp_path, found, output, message):
    (tmp_path / QUALITY_FILE).write_text(json.dumps(found))
    kwargs = {"model": str(tmp_path), "output": output}
    with pytest.raises(ValueError, match=message):
        validate([RewardSpec("learned", kwargs=kwargs)])
    validate([RewardSpec("learned", kwargs=kwargs | {"force": True})])


def test_correctness_does_not_ask_for_the_rank_of_the_score(tmp_path):
    (tmp_path / QUALITY_FILE).write_text(json.dumps(quality(spearman=0.1)))
    learned(str(tmp_path), output="correct")
    with pytest.raises(PoorQualityError):
        learned(str(tmp_path), output="score")


def test_what_is_no_model_or_no_output_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is no reward model \(no quality.json\)"):
        learned(str(tmp_path))
    (tmp_path / QUALITY_FILE).write_text(json.dumps(quality(predicts_correctness=False)))
    with pytest.raises(ValueError, match="output is score or correct, not 'scores'"):
        learned(str(tmp_path), output="scores")
    with pytest.raises(ValueError, match="has no output `correct`"):
        learned(str(tmp_path), output="correct")


# --- the model


def test_a_row_reads_teacher_prompt_candidate_and_says_what_it_cut(tokenizer):
    from reward_models.learned_model import encode

    ids = {text: tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("tea", "ask", "say")}
    eos = [tokenizer.eos_token_id]
    row = encode(tokenizer, "ask", "tea", "say", 100)
    assert row.input_ids == ids["tea"] + eos + ids["ask"] + ids["say"] + eos
    sizes = [len(ids["tea"]) + 1, len(ids["ask"]), len(ids["say"]) + 1]
    assert row.segment_ids == [1] * sizes[0] + [0] * sizes[1] + [2] * sizes[2]
    assert not row.cut
    short = encode(tokenizer, "ask", "tea", "say", sizes[2] + 1)
    assert (short.input_ids, short.cut) == (ids["ask"][-1:] + ids["say"] + eos, True)
    assert encode(tokenizer, "ask", "tea", "say", 2).input_ids == ids["say"][-1:] + eos


def test_each_token_knows_the_longest_ngram_that_the_other_text_has():
    from reward_models.learned_model import longest_matches

    teacher = [5, 6, 7, 8, 9, 1]
    assert longest_matches(teacher, teacher) == [2, 3, 4, 5, 5, 5]  # 1 + length, lengths up to 4
    assert longest_matches([6, 7, 3, 9, 1], teacher) == [2, 3, 1, 2, 3]
    assert longest_matches([7, 6, 5], teacher) == [2, 2, 2]
    assert longest_matches([4, 4], teacher) == [1, 1]
    assert longest_matches([5, 6], []) == [0, 0]


def test_pooling_looks_at_the_candidate_alone():
    import torch

    from reward_models.learned_model import pool

    features = torch.tensor([[[9.0], [1.0], [3.0], [7.0]], [[9.0], [-5.0], [2.0], [4.0]]])
    mask = torch.tensor([[False, True, True, False], [False, True, False, False]])
    assert pool(features, mask).tolist() == [[2.0, 3.0, 3.0], [-5.0, -5.0, -5.0]]


def test_the_copied_trunk_reads_as_the_teacher_did_and_the_folder_reloads(saved_model, tokenizer, make_policy):
    import torch

    from reward_models.learned_model import encode, load, predict

    model, again = load(saved_model, "cpu")
    ids = torch.tensor([again("Q: 1 + 1?", add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        theirs = make_policy(3).get_decoder()(ids).last_hidden_state
        assert torch.equal(model.trunk(ids).last_hidden_state, theirs)
    rows = [encode(again, "Q: 1 + 1?", None, text, 200) for text in ("2", "3")]
    twice = [predict(load(saved_model, "cpu")[0], rows, again.pad_token_id) for _ in range(2)]
    assert twice[0] == twice[1]


def test_scores_do_not_depend_on_the_order_or_the_size_of_the_batch(saved_model):
    from rl_distill.demo.problems import make_problems

    problems = make_problems("train", 24, 5)
    texts = [problem.solution for problem in problems]
    batch = {
        "prompts": [problem.prompt for problem in problems],
        "completions": texts,
        "teacher_output": [text if i % 3 else None for i, text in enumerate(texts)],
    }
    score = learned(str(saved_model))
    whole = score(**batch)
    assert all(0.0 <= value <= 1.0 for value in whole)
    assert len(set(whole)) > 12
    order = list(range(24))
    random.Random(0).shuffle(order)
    shuffled = score(**{name: [values[i] for i in order] for name, values in batch.items()})
    assert shuffled == pytest.approx([whole[i] for i in order], abs=2e-6)
    alone = [score(**{name: values[i : i + 1] for name, values in batch.items()})[0] for i in range(24)]
    assert alone == pytest.approx(whole, abs=2e-6)


def test_it_is_a_function_of_the_blend_with_strings_or_messages(saved_model):
    texts = ["4", "Five apples, I think"]
    prompts = ["Q: 2+2?\nA:\n", "Q: 2+3?\nA:\n"]
    spec = RewardSpec("learned", 0.5, {"model": str(saved_model)})
    with RewardBlend([spec]) as blend:
        scores = blend.score(
            prompts=prompts, completions=texts, completion_ids=[[1], [1]], columns={"teacher_output": ["4", ["5"]]}
        )
    assert scores.total == [0.5 * part for part in scores.parts["learned"]]
    direct = learned(str(saved_model))(
        prompts=[[{"role": "user", "content": prompt}] for prompt in prompts],
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        teacher_output=["4", "5"],
    )
    assert direct == scores.parts["learned"]


def test_a_batch_without_teacher_outputs_has_a_limit_of_its_own(saved_model):
    (saved_model / QUALITY_FILE).write_text(json.dumps(quality(auc_without=0.7)))
    score = learned(str(saved_model))
    assert len(score(prompts=["p"], completions=["c"], teacher_output=["t"])) == 1
    with pytest.raises(PoorQualityError, match=r"held-out auc without the teacher's output is 0.700, the limit 0.8"):
        score(prompts=["p"], completions=["c"])
    assert len(learned(str(saved_model), force=True)(prompts=["p"], completions=["c"])) == 1


# --- the measures


def test_auc_counts_pairs_and_halves_ties():
    from rl_distill.reward_model.quality import auc

    assert auc([0.1, 0.4, 0.35, 0.8], [0.0, 0.0, 1.0, 1.0]) == 0.75
    assert auc([0.5, 0.5, 0.5], [0.0, 1.0, 1.0]) == 0.5
    assert auc([0.9, 0.1, 0.5], [1.0, 0.0, None]) == 1.0
    assert auc([0.9, 0.1], [1.0, 1.0]) is None


def test_calibration_bins_are_of_equal_size_and_measure_the_distance():
    from rl_distill.reward_model.quality import bins, calibration_error

    groups = bins([0.2] * 10 + [0.8] * 10, [0.0] * 10 + [1.0] * 9 + [None])
    assert sum(count for _, _, count in groups) == 19
    assert calibration_error(groups) == pytest.approx(0.2)
    assert calibration_error([]) is None


# --- data and training, with real parts


def examples_where_the_word_decides(num_prompts: int, seed: int):
    """Answers that end in "yes" (right, score 0.9) or "no" (wrong, score 0.2); the teacher always says yes."""
    from rl_distill.reward_model.data import Example

    rng = random.Random(seed)
    rows = []
    for number in range(num_prompts):
        prompt, teacher = f"Q{seed}{number}?", f"{rng.randint(10, 99)} yes"
        rows.append(Example(prompt, "word", prompt, teacher, teacher, "teacher", 1.0, 1.0))
        for word, score, verdict in (("yes", 0.9, 1.0), ("no", 0.2, 0.0)):
            text = f"{rng.randint(10, 99)} {word}"
            rows.append(Example(prompt, "word", prompt, teacher, text, "student", score, verdict))
    return rows


@pytest.mark.parametrize("objective", ["regression", "preference"])
def test_training_teaches_both_objectives_to_rank_unseen_answers(tmp_path, objective, tokenizer):
    from rl_distill.reward_model.quality import quality as measured
    from rl_distill.reward_model.training import make_reward_model, train

    config = make_config(tmp_path, objective=objective, num_steps=40, batch_size=8, learning_rate=5e-3)
    context = make_context(config)
    model, tokenizer = make_reward_model(config, context)
    heldout = examples_where_the_word_decides(20, seed=2)
    before, _ = measured(config, model.eval(), tokenizer, heldout)
    model = train(config, model, tokenizer, examples_where_the_word_decides(30, seed=1))
    after, _ = measured(config, model, tokenizer, heldout)
    for view in ("with_teacher", "without_teacher"):
        assert before[view]["auc_score"] < 0.9 < 0.97 < after[view]["auc_score"]
        assert after[view]["spearman"] > 0.8
    assert after["with_teacher"]["calibration_error_score"] < before["with_teacher"]["calibration_error_score"]
    assert (after["with_teacher"]["auc_correct"] is None) == (objective == "preference")


def test_pairs_put_the_teacher_over_worse_students_and_right_over_wrong():
    from rl_distill.reward_model.training import pairs

    rows = examples_where_the_word_decides(1, seed=0)
    found = pairs(rows, random.Random(0), teacher_dropout=0.0)
    sides = [(pair.chosen.source, pair.chosen.score, pair.rejected.score, pair.with_teacher) for pair in found]
    assert sides == [("teacher", 1.0, 0.9, False), ("teacher", 1.0, 0.2, False), ("student", 0.9, 0.2, True)]
    hidden = pairs(rows, random.Random(0), teacher_dropout=1.0)
    assert not any(pair.with_teacher for pair in hidden)


def test_heldout_prompts_share_no_key_with_training_and_depend_on_the_split_seed(tmp_path):
    from rl_distill.reward_model.data import split_problems

    config = make_config(tmp_path)
    problems = make_context(config).splits.train
    problems = problems + problems[:20]  # the same keys again
    train, heldout = split_problems(problems, config)
    assert (len(train), len(heldout)) == (10, 6)
    assert not {p.key for p in train} & {p.key for p in heldout}
    assert split_problems(problems, config) == (train, heldout)
    other = split_problems(problems, make_config(tmp_path, split_seed=5))[1]
    assert {p.key for p in other} != {p.key for p in heldout}
    with pytest.raises(ConfigError, match="so none is left to train on"):
        split_problems(problems, make_config(tmp_path, num_heldout_prompts=1000))


def test_data_has_true_scores_is_cached_and_a_model_comes_out_that_scores(tmp_path, monkeypatch):
    """The whole command on random tiny models, real rewards and the real sandbox."""
    from reward_models.similarity import bleu
    from rl_distill.progress import Stages
    from rl_distill.reward_model import quality
    from rl_distill.reward_model.data import make_examples
    from rl_distill.reward_model.training import make_reward_model, train

    config = make_config(tmp_path)
    context = make_context(config)
    train_rows, heldout, unscored = make_examples(config, context, Stages(quiet=True))
    assert (len(train_rows), len(heldout), unscored) == (30, 18, 0)
    for row in train_rows:
        similarity = bleu(completions=[row.candidate], teacher_output=[row.teacher_output])[0]
        assert row.score == pytest.approx(0.7 * similarity + 0.3 * row.verdict)
        assert (row.source == "teacher") <= (row.candidate == row.teacher_output)
    monkeypatch.setattr("rl_distill.reward_model.data.scored_rows", lambda *a: pytest.fail("made again"))
    assert make_examples(config, make_context(config), Stages(quiet=True))[0] == train_rows

    model, tokenizer = make_reward_model(config, context)
    model = train(config, model, tokenizer, train_rows)
    found, shown = quality.quality(config, model, tokenizer, heldout)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    counts = {"num_train": 30, "num_train_prompts": 10, "num_heldout": 18, "num_heldout_prompts": 6, "num_unscored": 0}
    quality.write_report(config, found, shown, counts | {"wall_seconds": {}}, "the command")
    (tmp_path / QUALITY_FILE).write_text(json.dumps(found))
    assert (tmp_path / "calibration.png").stat().st_size > 1000
    assert "| student, math | without teacher |" in (tmp_path / "report.md").read_text()
    stored = json.loads((tmp_path / "results.json").read_text())["quality"]["with_teacher"]
    rows = [row for row in heldout if row.source == "student"]
    scores = learned(str(tmp_path), force=True)(
        prompts=[row.prompt for row in rows],
        completions=[row.candidate for row in rows],
        teacher_output=[row.teacher_output for row in rows],
    )
    assert scores == pytest.approx(shown["with_teacher"].scores, abs=2e-6)
    assert stored["num_examples"] == 12
    assert stored["spearman"] is None or math.isfinite(stored["spearman"])


def test_rows_are_judged_in_batches_of_similar_length_and_few_tokens():
    from reward_models.learned_model import Encoded, _batches

    rows = [Encoded([1] * n, [2] * n, [0] * n) for n in (5, 1, 9, 2, 1, 2)]
    assert list(_batches(rows, 2, None)) == [[1, 4], [3, 5], [0, 2]]
    assert list(_batches(rows, 4, 6)) == [[1, 4, 3], [5], [0], [2]]
    assert list(_batches([], 4, 6)) == []
