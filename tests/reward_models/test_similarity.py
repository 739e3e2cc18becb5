"""Similarity: numbers by hand, equality with rouge-score and sacrebleu, and what is left unscored."""

import math

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from reward_models.similarity import bleu, exact_match, lcs_length, rouge_l, teacher_likelihood

WORDS = st.lists(st.sampled_from(["a", "b", "c", "the", "cat", "x1"]), max_size=80)


def test_bleu_is_one_for_the_same_text_and_zero_without_a_common_word():
    same = "the cat sat on the mat"
    assert bleu(completions=[same], teacher_output=[same]) == [pytest.approx(1.0)]
    assert bleu(completions=["dog"], teacher_output=["the cat sat on the mat"]) == [0.0]
    assert bleu(completions=[""], teacher_output=["the cat"]) == [0.0]


def test_bleu_is_sacrebleus_sentence_bleu_over_100():
    text, reference = "the cat sat on a mat today", "the cat sat on the mat"
    expected = sacrebleu.sentence_bleu(text, [reference], use_effective_order=True).score / 100
    assert bleu(completions=[text], teacher_output=[reference]) == [expected]
    assert 0.3 < expected < 0.7


def test_rouge_l_by_hand():
    # common subsequence "the cat on mat" = 4 of 5 and 6 tokens: P = 4/5, R = 4/6, F = 8/11
    scores = rouge_l(completions=["The cat on a mat."], teacher_output=["the cat sat on the mat"])
    assert scores == [pytest.approx(8 / 11)]


@settings(max_examples=200, deadline=None)
@given(WORDS, WORDS)
def test_rouge_l_is_rouge_scores(first, second):
    expected = rouge_scorer.RougeScorer(["rougeL"]).score(" ".join(second), " ".join(first))["rougeL"].fmeasure
    assert rouge_l(completions=[" ".join(first)], teacher_output=[" ".join(second)]) == [pytest.approx(expected)]


def test_lcs_by_hand():
    assert lcs_length(list("ABCBDAB"), list("BDCABA")) == 4  # Cormen et al., figure 15.8
    assert lcs_length([], list("abc")) == 0
    assert lcs_length(list("a" * 200), list("a" * 150)) == 150


@pytest.mark.parametrize("function", [bleu, rouge_l])
def test_best_reference_wins_and_no_reference_is_unscored(function):
    references = [["no common word", "a b c d"], None, [], "a b c d", [None, "a b c d"]]
    scores = function(completions=["a b c d"] * 5, teacher_output=references)
    assert scores == [pytest.approx(1.0), None, None, pytest.approx(1.0), pytest.approx(1.0)]


@pytest.mark.parametrize("function", [bleu, rouge_l])
def test_messages_score_like_strings(function):
    text, reference = "the cat sat there", "the cat sat on the mat"
    message = [{"role": "assistant", "content": text}]
    assert function(completions=[message], teacher_output=[reference]) == function(
        completions=[text], teacher_output=[reference]
    )


def test_teacher_likelihood_is_the_geometric_mean_of_the_token_probabilities():
    rows = [[math.log(0.5), math.log(0.125)], [0.0], [], None, [math.log(0.5)] * 1000]
    assert teacher_likelihood(teacher_logprobs=rows) == [pytest.approx(0.25), 1.0, None, None, pytest.approx(0.5)]


def test_exact_match_looks_past_case_spacing_and_reasoning():
    completions = ["<think>London?</think> paris.", "Paris", "Lyon", "x", "The  Beatles"]
    answer = ["Paris", ["Lutetia", "PARIS"], "Paris", None, ["the beatles"]]
    assert exact_match(completions=completions, answer=answer) == [1.0, 1.0, 0.0, None, 1.0]


def test_exact_match_takes_numbers_wide_digits_and_stops_of_other_scripts():
    completions = ["42", "42.0", "1,000", "４２", "巴黎。", "٤٢", "43", "42 kg", "北京", "4.2e1"]
    answer = [42, 42, 1000.0, "42", "巴黎", 42, 42, 42, ["Peking", "北京。"], 42]
    assert exact_match(completions=completions, answer=answer) == [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]


def test_exact_match_credits_neither_reasoning_nor_what_was_cut():
    prompts = ["Q", "Q<think>\n", "Q<think>\n", "Q", "Q"]
    completions = ["<think>Paris", "Paris", "x</think>Paris", "Paris", "Paris"]
    finished = [True, True, True, False, None]
    scores = exact_match(completions=completions, answer=["Paris"] * 5, prompts=prompts, finished=finished)
    assert scores == [0.0, 0.0, 1.0, 0.0, 1.0]
    assert exact_match(completions=["Paris"], answer=["Paris"], finished=[False], needs="anything") == [1.0]


SAME = [
    "今天天气很好",
    "今日はいい天気です",
    "오늘 날씨가 좋다",
    "Сегодня хорошая погода",
    "الطقس جميل اليوم",
    "สวัสดีครับ",
    "Il fait beau à Orléans",
]


@pytest.mark.parametrize("text", SAME)
@pytest.mark.parametrize("function", [bleu, rouge_l])
def test_identical_text_scores_one_in_every_script(function, text):
    assert function(completions=[text], teacher_output=[text]) == [pytest.approx(1.0)]
    assert function(completions=["zzz"], teacher_output=[text]) == [0.0]


def test_a_changed_character_of_an_unspaced_script_costs_a_part_and_not_all():
    # 6 characters, one exchanged: LCS 5, P = R = F = 5/6
    assert rouge_l(completions=["今天天气不好"], teacher_output=["今天天气很好"]) == [pytest.approx(5 / 6)]
    assert 0.2 < bleu(completions=["今天天气不好"], teacher_output=["今天天气很好"])[0] < 1.0
    # 3 words, one exchanged
    assert rouge_l(completions=["Сегодня плохая погода"], teacher_output=["Сегодня хорошая погода"]) == [
        pytest.approx(2 / 3)
    ]


def test_bleu_uses_sacrebleus_tokenizer_for_chinese_and_any_that_is_named():
    text, reference = "我今天去学校上课", "我明天去学校上课"
    for name, tokenize in ((None, "zh"), ("char", "char"), ("13a", "13a")):
        expected = sacrebleu.sentence_bleu(text, [reference], use_effective_order=True, tokenize=tokenize).score / 100
        got = bleu(completions=[text], teacher_output=[reference], **({"tokenize": name} if name else {}))
        assert got == [pytest.approx(expected)]


def test_tokenizers_can_be_chosen_and_an_unknown_one_is_named():
    assert rouge_l(completions=["今天"], teacher_output=["今天"], tokenize="rouge") == [0.0]
    assert rouge_l(completions=["abcd"], teacher_output=["abxd"], tokenize="char") == [pytest.approx(3 / 4)]
    for function in (bleu, rouge_l):
        with pytest.raises(ValueError, match="tokenize is one of auto"):
            function(completions=["a"], teacher_output=["a"], tokenize="zzh")
