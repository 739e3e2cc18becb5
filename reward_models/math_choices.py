r"""Answers to multiple-choice questions: the letter in all its forms (`(C)`, "option C", `C. 12`), and several letters.

It may assume text from math_text.normalize.
It will not choose: "C or D" is no choice.
"""

import re
from collections.abc import Callable
from typing import TypeVar

Verdict = TypeVar("Verdict")

WORD = (
    r"(?:(?:the |la |el |le |die |il )?(?:correct |right )?(?:opci[óo]n|letra|lettre|alternativa|op[çc][ãa]o|opzione"
    r"|вариант|الخيار|option|choice|answer|letter|alternative|statement|选项|選項|选"
    r"|選)(?: is)?\s*[:：]?\s*)"
)
LETTER = re.compile(rf"(?:(?:la|el|le|die) )?{WORD}?\(?([A-Z])\)?[.:)]?\s*(?:选项|選項)?", re.IGNORECASE)
WITH_TEXT = re.compile(
    rf"{WORD}?(?:\(([A-J])\)[.:]?\s*|([A-J])\s?(?:\)|\.|:)\s+|([A-J])[.)](?=[\d\\$])"
    rf"|([A-J])\s+-\s+(?=[A-Za-z]{{2}})|([A-J])\s+(?=\([^()]*\)$))(?P<text>\S.*)",
    re.DOTALL,
)
MORE_LETTERS = re.compile(
    r"^(?:[,;&/]|(?:or|and)\b)|\([A-J]\)|\b(?:or|and)\s+\(?[A-J]\)?(?![\w])|(?:^|\s)[A-J][.)](?=\s)"
)
SEVERAL = re.compile(r"\(?[A-J]\)?(?:\s*(?:,|;|&|\band\b|、|和)?\s*\(?[A-J]\)?){1,9}")


def same_choice(left: str, right: str, compare: Callable[[str, str], Verdict]) -> Verdict | bool | None:
    """Whether two answers choose alike, None where neither form decides. `compare` is for the text of a choice.

    Against a gold letter (right) of the usual four a small letter is taken for a choice, not for a variable.
    """
    if re.fullmatch("[A-D]", right) and re.fullmatch(rf"\(?{right.lower()}[.)]*", left):  # "Answer: d"
        return True
    (left_letter, left_text), (right_letter, right_text) = _parts(left), _parts(right)
    if left_letter and right_letter:
        if left_letter != right_letter or not (left_text and right_text):
            return left_letter == right_letter
        return compare(left_text, right_text)
    if left_letter and left_text:  # "C. 12" for 12
        return compare(left_text, right)
    if right_letter and right_text:
        return compare(left, right_text)
    several = _several(left), _several(right)
    return several[0] == several[1] if several[0] and several[1] else None


def _parts(text: str) -> tuple[str | None, str]:
    text = text.replace("\ue000", "").strip()
    letter = LETTER.fullmatch(text)
    if letter:
        explicit = len(text) > 1 or letter[1].isupper()
        return (letter[1].upper() if _uppercase(text, letter) else None, "") if explicit else (None, "")
    labelled = WITH_TEXT.fullmatch(text)
    if labelled is None or MORE_LETTERS.search(labelled["text"]):
        return None, ""
    return next(group for group in labelled.groups()[:5] if group), labelled["text"].strip()


def _uppercase(text: str, letter: re.Match) -> bool:
    """A lower-case letter is a choice only behind "option" or the like: (c) and c may be variables."""
    return letter[1].isupper() or re.match(WORD, text, re.IGNORECASE) is not None


def _several(text: str) -> frozenset[str] | None:
    text = text.replace("\ue000", "").strip()
    return frozenset(re.findall("[A-J]", text)) if SEVERAL.fullmatch(text) else None
