"""Greedy evaluation: answers end where rollouts end, and trouble of a grader costs its own answers only."""

import pytest

from reward_models import RewardBlend, RewardSpec
from rl_distill.evals import evaluation
from rl_distill.evals.evaluation import Evaluation, evaluate, evaluate_writer, gap_recovered, grade, verdicts
from rl_distill.generation.sampling import Generated, Sampling, StopStrings, TransformersEngine
from rl_distill.models.tokenizers import prompt_ids
from rl_distill.types import Completion, Finish, Problem
from tests.tiny_run import make_config


def answered(*texts):
    return [Completion(text, [0], Finish.STOP) for text in texts]


def sums(number):
    return [Problem("math", f"{i}+1", f"{i} + 1 = ", columns={"answer": str(i + 1)}) for i in range(number)]


class Fixed:
    """A writer that says the same to everything, and knows of no stop strings."""

    def __init__(self, token_ids):
        self.token_ids = token_ids

    def generate(self, prompt_ids, sampling, batch_size, *, tasks=()):
        return [Generated(self.token_ids, Finish.LENGTH) for _ in prompt_ids]


def test_an_answer_ends_after_the_token_that_completes_a_stop_string(tmp_path, tokenizer):
    ids = tokenizer("#### 42\nQ: next? 43")["input_ids"]
    # the fewest tokens whose text holds the stop string, by hand over the prefixes
    length = next(n for n in range(1, len(ids) + 1) if "\nQ:" in tokenizer.decode(ids[:n]))
    assert length < len(ids)
    config = make_config(tmp_path, generation__stop=["\nQ:", "never"])
    (completion,) = evaluate_writer(Fixed(ids), tokenizer, sums(1), config).completions
    assert completion == Completion(tokenizer.decode(ids[:length]), ids[:length], Finish.STOP)
    (whole,) = evaluate_writer(Fixed(ids), tokenizer, sums(1), make_config(tmp_path)).completions
    assert (whole.token_ids, whole.finish) == (ids, Finish.LENGTH)


def test_a_validation_answer_is_what_a_greedy_rollout_would_be(tmp_path, make_policy, tokenizer):
    """An untrained model with tied embeddings repeats the last token, here a space."""
    policy, problems, stop = make_policy(3), sums(6), " " * 3
    engine = TransformersEngine(tokenizer, 4, StopStrings(tokenizer, [stop]))
    ids = prompt_ids(tokenizer, [problem.prompt for problem in problems])
    rollouts = engine.generate(policy, ids, Sampling(12, temperature=0.0), range(6))
    config = make_config(tmp_path, generation__stop=[stop])
    completions = evaluate(policy, tokenizer, problems, config).completions
    assert [(c.text, len(c.token_ids), c.finish) for c in completions] == [(stop, 3, Finish.STOP)] * 6
    assert [(c.token_ids, c.finish) for c in completions] == [(item.token_ids, item.finish) for item in rollouts]


def test_many_answers_are_graded_in_batches(monkeypatch):
    sizes = []
    score = RewardBlend.score
    monkeypatch.setattr(evaluation, "GRADED_AT_ONCE", 4)
    monkeypatch.setattr(RewardBlend, "score", lambda blend, **c: sizes.append(len(c["prompts"])) or score(blend, **c))
    right = [f"The answer is {i + 1 if i % 3 else 0}." for i in range(10)]
    assert grade(sums(10), answered(*right)) == [float(i % 3 > 0) for i in range(10)]
    assert sizes == [4, 4, 2]


def test_a_grader_in_trouble_leaves_its_batch_ungraded_and_never_fails(tmp_path, monkeypatch):
    (tmp_path / "grader.py").write_text(
        "import time\n"
        "def task_check(completions, answer, **columns):\n"
        "    if any(text == 'crash' for text in completions):\n"
        "        raise OSError('no sandbox')\n"
        "    if 'hang' in completions:\n"
        "        time.sleep(30)\n"
        "    return [float(text == a) for text, a in zip(completions, answer)]\n"
    )
    monkeypatch.setattr(evaluation, "GRADED_AT_ONCE", 2)
    spec = RewardSpec(f"{tmp_path}/grader.py:task_check", time_limit=1.0)
    texts = ["1", "0", "crash", "4", "hang", "6", "7", "8"]
    found = verdicts(sums(8), answered(*texts), [spec])
    # the one that crashes is found among its two; a batch that hangs is lost as a whole
    assert found == [1.0, 0.0, None, 1.0, None, None, 1.0, 1.0]
    assert Evaluation(sums(8), answered(*texts), found).num_ungraded == 3


def test_rewards_that_verify_nothing_give_no_verdict():
    assert verdicts(sums(2), answered("1", "2"), [RewardSpec("bleu")]) == [None, None]


def test_a_task_that_lost_its_grades_at_the_end_is_left_out_of_the_gap():
    teacher, before = {"code": 0.8, "math": 0.9, "overall": 0.85}, {"code": 0.2, "math": 0.5, "overall": 0.4}
    after = Evaluation(sums(2), answered("1", "0"), [1.0, 0.0]).accuracy()
    assert gap_recovered(teacher, before, after) == pytest.approx({"math": 0.0, "overall": 0.1 / 0.45})
