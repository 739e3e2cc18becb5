"""Format, repetition and length: TRL's own functions must give the same numbers."""

import pytest
import trl.rewards as trl_rewards

from reward_models.format import cosine_length, repetition, soft_overlong, think_format

# TRL's verdict, and ours where it differs: reasoning alone is no answer
TEXTS = {
    "<think>a</think>b": (1.0, 1.0),
    "<think>a</think>": (1.0, 0.0),
    "<think>a</think>\n \n": (1.0, 0.0),
    "<think></think>": (1.0, 0.0),
    "<think>\na\n</think>\n\nb": (1.0, 1.0),
    "<think>a": (0.0, 0.0),
    "a</think>b": (0.0, 0.0),
    "<think>a<think>b</think>c": (0.0, 0.0),
    "b": (0.0, 0.0),
    "": (0.0, 0.0),
}


def as_messages(texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


def test_think_format_is_trls_but_wants_an_answer():
    trls, ours = map(list, zip(*TEXTS.values(), strict=True))
    assert trl_rewards.think_format_reward(as_messages(TEXTS)) == trls
    assert think_format(completions=list(TEXTS)) == think_format(completions=as_messages(TEXTS)) == ours


def test_think_format_knows_a_tag_that_the_prompt_opened():
    texts = ["a</think>b", "a</think>", "a", "<think>a</think>b", "a</think>b"]
    rendered = ["<|assistant|><think>\n"] * 4 + ["<|assistant|>"]
    expected = [1.0, 0.0, 0.0, 0.0, 0.0]
    assert think_format(prompts=rendered, completions=texts) == expected
    asked = [[{"role": "user", "content": "2x?"}]] * 5
    assert think_format(prompts=asked, completions=as_messages(texts), rendered_prompt=rendered) == expected
    prefilled = [[*asked[0], {"role": "assistant", "content": "<think>"}]] * 4 + asked[:1]
    assert think_format(prompts=prefilled, completions=as_messages(texts)) == expected


def test_repetition_by_hand():
    # bigrams of 5 5 5 5 5: four, one distinct: 1 - 1/4 = 0.75
    ids = [[1, 2, 3, 4], [5] * 5, [], [1]]
    assert repetition(completion_ids=ids, ngram_size=2, max_penalty=-1.0) == [0.0, -0.75, 0.0, 0.0]


def test_soft_overlong_by_hand():
    ids = [[1] * n for n in (80, 90, 100, 101)]
    assert soft_overlong(completion_ids=ids, max_completion_len=100, soft_punish_cache=20) == [0.0, -0.5, -1.0, -1.0]


def test_cosine_length_gives_trls_values():
    lengths, answers = [0, 25, 50, 100, 150], ["\\frac{1}{3}"] * 5
    ids = [[1] * n for n in lengths]
    for box in ("\\boxed{\\frac{1}{3}}", "\\boxed{\\frac{1}{2}}"):
        messages = [[{"role": "assistant", "content": box}]] * 5
        expected = trl_rewards.get_cosine_scaled_reward(max_len=100)(messages, answers, ids)
        got = cosine_length(completions=[box] * 5, completion_ids=ids, answer=answers, max_len=100)
        assert got == pytest.approx(expected)


def test_cosine_length_leaves_problems_without_an_answer_unscored():
    assert cosine_length(completions=["18"], completion_ids=[[1]], answer=[None], max_len=9) == [None]
