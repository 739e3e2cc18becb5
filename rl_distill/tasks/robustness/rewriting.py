"""The same problem in other words: the answer stays what it was. Every rule keeps the numbers and their order.

Kinds after GSM-Plus (Li et al. 2024) and GSM-NoOp (Mirzadeh et al. 2024). English texts. None where a rule finds
nothing to change.
"""

# ruff: noqa: SIM905 - a list of words, one a line, would fill pages

from __future__ import annotations

import random
import re

WOMEN = "Alice Amanda Amy Anna Ashley Betty Carol Claire Ella Emily Emma Grace Hannah Helen Jane Janet Jenny Jessica \
Julia Karen Kate Laura Lily Linda Lisa Lucy Maria Marie Mary Megan Mia Nancy Natalia Nina Olivia Rachel Rebecca Rosa \
Ruth Sandra Sarah Sara Sophia Susan Tina Wendy Zoe".split()
MEN = "Adam Albert Alan Andrew Ben Bill Bob Brian Carl Charles Charlie Daniel Dave David Eric Ethan Frank Fred George \
Greg Harry Henry Jack Jacob James Jason Jeff Jim Joe John Josh Kevin Larry Leo Luke Mark Martin Matt Max Michael Mike \
Nathan Noah Oliver Paul Peter Rick Robert Ryan Sam Simon Steve Tim Toby Tom Tony Victor".split()
SPELLED = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen \
seventeen eighteen nineteen twenty".split()
NUMBER_WORDS = frozenset(SPELLED) | set(
    "third quarter quarters thirds halves twice thrice double triple dozen thirty \
forty fifty sixty seventy eighty ninety hundred thousand million billion".split()
)
ASIDES = (
    "A neighbour has a green bicycle with a small bell.",
    "The weather was pleasant that morning.",
    "A friend had told a story about this the evening before.",
    "The nearest library closes early in winter.",
    "Somebody in the next street was playing the piano.",
)
COUNTED_ASIDES = (
    "A neighbour, who has nothing to do with this, owns {n} postcards.",
    "In another town, {n} people were waiting for a bus at the time.",
    "The local library, by the way, has {n} windows.",
)
"""Distractors with a number that no step needs."""
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def renamed(text: str, draw: random.Random) -> str | None:
    """First names replaced by others of the same gender, each by one that is not in the text."""
    words = set(re.findall(r"[A-Z][a-z]+", text))
    mapping: dict[str, str] = {}
    for names in (WOMEN, MEN):
        present = [name for name in names if name in words]
        others = [name for name in names if name not in words]
        mapping |= dict(zip(present, draw.sample(others, len(present)), strict=True))
    return replaced(text, mapping) if mapping else None


def replaced(text: str, mapping: dict[str, str]) -> str:
    """The text with whole words replaced, all at once."""
    return re.sub(r"\b(" + "|".join(map(re.escape, mapping)) + r")\b", lambda found: mapping[found[0]], text)


def with_typos(text: str, draw: random.Random, share: float = 0.08) -> str | None:
    """Two letters swapped inside a share of the words, at least one; no name or word of number is changed or made."""
    words = text.split(" ")
    spared = [word in NUMBER_WORDS or not (word.isalpha() and word.islower()) for word in words]
    places = [i for i, word in enumerate(words) if len(word) > 4 and not spared[i]]
    for i in draw.sample(places, min(len(places), max(1, round(len(words) * share)))):
        options = [new for k in range(1, len(words[i]) - 2) if (new := swapped(words[i], k)) not in NUMBER_WORDS]
        if options:
            words[i] = draw.choice(options)
    return None if " ".join(words) == text else " ".join(words)


def swapped(word: str, k: int) -> str:
    """The word with its letters k and k + 1 exchanged."""
    return word[:k] + word[k + 1] + word[k] + word[k + 2 :]


def spelled_numbers(text: str, draw: random.Random) -> str | None:
    """Whole numbers up to twenty as words; those beside a sign ($5, 5%, 1/2, 3:30, 2.5, 10,000) stay."""
    pattern = re.compile(
        r"(?<![\w.,/$€£:%+*=-])(1?\d|20)(?![\w/%:*+=-]|[.,]\d| ?(?:am|pm|AM|PM|a\.m|p\.m)\b|\s*[-+*/=])"
    )
    changed = pattern.sub(lambda found: SPELLED[int(found[0])], text)
    return None if changed == text else changed


def with_aside(text: str, draw: random.Random) -> str | None:
    """A sentence about something else before the last one, the question."""
    return _inserted(text, draw.choice(ASIDES))


def with_counted_aside(text: str, draw: random.Random) -> str | None:
    """The same, with a number in it that nothing needs."""
    return _inserted(text, draw.choice(COUNTED_ASIDES).format(n=draw.randrange(11, 99)))


def _inserted(text: str, sentence: str) -> str | None:
    parts = SENTENCE_END.split(text.strip())
    return " ".join([*parts[:-1], sentence, parts[-1]]) if len(parts) > 1 else None


KINDS = {
    "renamed": renamed,
    "typos": with_typos,
    "spelled_numbers": spelled_numbers,
    "aside": with_aside,
    "counted_aside": with_counted_aside,
}
"""By name: text, random generator -> the rewritten text or None."""
