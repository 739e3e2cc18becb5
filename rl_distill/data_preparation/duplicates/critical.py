"""Whether two similar texts ask the same thing: numbers and words that turn a question into another must agree.

"Same text, other numbers" is another problem, and so is "more" for "less" or two names that change places.
It may assume texts that are similar already; it knows English words of number and relation only, digits in any
language.
"""

# ruff: noqa: SIM905 - a list of words, one a line, would fill pages

from __future__ import annotations

import difflib
import re

TOKEN = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+|[^\W\d_]+(?:'[^\W\d_]+)?|(?<![^\W\d_])-|[+*/=<>%$€£^]")
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen \
eighteen nineteen".split()
)
TENS = dict(zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10), strict=True))
NUMBERS = {word: str(value) for value, word in enumerate(UNITS)} | {word: str(n) for word, n in TENS.items()}
HYPHENATED = re.compile(rf"\b({'|'.join(TENS)})-({'|'.join(UNITS[1:10])})\b")
RELATIONS = frozenset(
    "half halves third thirds quarter quarters fifth tenth twice thrice double triple dozen hundred thousand "
    "million billion percent more less fewer least most before after not no never without except increase "
    "decrease increased decreased older younger taller shorter longer faster slower above below over under "
    "first last daily weekly monthly yearly day days week weeks month months year years hour hours minute "
    "minutes second seconds left total average each every both all only and or true false positive negative "
    "even odd minimum maximum largest smallest sum product difference area perimeter volume radius diameter "
    "inch inches foot feet yard yards mile miles meter meters km cm mm kg gram grams pound pounds ounce ounces "
    "gallon gallons liter liters cents dollars".split()
)
LONG_ENOUGH_FOR_A_TYPO = 4


def tokens(text: str) -> list[str]:
    """Lower-case words, numbers without their commas (number words as digits, 25 for twenty-five), operators."""
    joined = HYPHENATED.sub(lambda found: str(TENS[found[1]] + int(NUMBERS[found[2]])), text.lower())
    return [
        _plain(token) if token[0] in ".0123456789" else NUMBERS.get(token, token) for token in TOKEN.findall(joined)
    ]


def _plain(number: str) -> str:
    """1,250.00 as 1250 and 2.50 as 2.5."""
    number = number.replace(",", "")
    return number.rstrip("0").rstrip(".") if "." in number else number


def is_critical(token: str) -> bool:
    return not token[0].isalpha() or token in RELATIONS


def same_question(first: str, second: str) -> bool:
    """True where each sentence has its counterpart, with the same critical tokens in the same order.

    Sentences may change places; each is matched with the most similar one of the other text, numbers aside.
    """
    ours, theirs = _sentences(first), _sentences(second)
    if len(ours) != len(theirs):
        return _agree(tokens(first), tokens(second))
    left = list(theirs)
    for sentence in ours:
        match = max(left, key=lambda other: _likeness(sentence, other))
        left.remove(match)
        if not _agree(sentence, match):
            return False
    return True


def _sentences(text: str) -> list[list[str]]:
    return [found for part in SENTENCE.split(text) if (found := tokens(part))]


def _likeness(first: list[str], second: list[str]) -> float:
    masked = [["#" if token[0].isdigit() else token for token in text] for text in (first, second)]
    return difflib.SequenceMatcher(None, masked[0], masked[1], autojunk=False).ratio()


def _agree(first: list[str], second: list[str]) -> bool:
    """Whether what differs is harmless: no critical token in it, and no word of one place found at another."""
    changes = difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes()
    gone: list[str] = []
    come: list[str] = []
    for kind, a, b, c, d in changes:
        if kind != "equal" and not _harmless(first[a:b], second[c:d]):
            return False
        if kind != "equal":
            gone, come = gone + first[a:b], come + second[c:d]
    return not set(gone) & set(come)


def _harmless(gone: list[str], come: list[str]) -> bool:
    """Whether a replaced stretch has no critical token but for those that a slip of the finger explains."""
    if len(gone) == len(come):
        return all(is_typo(a, b) or not (is_critical(a) or is_critical(b)) for a, b in zip(gone, come, strict=True))
    return not any(is_critical(token) for token in gone + come)


def is_typo(first: str, second: str) -> bool:
    """One letter added, lost or changed, or two that changed places, in words; never between two critical ones."""
    words = first.isalpha() and second.isalpha() and max(len(first), len(second)) >= LONG_ENOUGH_FOR_A_TYPO
    if not words or (is_critical(first) and is_critical(second)):
        return False
    if len(first) > len(second):
        first, second = second, first
    at = next((i for i, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), len(first))
    if len(first) < len(second):
        return len(second) - len(first) == 1 and first[at:] == second[at + 1 :]
    changed = first[at + 1 :] == second[at + 1 :]
    swapped = first[at : at + 2] == second[at : at + 2][::-1] and first[at + 2 :] == second[at + 2 :]
    return changed or swapped
