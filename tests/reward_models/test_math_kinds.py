"""Kinds of answers that graders get wrong: hand-written verdicts, and the settings for how answers are read."""

import json
from collections import Counter
from pathlib import Path

import pytest

from reward_models.base import RewardSpec
from reward_models.blend import RewardBlend
from reward_models.math_answers import Extraction, extract_answer, gold_answer, is_match, math_answer, unparsed_golds
from reward_models.math_exact import exact_value
from reward_models.reasoning import opens_reasoning
from reward_models.task_check import task_check

CASES = [json.loads(line) for line in Path(__file__).with_name("math_kinds.jsonl").open(encoding="utf-8")]
KINDS = sorted({case["kind"] for case in CASES})
GSM8K = Path(__file__).parents[2] / "../shared/data/gsm8k"


@pytest.mark.parametrize("kind", KINDS)
def test_every_verdict_of_the_kind(kind):
    cases = [case for case in CASES if case["kind"] == kind]
    assert [case for case in cases if is_match(case["prediction"], case["gold"]) is not case["match"]] == []


def test_the_kinds_have_near_misses():
    counts = Counter((case["kind"], case["match"]) for case in CASES)
    assert len(CASES) >= 1_500
    assert len({(case["gold"], case["prediction"]) for case in CASES}) == len(CASES)
    assert min(counts[kind, False] for kind in KINDS) >= 5


RIGHT = (
    "<answer>N</answer>", "<think>7</think>\n<answer>\nN\n</answer>", "<b>N</b>", "=> N", "thus -> N",
    "The answer is $N$.", "The answers are N.", "The answer must be N. (Checked 3 ways.)", '{"answer": "N"}',
    "答案是N。", "\\boxed{N\\text{ 个}}", "Ответ: N",
    "الجواب هو N", "\\boxed{x = N}", "f(2) = N", "\\boxed{N \\text{ W}}",
)  # fmt: skip
WRONG = (
    "2x+3y=N", "\\boxed{2x+1=N}", "x^2=N", "|x|=N", "not x=N", "x=-7 or x=N", "The answer is $N$ or $-20$.",
    "The answer is $N$ to $N9$.", "She earns $N$ million.", "The answer is negative N.", "The answer is twice N.",
    "The answer is N plus 7.", "The answer can't be N.", "The answer is N minutes and 30 seconds.",
    "<think>The answer is N.", "\\boxed{N或-7}", "答案不是N。", "\\boxed{-7} and \\boxed{N}", "N or more",
)  # fmt: skip


@pytest.mark.skipif(not GSM8K.exists(), reason="GSM8K is not beside the repository")
@pytest.mark.parametrize(("templates", "score"), [(RIGHT, 1.0), (WRONG, 0.0)], ids=["right", "wrong"])
def test_every_gsm8k_answer_in_every_form(templates, score):
    golds = [json.loads(line)["answer"].rpartition("#### ")[2] for line in (GSM8K / "test.jsonl").open()][::10]
    for template in templates:
        scores = math_answer(completions=[template.replace("N", gold) for gold in golds], answer=golds)
        assert [gold for gold, got in zip(golds, scores, strict=True) if got != score] == [], template


OPENED = "<|user|>2+2?<|assistant|>\n<think>\n"


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        (OPENED, True),
        ("Let me solve this step by step.\n<think>", True),
        ("<|assistant|><think>", True),
        ("<think>\nOkay, so", True),
        ("Reason inside <think> </think> tags.\n<|assistant|>\n", False),
        ("Use the <think> tag first.<|im_end|>\n<|im_start|>assistant\n", False),
        ("<think>\n\n</think>\n\n", False),
        ("2+2?", False),
        ("", False),
    ],
)
def test_a_prompt_that_ends_inside_reasoning_is_known(prompt, opened):
    assert opens_reasoning(prompt) is opened


def test_a_draft_is_no_answer_where_the_prompt_opened_the_reasoning():
    completions = ["It is 4. The answer is 4.", "\\boxed{4}", "5? no.</think>4", "4</think>5", "4", "#### 4"]
    scores = math_answer(completions=completions, answer=["4"] * 6, prompts=[OPENED] * 6)
    assert scores == [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    assert math_answer(completions=completions, answer=["4"] * 6, prompts=["2+2?"] * 6) == [1, 1, 1, 0, 1, 1]
    messages = [[{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "<think>\n"}]]
    assert math_answer(completions=["4"], answer=["4"], prompts=messages) == [0.0]
    assert task_check(prompts=[OPENED] * 6, completions=completions, answer=["4"] * 6) == scores


def test_a_completion_cut_by_length_is_not_credited_unless_the_run_asks_for_it():
    batch = {"completions": ["\\boxed{4}"] * 4, "answer": ["4", "4", "4", None], "finished": [True, False, None, False]}
    logged = {}
    scores = math_answer(**batch, log_metric=lambda name, value: logged.update({name: value}))
    assert scores == [1.0, 0.0, 1.0, None]
    assert logged["math_answer/cut"] == pytest.approx(1 / 3)
    assert math_answer(**batch, needs="anything") == [1.0, 1.0, 1.0, None]
    assert task_check(prompts=["2+2?"] * 4, **batch) == scores
    with pytest.raises(ValueError, match="needs is one of finished, anything"):
        math_answer(**batch, needs="finish")


def test_the_column_finished_of_a_rollout_reaches_the_grader():
    with RewardBlend([RewardSpec("task_check", 1.0)]) as blend:
        scores = blend.score(
            prompts=["2+2?"] * 2,
            completions=["\\boxed{4}"] * 2,
            completion_ids=[[1]] * 2,
            columns={"answer": ["4"] * 2, "finished": [True, False]},
        )
    assert scores.total == [1.0, 0.0]


def test_an_answer_pattern_alone_decides():
    completions = ["RESULT[4] of 5", "RESULT[3] RESULT[4]", "\\boxed{4}", "RESULT[5], not 4"]
    scores = math_answer(completions=completions, answer=["4"] * 4, answer_pattern=r"RESULT\[(.*?)\]")
    assert scores == [1.0, 1.0, 0.0, 0.0]
    how = Extraction(answer_pattern=r"(?P<unit>\w+)=(?P<answer>\d+)")
    assert extract_answer("kg=4 m=5", how=how) == "5"
    assert extract_answer("a 4 b 5", how=Extraction(answer_pattern=r"\d")) == "5"
    with pytest.raises(ValueError, match="answer_pattern is no regular expression"):
        Extraction(answer_pattern="(")


def test_answer_tags_and_the_last_line_can_be_chosen():
    how = Extraction(answer_tags=("final",))
    assert extract_answer("<final>4</final> <answer>5</answer>", how=how) == "4"
    assert extract_answer("<answer>4</answer> so 5", how=Extraction(answer_tags=())) == "5"
    assert math_answer(completions=["<r>4</r> 5"], answer=["4"], answer_tags=["r"]) == [1.0]
    last = Extraction("last_line")
    assert extract_answer("\\boxed{5}\nThe total is:\n 4 apples\n\n", how=last) == "4 apples"
    assert extract_answer("\\boxed{5}\nAnswer: 4", how=last) == "4"
    with pytest.raises(ValueError, match="answer_tags is a list"):
        Extraction(answer_tags="answer")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mode is one of strict, flexible, last_line"):
        Extraction("loose")


@pytest.mark.parametrize(
    ("gold", "prediction", "match"),
    [
        ("3.5", "Die Antwort ist 3,5.", True),
        ("3,5", "\\boxed{3.5}", True),
        ("1234.5", "\\boxed{1.234,5}", True),
        ("1234", "Es sind 1.234 Euro", True),
        ("1234", "#### 1.234", True),
        ("3, 5", "\\boxed{3, 5}", True),
        ("3", "\\boxed{3,5}", False),
        ("1.234", "\\boxed{1234}", True),
        ("12,5 kg", "La réponse est 12,5 kg.", True),
        ("12,5", "La réponse est 125.", False),
    ],
)
def test_decimal_commas_by_choice(gold, prediction, match):
    assert is_match(prediction, gold, how=Extraction(decimal_comma=True)) is match
    assert math_answer(completions=[prediction], answer=[gold], decimal_comma=True) == [float(match)]


def test_decimal_commas_are_lists_and_thousands_without_it():
    assert not is_match("\\boxed{3,5}", "3.5")
    assert is_match("\\boxed{1,234}", "1234")


def test_golds_that_cannot_work_are_told_and_worked_solutions_are_read():
    golds = ["5", "5 apples", "Evelyn", "\\frac{1}{2}", "x^2+1", "(1,2)", "no solution", None, "A", "是"]
    assert unparsed_golds(golds) == []
    assert (
        unparsed_golds(["We add 2 and 3. #### 5", "\\boxed{5}", "<answer>5</answer>", "Therefore, the answer is: 5."])
        == []
    )
    prose = ["She first buys 3 apples and later on 4 more of them in town", "Line one\nline two", "", "<think>5"]
    assert unparsed_golds(["5", *prose, "6"]) == [1, 2, 3, 4]
    assert gold_answer("(8 points) 120 + 60 = 180 (days).\nTherefore, the answer is: 180.") == "180"


def test_exact_values_by_hand_and_their_bounds():
    from fractions import Fraction

    values = {
        "12+6": 18, "2-3*4": -10, "-2^2": -4, "(-2)^2": 4, "2^{-3}": Fraction(1, 8), "5!": 120, "1,000+1": 1001,
        "\\frac{1}{2}+\\frac13": Fraction(5, 6), "\\binom{5}{2}": 10, "3(4)": 12, "2^3^2": 512, "7/2/2": Fraction(7, 4),
    }  # fmt: skip
    assert {text: exact_value(text) for text in values} == values
    for text in (
        "2\\pi",
        "x",
        "",
        "1/0",
        "10^{10^{10}}",
        "9**9**9",
        "5000!",
        "0^0",
        "2\\frac{1}{2}",
        "(" * 300 + "1",
        "1+",
    ):
        assert exact_value(text) is None, text
