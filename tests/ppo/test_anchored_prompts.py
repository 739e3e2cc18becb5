"""The anchor that acts only where the teacher's own answer passes the check."""

from dataclasses import replace

import pytest
import torch

from rl_distill import pipeline
from rl_distill.config import ConfigError, load_config
from rl_distill.config.command_line import parse
from rl_distill.generation.sampling import Generated, Sampling
from rl_distill.maths.kl import exact_kl
from rl_distill.models.tokenizers import prompt_ids
from rl_distill.ppo.minibatches import micro_batches
from rl_distill.progress import Stages
from rl_distill.run_setup import judge_teacher
from rl_distill.types import Finish, Problem
from tests.tiny_run import make_config, make_context


class RightOnMath:
    """A teacher that knows the solutions of math alone."""

    fingerprint = "right on math"

    def __init__(self, problems, tokenizer):
        self.solutions = {tuple(prompt_ids(tokenizer, [p.prompt])[0]): p.solution for p in problems}
        self.tokenizer, self.asked = tokenizer, []

    def generate(self, prompts, sampling, batch_size=64, *, tasks=()):
        self.asked.append((len(prompts), sampling))
        rows = zip(prompts, tasks, strict=True)
        texts = [self.solutions[tuple(ids)] if task == "math" else "no idea" for ids, task in rows]
        ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [Generated([*row, self.tokenizer.eos_token_id], Finish.STOP) for row in ids]


def judged(config):
    """A tiny run's context whose teacher is right on math, wrong on code, and without a verdict on free text."""
    context = make_context(config)
    chat = [Problem("chat", f"chat-{i}", f"Tell me about the number {i}.") for i in range(10)]
    context.splits = replace(context.splits, train=context.splits.train[:30] + chat)
    real, context.teacher = context.teacher, RightOnMath(context.splits.train, context.tokenizer)
    judge_teacher(config, context, Stages(quiet=True))
    asked, context.teacher = context.teacher.asked, real
    return context, asked


def test_the_teacher_answers_each_training_prompt_once_as_rollouts_are_sampled(tmp_path):
    config = make_config(tmp_path, anchor__prompts="teacher_right", generation__temperature=0.7)
    context, asked = judged(config)
    assert asked == [(40, Sampling(12, 0.7, 1.0))]
    known = {task: {p.teacher_right for p in context.splits.train if p.task == task} for task in ("math", "code")}
    assert known == {"math": {True}, "code": {False}}
    assert [problem.teacher_right for problem in context.splits.train[30:]] == [None] * 10
    texts = [p.solution if p.task == "math" else "no idea" for p in context.splits.train]
    lengths = [len(ids) + 1 for ids in context.tokenizer(texts)["input_ids"]]
    assert context.teacher_tokens_generated == sum(lengths)
    again, asked = judged(config)  # from the cache, and counted all the same
    assert (asked, again.teacher_tokens_generated) == ([], sum(lengths))


@pytest.mark.parametrize("prompts", ["all", "teacher_right", "routed"])
def test_where_anchor_and_reward_act(tmp_path, prompts):
    config = make_config(
        tmp_path, anchor__prompts=prompts, anchor__schedule="fixed", anchor__coef=0.5, ppo__batch_size=24
    )
    context, _ = judged(config)
    rollout = (trainer := pipeline.make_trainer(config, context)).collector.collect(trainer.model, 0)
    tasks = [problem.task for problem in rollout.problems]
    assert set(tasks) == {"math", "code", "chat"}
    leaves_code = prompts != "all"
    assert rollout.anchor_B.tolist() == [0.0 if leaves_code and task == "code" else 0.5 for task in tasks]
    if leaves_code:
        assert rollout.extra_metrics["anchor/prompts"] == pytest.approx(1 - tasks.count("code") / 24)
    assert rollout.trained_B.tolist() == [task != "math" or prompts != "routed" for task in tasks]
    assert rollout.advantages_N[~rollout.trained_N].eq(0).all()


def test_the_loss_holds_the_exact_kl_of_the_anchored_rows_over_all_tokens(tmp_path):
    config = make_config(
        tmp_path,
        anchor__prompts="teacher_right",
        anchor__schedule="fixed",
        anchor__coef=2.0,
        teacher__autocast="off",
        ppo__batch_size=16,
        ppo__micro_batch_size=16,
        ppo__num_minibatches=1,
    )
    context, _ = judged(config)
    trainer = pipeline.make_trainer(config, context)
    rollout = trainer.collector.collect(trainer.model, 0)
    expected = 0.0
    for problem, prompt, completion in zip(rollout.problems, rollout.prompt_ids, rollout.completions, strict=True):
        ids = torch.tensor([[*prompt, *completion.token_ids]])
        places = slice(len(prompt) - 1, -1)
        logits, ref = (m(ids).logits[0, places] for m in (trainer.model.policy, trainer.collector.teacher.model))
        expected += exact_kl(logits, ref).sum().item() * (0.0 if problem.task == "code" else 2.0)
    expected /= sum(rollout.lengths)
    (piece,) = micro_batches(rollout, list(range(16)), config, 0)
    output = trainer.model(
        piece["input_ids_BL"],
        piece["state_index_N"],
        piece["targets_N"],
        teacher_hidden_NE=piece["teacher_hidden_NE"],
        teacher_weight_VE=trainer.collector.teacher.lm_head_weight_VE,
        teacher_scalars_NK=piece["teacher_scalars_NK"],
    )
    assert trainer._anchor(output, piece).item() == pytest.approx(expected, rel=1e-4)
    assert any(problem.task == "code" for problem in rollout.problems)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"anchor.prompts": "teacher_right", "anchor.placement": "none"}, "says where the anchor acts"),
        (
            {"anchor.prompts": "routed", "anchor.placement": "reward", "anchor.estimator": "k1"},
            "anchor.prompts: routed takes the reward away",
        ),
        (
            {
                "anchor.prompts": "routed",
                "demo": None,
                "student.model": "s",
                "data.train": "d",
                "teachers": [{"model": "a"}, {"model": "b"}],
                "teacher.selection": "curriculum",
            },
            "goes by one teacher's answers",
        ),
    ],
)
def test_what_contradicts_it_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, settings)


def test_without_a_verifying_reward_it_is_refused(tmp_path, capsys):
    words = ["--anchor.prompts", "routed", "--anchor.schedule", "fixed", "--rewards", "[{fn: teacher_likelihood}]"]
    with pytest.raises(SystemExit) as caught:
        parse([*words, "--output_dir", str(tmp_path)])
    assert caught.value.code == 2
    assert "anchor.prompts: routed needs one of the rewards" in capsys.readouterr().err
