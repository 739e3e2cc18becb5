"""Fenced blocks of Python in Markdown as models write it.

It may assume any text; scans are linear. It follows CommonMark, and reads what models get wrong: prose behind a closing
fence, a closing fence glued to the last line of code, an opening fence behind prose. It will not mend the code.
"""

import functools
import re
from typing import NamedTuple

LABELS = ("", "python", "python3", "py")
LABEL = r"(?:python3?|py)"
# Possessive (`*+`): without it a megabyte of backticks costs quadratic time.
OPENING = re.compile(
    r"^(?P<margin>[ \t]*+(?:(?:[-*+]|\d{1,9}[.)])[ \t]++)*+)(?P<run>`{3,}+|~{3,}+)[ \t]*+"
    r"(?P<label>[A-Za-z0-9_+-]*+)[^\n`]*+\n"
    rf"|^[^\n`~]*+(?P<behind>`{{3,}}+|~{{3,}}+)(?P<named>{LABEL})[ \t]*+\n",
    re.MULTILINE | re.IGNORECASE,
)
TRIPLE_QUOTE = re.compile("\"\"\"|'''")
CLOSING_MAY_BE_DEEPER_BY = 3  # CommonMark


class Block(NamedTuple):
    """A Python block: its code without the margin of the list it stands in, whether it says that it is Python, and
    where in the text it starts.
    """

    code: str
    labelled: bool
    start: int


def python_blocks(text: str) -> list[Block]:
    """The Python blocks of a text. A fence that is never closed lasts until the end: the completion was cut."""
    blocks, position = [], 0
    while (opening := OPENING.search(text, position)) is not None:
        run = opening["run"] or opening["behind"]
        margin = opening["margin"] or ""
        end, position = _end_of_block(text, opening.end(), run, len(margin))
        label = (opening["label"] or opening["named"] or "").lower()
        if label in LABELS:
            code = _without_margin(text[opening.end() : end], len(margin))
            blocks.append(Block(code, label != "", opening.start()))
    return blocks


def _end_of_block(text: str, start: int, run: str, margin: int) -> tuple[int, int]:
    """(where the code ends, where to go on reading): at the first closing fence that is no text of the program."""
    position, quotes, fallback = start, 0, None
    for closing in _closings(run[0], len(run)).finditer(text, start):
        end = closing.start() if closing["glued"] is None else closing.start("glued")
        quotes += len(TRIPLE_QUOTE.findall(text, position, end))
        position = end
        found = end, end if closing["opening"] else closing.end()
        if closing["glued"] is None and len(closing["margin"]) <= margin:
            return found
        if closing["opening"] or len(closing["margin"] or "") > margin + CLOSING_MAY_BE_DEEPER_BY:
            continue
        if quotes % 2 == 0:
            return found
        fallback = fallback or found
    return fallback or (len(text), len(text))


@functools.lru_cache(maxsize=64)
def _closings(character: str, length: int) -> re.Pattern[str]:
    """What may end a block: a fence on a line of its own or before prose, the opening of the next Python block, or a
    fence glued to the end of a line that has no other.
    """
    run, other = rf"{character}{{{length},}}+", rf"[^\n{character}]"
    return re.compile(
        rf"^(?P<margin>[ \t]*+){run}(?:[ \t]*+(?P<opening>{LABEL})[ \t]*+|[ \t]++[^\n]*+|[ \t]*+)$"
        rf"|^{other}++(?P<glued>{run})(?:[ \t]++{other}*+)?$",
        re.MULTILINE | re.IGNORECASE,
    )


def _without_margin(code: str, width: int) -> str:
    if not width:
        return code
    return re.sub(rf"^[ \t]{{1,{width}}}+", "", code, flags=re.MULTILINE)
