r"""The answer inside a gold text: most data sets give it bare, some as a worked solution, in a sentence, or in tags.

It may assume gold texts of a data set, not model output.
It will not guess: a text that marks no answer is taken as it stands, and `unparsed_golds` says which cannot work.
"""

import functools
from collections.abc import Sequence

from .math_extract import Extraction, marked_answer
from .math_numbers import quantity
from .math_sentences import looks_like_prose, without_delimiters
from .math_structures import as_collection, as_interval, as_matrix, as_union
from .math_text import normalize
from .reasoning import after_reasoning

SHORT = 40  # a gold text of at most so many characters and no line break may be words: "Evelyn", "no solution"
MAX_ANSWER_CHARACTERS = 2_000


@functools.lru_cache(maxsize=65_536)
def gold_answer(gold: str) -> str:
    """The answer inside a gold text: itself, or what it marks as its answer (a box, `####`, tags, "the answer is")."""
    if not any(character.isalpha() or character == "#" for character in gold):
        return gold
    said = after_reasoning(gold)
    if said is None:
        return gold
    marked = marked_answer(said, Extraction())
    return marked.strip() if marked and marked.strip() else said.strip()


def unparsed_golds(golds: Sequence[str | None]) -> list[int]:
    """Indices of gold texts in which no answer can be told from prose: no completion would match them."""
    return [index for index, gold in enumerate(golds) if gold is not None and not _parses(str(gold))]


def _parses(gold: str) -> bool:
    answer = gold_answer(gold).strip()
    if not answer or len(answer) > MAX_ANSWER_CHARACTERS or after_reasoning(gold) is None:
        return False
    plain = normalize(without_delimiters(answer))
    if quantity(plain) or any(read(plain) for read in (as_matrix, as_union, as_interval)):
        return True
    parts = as_collection(plain)
    return "\n" not in answer and all(_is_short(item) for item in (parts[1] if parts else [plain]))


def _is_short(plain: str) -> bool:
    return not looks_like_prose(plain) or (len(plain) <= SHORT and not any(c.isdigit() for c in plain))
