"""Planted duplicates are found in real problems; look-alikes and the originals stay."""

import os
import random
from pathlib import Path

import pytest

from rl_distill.data_preparation.duplicates import Prints, find_duplicates, fingerprint
from rl_distill.data_preparation.duplicates.critical import is_typo, same_question, tokens
from rl_distill.data_preparation.duplicates.find import jaccard, plain_text
from rl_distill.files import read_jsonl
from tests.data_preparation.planting import plant

GSM8K = Path(os.environ.get("RLD_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "gsm8k" / "train.jsonl"
RENAMED_PAIR = 6691
"""Row 6691 of the train file is row 2483 with Amanda for Josie: the only problem that GSM8K asks twice."""


def found_in(rows, threshold=0.6):
    return find_duplicates(Prints.of([fingerprint(row) for row in rows]), rows.__getitem__, threshold)


def row(question, answer="#### 5", **columns):
    return {"question": question, "answer": answer, **columns}


@pytest.mark.skipif(not GSM8K.is_file(), reason="needs GSM8K's train file in shared/data")
def test_planted_duplicates_are_found_in_gsm8k_and_nothing_distinct_is_lost():
    rows, planted, look_alikes = plant(read_jsonl(GSM8K), 0.2, 7)
    found = set(found_in(rows))
    assert found - set(planted) == {RENAMED_PAIR}
    assert not found & set(look_alikes)
    assert len(found & set(planted)) >= 0.95 * len(planted)
    assert len(planted) > 1200
    assert len(look_alikes) > 1000


def test_sums_that_differ_in_their_numbers_alone_are_all_kept():
    draw = random.Random(0)
    sums = [(draw.randint(1, 99), draw.randint(1, 99)) for _ in range(800)]
    rows = [row(f"What is the sum of {a} and {b}? Answer with one number.", f"#### {a + b}") for a, b in set(sums)]
    assert not found_in(rows)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Tom has 5 apples and 3 pears. How many fruits?", "Tom has 3 apples and 5 pears. How many fruits?"),
        ("Tom has 5 figs. Ann has 3 figs. How many more?", "Tom has 3 figs. Ann has 5 figs. How many more?"),
        ("Ann has 4 more apples than Tom, who has 8.", "Ann has 4 fewer apples than Tom, who has 8."),
        ("A box of 25 pens costs $7.50 in the shop.", "A box of 25 pens costs $75.0 in the shop."),
        ("A pool holds 1,000 gallons and loses 3 each day.", "A pool holds 1,000 gallons and loses 3 each week."),
        ("Ann has twice as many cards as Tom has.", "Tom has twice as many cards as Ann has."),
        ("What is 7 + 3 when read aloud by a child?", "What is 7 - 3 when read aloud by a child?"),
    ],
)  # fmt: skip
def test_another_problem_in_nearly_the_same_words_is_kept(first, second):
    assert not same_question(first, second)
    assert not found_in([row(first), row(second)], 0.1)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Tom buys 2 red balls and then 12 blue ones.", "Tom buys two red balls and then twelve blue ones!"),
        ("Tom has 5 apples. Ann has 3 pears. How many fruits?", "Ann has 3 pears. Tom has 5 apples. How many fruits?"),
        ("The baker sold 20 loaves of fresh bread.", "The baker sold 20 loaves of frehs bread."),
        ("The baker sold twenty-five loaves of bread.", "The baker sold 25 loaves of bread"),
        ("It costs $1,250.00 to fly there and back.", "It costs $1250 to fly there and back."),
    ],
)
def test_the_same_problem_in_nearly_the_same_words_is_found(first, second):
    assert same_question(first, second)
    assert found_in([row(first), row(second)])[1].of == 0


def test_rows_with_other_golds_or_tests_are_never_merged():
    text = "Tom has some apples and gives all of them away. How many are left?"
    assert not found_in([row(text), row(text + " Tell me.", "#### 6")])
    code = {"question": "def add(a, b):\n    ...", "entry_point": "add"}
    assert not found_in([code | {"test": "assert add(1, 1) == 2"}, code | {"test": "assert add(1, 1) == 0"}])
    assert found_in([code | {"test": "x"}, code | {"test": "x"}])[1].reason == "duplicate"


def test_one_text_with_two_golds_loses_both_rows():
    found = found_in([row("How many moons has the Earth?", "1"), row("how many moons has the earth", "2")])
    assert {index: one.reason for index, one in found.items()} == {0: "conflicting_gold", 1: "conflicting_gold"}


def test_the_similarity_is_that_of_sets_of_five_letter_pieces():
    first, second = "abcdefgh", "abcdefgx"  # abcde bcdef cdefg defgh against abcde bcdef cdefg defgx: 3 of 5
    assert jaccard(first, second) == 3 / 5
    assert jaccard(plain_text("It IS, so: 5"), plain_text("it is so 5")) == 1


def test_minhash_estimates_the_similarity():
    """The share of equal bands of one row each would be the Jaccard similarity; of four rows its fourth power."""
    draw = random.Random(1)
    words = [f"w{draw.randrange(10**6)}" for _ in range(4000)]
    pairs = [(" ".join(words[i : i + 40]), " ".join(words[i : i + 34] + ["other"] * 2)) for i in range(0, 3900, 40)]
    pairs = [(row(a, "#### 1"), row(b, "#### 1")) for a, b in pairs]
    similarities = [jaccard(plain_text(a["question"]), plain_text(b["question"])) for a, b in pairs]
    bands = [(fingerprint(a).bands == fingerprint(b).bands).mean() for a, b in pairs]
    expected = sum(s**4 for s in similarities) / len(pairs)
    assert abs(sum(bands) / len(bands) - expected) < 4 * (expected * (1 - expected) / (32 * len(pairs))) ** 0.5


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("there", "htere", True), ("left", "list", False), ("apples", "appels", True), ("more", "less", False),
        ("apples", "apple", True), ("ten", "tan", False), ("pears", "peers", True), ("boats", "coats", True),
        ("boat", "house", False),
    ],
)  # fmt: skip
def test_typos(first, second, expected):
    assert is_typo(first, second) is expected


def test_tokens():
    assert tokens("Twenty-five cows, 1,000.50 dollars; well-known") == [
        "25",
        "cows",
        "1000.5",
        "dollars",
        "well",
        "known",
    ]


def test_a_chain_of_small_changes_does_not_swallow_its_far_end():
    words = [f"word{chr(97 + i)}" for i in range(20)]
    chain = [" ".join(["changed" + chr(97 + i) for i in range(k)] + words[k:]) for k in range(0, 21, 2)]
    found = found_in([row(text) for text in chain])
    kept = [chain[i] for i in range(len(chain)) if i not in found]
    assert len(kept) > 1
    assert all(jaccard(chain[i], chain[one.of]) >= 0.6 for i, one in found.items())
