"""Format, repetition and length: TRL's own functions must give the same numbers."""

import pytest
import trl.rewards as trl_rewards

from reward_models.format import cosine_length, repetition, soft_overlong, think_format

TEXTS = ["<think>a</think>b", "<think>a", "a</think>b", "<think>a<think>b</think>c", "b", "", "<think></think>"]


def test_think_format_is_trls_on_strings_and_messages_but_for_an_empty_answer():
    messages = [[{"role": "assistant", "content": text}] for text in TEXTS]
    ours = think_format(completions=TEXTS)
    assert ours == think_format(completions=messages) == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert ours[:-1] == trl_rewards.think_format_reward(messages)[:-1]
    assert think_format(completions=["<think>a</think>", "<think>a</think> \n"]) == [0.0, 0.0]


def test_think_format_goes_on_where_the_prompt_opened_the_tag():
    prompts = ["Q<|assistant|>\n<think>\n", "Q: ", [{"role": "assistant", "content": "<think>"}]]
    assert think_format(completions=["a</think>b"] * 3, prompts=prompts) == [1.0, 0.0, 1.0]
    assert think_format(completions=["<think>a</think>b"] * 2, prompts=prompts[:2]) == [0.0, 1.0]


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
