"""The scoring teacher's readings: features by hand, from the teacher's own pass, in PPO and in training."""

import json
import math
from dataclasses import replace

import pytest
import torch

from reward_models import RewardBlend, RewardSpec
from reward_models import learned as learned_module
from reward_models.learned import QUALITY_FILE, PoorQualityError, learned, zip_readings
from reward_models.learned_model import encode, from_trunk, pad_rows
from reward_models.learned_readings import ReadingsHead, pad_readings, statistics, token_features
from rl_distill.progress import Stages
from tests.reward_model.test_training import examples_where_the_word_decides, make_config, quality
from tests.tiny_run import make_context, make_trainer

TWO = [(-1.0, 0.5), (-4.0, 2.0)]
"""Log-probabilities -1 and -4 under distributions of entropy 0.5 and 2."""


def padded(*rows):
    batch = pad_readings(rows)
    return batch["readings"], batch["readings_mask"]


def reading_quality(**changes):
    """quality.json of a model that reads, good with its readings and poor without them."""
    found = quality() | {"readings": True} | changes
    poor = {"spearman": 0.2, "auc_score": 0.6, "auc_correct": 0.6}
    return found | {f"{view}_without_readings": poor for view in ("with_teacher", "without_teacher")}


@pytest.fixture
def reading_model(tmp_path, tokenizer, make_policy):
    """The folder of a model with untrained heads that reads the teacher."""
    torch.manual_seed(0)
    trunk = make_policy(3).get_decoder()
    model = from_trunk(trunk, max_tokens=200, pad_token_id=tokenizer.pad_token_id, readings=True)
    model.save_pretrained(tmp_path / "reads")
    tokenizer.save_pretrained(tmp_path / "reads")
    (tmp_path / "reads" / QUALITY_FILE).write_text(json.dumps(reading_quality()))
    learned_module._load_once.cache_clear()
    return tmp_path / "reads"


def test_statistics_by_hand_and_zeros_for_a_row_without_readings():
    found = statistics(*padded(TWO, None, [(-2.0, 1.0)]))
    surprises = [-0.5, -2.0]  # log-probability plus entropy
    by_hand = [-2.5, -4 / 8, -4 / 4, -5 / 16, 1.25, 2.0, sum(surprises) / 2, -2.0 / 8, math.log(2) / 4]
    assert found[0].tolist() == pytest.approx(by_hand)
    assert found[1].tolist() == [0.0] * 9
    assert found[2].tolist() == pytest.approx([-2.0, -0.25, -0.5, -0.125, 1.0, 1.0, -1.0, -0.125, 0.0])


def test_token_features_by_hand_with_the_running_minimum():
    readings, mask = padded([(-1.0, 0.5), (-4.0, 2.0), (-2.0, 1.0)], [(-8.0, 0.25)])
    found = token_features(readings, mask)
    third = [-0.5, 1.0, -4 / 8, -0.25, 1.0]  # its lowest so far is the second token's
    assert found[0, 2].tolist() == pytest.approx(third)
    assert found[1, 0].tolist() == pytest.approx([-2.0, 0.25, -1.0, -7.75 / 4, 1.0])
    assert found[1, 1:].abs().sum() == 0


def test_padding_changes_nothing_and_no_readings_are_zeros():
    torch.manual_seed(1)
    head = ReadingsHead()
    alone, beside = head(*padded(TWO)), head(*padded(TWO, [(-0.5, 0.1)] * 7, []))
    torch.testing.assert_close(beside[0], alone[0])
    assert beside[2].abs().sum() == 0
    assert pad_readings([None, []]) == {}


def test_a_model_without_readings_given_says_the_same_as_before(reading_model, tokenizer):
    from reward_models.learned_model import load

    model, _ = load(reading_model, "cpu")
    row = encode(tokenizer, "Q: 1 + 1?", None, "2", 200)
    read = replace(row, readings=TWO)
    with torch.no_grad():
        without = model(**pad_rows([row], tokenizer.pad_token_id)).logits
        beside = model(**pad_rows([row, read], tokenizer.pad_token_id)).logits
    torch.testing.assert_close(beside[:1], without)
    assert not torch.allclose(beside[1:], without)


def test_readings_are_pairs_and_missing_where_either_column_is():
    assert zip_readings([-1.0, -2.0], [0.5, 0.25]) == [(-1.0, 0.5), (-2.0, 0.25)]
    assert zip_readings(None, [0.5]) is None
    assert zip_readings([-1.0], None) is None
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        zip_readings([-1.0, -2.0], [0.5])


def test_the_reward_waits_for_the_teachers_pass_and_reads_it(reading_model):
    batch = {"prompts": ["Q: 2+2?"] * 2, "completions": ["4", "4"], "completion_ids": [[1, 2], [1, 2]]}
    columns = {"teacher_output": ["4", "4"]}
    with RewardBlend([RewardSpec("learned", 1.0, {"model": str(reading_model)})]) as blend:
        pending = blend.start(**batch, columns=columns)
        assert pending._waiting == ["learned"]
        read = {"teacher_logprobs": [[-1.0, -4.0], [-0.1, -0.1]], "teacher_entropy": [[0.5, 2.0], [0.2, 0.2]]}
        first, second = pending.finish(read).total
    assert first != second
    direct = learned(str(reading_model))(
        prompts=["Q: 2+2?"], completions=["4"], teacher_output=["4"], **{name: rows[:1] for name, rows in read.items()}
    )
    assert direct == pytest.approx([first], abs=2e-6)


def test_a_batch_without_readings_is_held_to_the_numbers_without_them(reading_model):
    score = learned(str(reading_model))
    with pytest.raises(PoorQualityError, match=r"without its readings is 0.600.*tells its entropy"):
        score(prompts=["p"], completions=["c"], teacher_output=["t"])
    assert len(learned(str(reading_model), force=True)(prompts=["p"], completions=["c"])) == 1


def test_the_examples_readings_are_the_teachers_own(tmp_path):
    """Against a plain forward of the whole row with its softmax."""
    from rl_distill.reward_model.data import make_examples

    config = make_config(tmp_path, readings=True, teacher_texts=False)
    context = make_context(config)
    rows, heldout, unscored = make_examples(config, context, Stages(quiet=True))
    assert unscored == 0
    assert {row.source for row in rows} == {"student"}
    assert all(row.teacher_output is None for row in rows + heldout)
    tokenizer, temperature = context.tokenizer, config.generation.temperature
    for row in rows[:4]:
        prompt, answer = (
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in (row.prompt, row.candidate)
        )
        answer = [*answer, tokenizer.eos_token_id]
        with torch.no_grad():
            logits = context.teacher.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        logprobs = torch.log_softmax(logits[:, : len(tokenizer)] / temperature, dim=-1)
        expected = torch.stack([logprobs[range(len(answer)), answer], -(logprobs.exp() * logprobs).sum(1)], dim=1)
        torch.testing.assert_close(torch.tensor(row.readings), expected, atol=2e-3, rtol=0)  # scored in bf16 where fast


@pytest.mark.parametrize("objective", ["regression", "preference"])
def test_training_learns_from_readings_what_the_text_does_not_say(tmp_path, objective):
    """Right and wrong answers have the same text; the teacher doubts a token of the wrong ones."""
    from rl_distill.reward_model.quality import quality as measured
    from rl_distill.reward_model.training import make_reward_model, train

    config = make_config(tmp_path, objective=objective, readings=True, num_steps=40, batch_size=8, readings_dropout=0.0)
    context = make_context(config)
    model, tokenizer = make_reward_model(config, context)

    def rows(num_prompts, seed):
        return [
            replace(e, candidate="yes", readings=[[-0.1, 0.1], [-0.2 if e.verdict else -6.0, 0.3]])
            for e in examples_where_the_word_decides(num_prompts, seed)
            if e.source == "student"
        ]

    train(config, model, tokenizer, rows(30, 1))
    found, _ = measured(config, model, tokenizer, rows(20, 2))
    assert found["without_teacher"]["auc_score"] > 0.97
    assert found["without_teacher_without_readings"]["auc_score"] == 0.5


def test_a_run_at_another_temperature_is_refused_in_one_line(tmp_path, reading_model, capsys):
    from rl_distill.config.command_line import parse

    (reading_model / QUALITY_FILE).write_text(json.dumps(reading_quality(temperature=1.0)))
    rewards = f"[{{fn: task_check}}, {{fn: learned, kwargs: {{model: {reading_model}}}}}]"
    words = ["--rewards", rewards, "--output_dir", str(tmp_path / "run")]
    assert parse(words).generation.temperature == 1.0
    for more in (["--generation.temperature", "0.7"], ["--generation.temperature_end", "0.5"]):
        with pytest.raises(SystemExit) as ended:
            parse([*words, *more])
        assert ended.value.code == 2
        assert "learned reads the teacher at temperature 1, which it was trained with" in capsys.readouterr().err


@pytest.mark.parametrize("num_minibatches", [1, 2])
def test_ppo_hands_over_the_readings_of_its_own_teacher_pass(tmp_path, reading_model, num_minibatches):
    rewards = [{"fn": "task_check"}, {"fn": "learned", "kwargs": {"model": str(reading_model), "force": True}}]
    trainer = make_trainer(tmp_path / "run", rewards=rewards, ppo__num_minibatches=num_minibatches)
    rollout = trainer.collector.collect(trainer.actor_critic, 0)
    teacher = rollout.states.teacher
    readings = zip(*(flat.split(rollout.lengths) for flat in (teacher.logprobs_N, teacher.entropy_N)), strict=True)
    columns = [(logprobs.tolist(), entropy.tolist()) for logprobs, entropy in readings]
    again = learned(str(reading_model), force=True)(
        prompts=[problem.prompt for problem in rollout.problems],
        completions=[completion.text for completion in rollout.completions],
        teacher_logprobs=[logprobs for logprobs, _ in columns],
        teacher_entropy=[entropy for _, entropy in columns],
    )
    assert rollout.scores.parts["learned"] == pytest.approx(again, abs=1e-5)
