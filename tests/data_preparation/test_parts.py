"""Normal form, rules, gold checks, splits, agreement: each against what a hand says."""

import random
import unicodedata
from collections import Counter

import pytest

from rl_distill.data_preparation.agreement import fleiss_kappa, majority_share
from rl_distill.data_preparation.gold import gold_faults
from rl_distill.data_preparation.rules import Rules, refused
from rl_distill.data_preparation.splitting import Place, assign
from rl_distill.data_preparation.texts import normalized, normalized_row


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("cafe\u0301  costs\t5\u00a0euros ", "caf\u00e9 costs 5 euros"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("a\u200bb\ufeff c", "ab c"),
        ("a\n\n\n\nb", "a\n\nb"),
        ("see ```\nx  =  1\n``` and   go", "see ```\nx  =  1\n``` and go"),
        ("def f():\n    a  =  1", "def f():\n    a  =  1"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
    ],
)
def test_normal_form(given, expected):
    assert normalized(given) == expected


def test_the_normal_form_is_one():
    draw = random.Random(0)
    letters = ["a", " ", "\t", "\n", "\r", "e\u0301", "\u00a0", "\u200b", "```", "    ", "5", "\u4e2d", "\u200d"]
    for _ in range(2000):
        once = normalized("".join(draw.choices(letters, k=draw.randrange(30))))
        assert normalized(once) == once
        assert "```" in once or unicodedata.is_normalized("NFC", once)


def test_code_and_other_columns_keep_every_character():
    code = {"prompt": "def f():\n\treturn  'e\u0301'", "test": "x  = 1", "answer": "a  b"}
    assert normalized_row(code) == code
    row = {"question": "a  b  c", "id": "x  y", "messages": [{"role": "user", "content": "c  d"}]}
    assert normalized_row(row) == {"question": "a b c", "id": "x  y", "messages": [{"role": "user", "content": "c d"}]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"answer": "5"}, "no_prompt"),
        ({"question": " ", "answer": "5"}, "empty_prompt"),
        ({"question": "What\ufffd is it worth?", "answer": "5"}, "broken_text"),
        ({"question": "The caf\u00c3\u00a9 has 5 tables", "answer": "5"}, "broken_text"),
        ({"question": "word " * 5000, "answer": "5"}, "too_long"),
        ({"question": "Hm?", "answer": "5"}, "too_short"),
        ({"question": "#@! ~~ :: || ;; '' {} [] a", "answer": "5"}, "mostly_symbols"),
        ({"question": "buy it now\nbuy it now\nbuy it now\nbuy it today", "answer": "5"}, "repeated_lines"),
        ({"question": "How many is two and three?"}, "no_gold"),
        ({"question": "How many is two and three?", "answer": " "}, "no_gold"),
        ({"question": "How many is two and three?", "answer": "5"}, None),
        ({"question": "\u5c0f\u660e\u6709\u4e94\u4e2a\u82f9\u679c", "answer": "5"}, None),
        ({"prompt": "f", "test": "assert f"}, None),
        ({"question": "Caf\u00e9 \u00c0 la carte costs 5", "answer": "5"}, None),
    ],
)  # fmt: skip
def test_rules(row, reason):
    assert refused(row, Rules()) == reason


def test_a_rule_for_the_script():
    row = {"question": "\u0441\u043a\u043e\u043b\u044c\u043a\u043e \u0431\u0443\u0434\u0435\u0442 two", "answer": "5"}
    assert refused(row, Rules(script="latin")) == "other_script"


def test_gold_answers_meet_the_graders():
    head = {"prompt": "def add(a, b):\n", "entry_point": "add", "test": "def check(f):\n    assert f(1, 2) == 3\n"}
    rows = [
        {"question": "?", "answer": "5 - 2 = 3\n#### 3"},
        {"question": "?", "answer": "well, that is a long story about 3 people and 4 dogs and nothing else at all"},
        head | {"canonical_solution": "    return a + b\n"},
        head | {"canonical_solution": "    return a - b\n"},
        head,
    ]
    assert gold_faults(rows) == [None, "gold_unreadable", None, "gold_fails", None]


def test_kappa_of_fleiss_own_example():
    """Fleiss 1971, as tabulated by Wikipedia: 10 subjects, 14 raters, 5 categories: 0.210."""
    counts = [
        (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1), (7, 7, 0, 0, 0),
        (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
    ]  # fmt: skip
    items = [[category for category, n in enumerate(row) for _ in range(n)] for row in counts]
    assert fleiss_kappa(items) == pytest.approx(0.2099, abs=5e-5)


def test_kappa_at_its_ends():
    assert fleiss_kappa([["a", "a"], ["b", "b"]]) == 1
    assert fleiss_kappa([["a", "b"], ["a", "b"]]) == -1
    assert fleiss_kappa([["a", "a"]]) != fleiss_kappa([["a", "a"]])  # NaN: chance alone would agree
    with pytest.raises(ValueError, match="same number"):
        fleiss_kappa([["a", "a"], ["a"]])
    assert majority_share(["a", "b", "a"]) == 2 / 3


def test_splits_are_even_in_each_stratum_and_whole_in_each_key():
    draw = random.Random(0)
    for trial in range(50):
        keys = {f"k{i}": draw.choice("xyz") for i in range(200)}
        places = [Place(key, keys[key]) for key in draw.choices(list(keys), k=600)]
        splits = assign(places, {"validation": 0.1, "test": 0.25}, trial)
        own = {place.key: split for place, split in zip(places, splits, strict=True)}
        assert all(own[place.key] == split for place, split in zip(places, splits, strict=True))
        for stratum in "xyz":
            found = Counter(split for key, split in own.items() if keys[key] == stratum)
            number = found.total()
            assert abs(found["validation"] - 0.1 * number) <= 1
            assert abs(found["test"] - 0.25 * number) <= 1


def test_another_seed_splits_otherwise_and_the_order_of_rows_does_not():
    places = [Place(str(i), "") for i in range(100)]
    first = assign(places, {"test": 0.2}, 0)
    assert first == assign(places[::-1], {"test": 0.2}, 0)[::-1]
    assert first != assign(places, {"test": 0.2}, 1)
