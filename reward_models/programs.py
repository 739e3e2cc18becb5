"""From a model's text to a Python program: which part of the text is code, and what of the prompt goes before it.

It may assume nothing of the text: it is read with linear scans, never parsed, compiled or run here (deeply nested
source can crash Python's own parser). It will not repair code.
"""

import re

from .fences import Block, python_blocks
from .merging import merged
from .reasoning import after_reasoning

# Where a continuation of a function ends: OpenAI's HumanEval stops, and the ways in which chat goes on after code.
STOPS = ("\nclass ", "\ndef ", "\n# ", "\nif ", "\nprint", "\nassert ", "\n```", "\n@", "\n<|")
CODE_LINE = re.compile(
    r"[ \t)\]}#@]|(?:async |def |class |import |from |if |elif |else:|for |while |with |try:|except|finally:|return"
    r"|global |assert |raise |del |pass\b|lambda )|[A-Za-z_][\w.]*(?:\[[^\]]*\])*[ \t]*"
    r"(?:[-+*/|&^%@]?=|:[ \t]*\S+[ \t]*=|\()"
    r"|\*?[A-Za-z_][\w.]*(?:\[[^\]]*\])*(?:[ \t]*,[ \t]*(?:\*?[A-Za-z_][\w.]*(?:\[[^\]]*\])*)?)+[ \t]*=(?!=)"
    r"|\"\"\"|'''"
)
CODE_START = re.compile(r"^(?:async def |def |class |import |from \S+ import |@)", re.MULTILINE)
READS_INPUT = re.compile(r"\binput[ \t]*\(|\bstdin\b|\bopen[ \t]*\([ \t]*0\b|\bfileinput\b")
LAST_BLOCKS = 5  # among which the program that reads is looked for; joining costs a scan of all blocks
CONTINUATION = re.compile(r"\s*?^(?:[ ]{2,}+|\t)(?![`~]{3})\S", re.MULTILINE)
# Statements that Python wants before all others; a docstring and comments may stand before them.
FUTURE = re.compile(r"(from[ \t]+__future__[ \t]+import[ \t]*+(?:\([^)]*+\)|[^\n;(#]*+))[ \t]*+;?[ \t]*+\n?")
PROLOGUE = re.compile(
    r"(?:\s++|#[^\n]*+|[rRuU]?(?:\"\"\"(?:[^\"\\]|\\.|\"(?!\"\"))*+\"\"\"|'''(?:[^'\\]|\\.|'(?!''))*+''')"
    r"|[rRuU]?(?:\"(?:[^\"\\\n]|\\.)*+\"|'(?:[^'\\\n]|\\.)*+'))*+",
    re.DOTALL,
)


def assemble(head: str, completion: str, entry_point: str, *, reasoning_opened: bool = False) -> str:
    """The program that a completion stands for, tests not included.

    A completion that defines `entry_point` is a program of its own, after the imports and helpers of the head;
    one that does not continues the head, as HumanEval's do, and ends where the function does.
    """
    text, fenced = find_code(completion, entry_point, reasoning_opened=reasoning_opened)
    if not defines(text, entry_point):
        body = text if fenced else _until_stop(text)
        return f"{head}{body.rstrip()}\n"
    code = text if fenced else _without_prose(text)
    future, code = _without_future(code)
    head_future, helpers = _without_future(_helpers(head, entry_point))
    return f"{head_future}{future}{helpers}{code.rstrip()}\n"


def script(completion: str, *, reasoning_opened: bool = False) -> str:
    """The program that reads input and writes output: of several blocks the last that reads, with what it needs of the
    others; else the last one; without a fence the whole text but its prose. Empty where reasoning never ends.
    """
    text = after_reasoning(completion, reasoning_opened) or ""
    blocks = python_blocks(text)
    if not blocks:
        return _without_leading_prose(text)
    codes = [block.code for block in blocks]
    wanted = [number for number, block in enumerate(blocks) if block.labelled] or list(range(len(blocks)))
    for number in reversed(wanted[-LAST_BLOCKS:]):
        program = merged(codes, number, "")
        if READS_INPUT.search(program):
            return program
    return codes[wanted[-1]]


def program_head(code_prompt: str | None, prompt: str, entry_point: str) -> str:
    """The text that the program begins with: `code_prompt` if the problem has one, else what the prompt shows of it
    (a fenced block that defines `entry_point`, or the prompt itself if it does); nothing of a prompt in prose.
    """
    if code_prompt is not None:
        return code_prompt
    for block in reversed(python_blocks(prompt)):
        if defines(block.code, entry_point):
            return block.code
    return prompt if defines(prompt, entry_point) else ""


def find_code(completion: str, entry_point: str, *, reasoning_opened: bool = False) -> tuple[str, bool]:
    """The code in a completion after its reasoning, and whether it stood in a fence.

    Of several Python blocks the last that defines `entry_point`, with what it needs of the others; else the last one;
    without a fence the whole text. Empty where reasoning never ends.
    """
    text = after_reasoning(completion, reasoning_opened)
    if text is None:
        return "", False
    blocks = python_blocks(text)
    for number in reversed(range(len(blocks))):
        if defines(blocks[number].code, entry_point):
            return merged([block.code for block in blocks], number, entry_point), True
    if not blocks or _is_bare_code(text, blocks, entry_point):
        return text, False
    labelled = [block for block in blocks if block.labelled]
    return (labelled or blocks)[-1].code, True


def defines(code: str, entry_point: str) -> bool:
    """True if the code has a top-level function, class or assignment of that name; of `Solution().f` the class."""
    name = root(entry_point)
    return (
        re.search(
            rf"^(?:(?:async[ \t]+)?def[ \t]+{name}[ \t]*[(\[]|class[ \t]+{name}[ \t]*[(:\[]"
            rf"|{name}[ \t]*(?::[^=\n]++)?=[^=])",
            code,
            re.MULTILINE,
        )
        is not None
    )


def root(entry_point: str) -> str:
    """The name that a program must define: `Solution` for `Solution().two_sum`."""
    return re.escape(re.split(r"[.(\[]", entry_point, maxsplit=1)[0])


def _is_bare_code(text: str, blocks: list[Block], entry_point: str) -> bool:
    """True if the fences stand inside code that is in no fence itself, in a docstring for instance."""
    return CONTINUATION.match(text) is not None or defines(text[: blocks[0].start], entry_point)


def _helpers(head: str, entry_point: str) -> str:
    """What stands in the head before the function to write (imports, helper functions); nothing if it is chat."""
    match = re.search(rf"^(?:(?:async[ \t]+)?def|class)[ \t]+{root(entry_point)}[ \t]*[(:\[]", head, re.MULTILINE)
    before = head if match is None else head[: match.start()]
    first = CODE_START.search(before)
    return before[first.start() :].rstrip() + "\n\n\n" if first else ""


def _without_future(code: str) -> tuple[str, str]:
    """(the `from __future__` imports at the start of the code, the code without them)."""
    found: list[str] = []
    kept: list[str] = []
    position = 0
    while True:
        opening = PROLOGUE.match(code, position)
        assert opening is not None  # it matches nothing at all as well
        statement = FUTURE.match(code, opening.end())
        if statement is None:
            return "".join(found), "".join(kept) + code[position:]
        kept.append(opening[0])
        found.append(statement[1].rstrip() + "\n")
        position = statement.end()


def _until_stop(text: str) -> str:
    ends = [end for stop in STOPS if (end := text.find(stop)) != -1]
    return text[: min(ends)] if ends else text


def _without_leading_prose(text: str) -> str:
    """A script without a fence: it may start with any statement."""
    lines = text.splitlines()
    first = next((n for n, line in enumerate(lines) if CODE_LINE.match(line) and line[:1] not in " \t"), 0)
    return _until_prose(lines[first:])


def _without_prose(text: str) -> str:
    """The lines from the first that starts code to the last before prose, for chat that forgot its fences."""
    start = CODE_START.search(text)
    return _until_prose(text[start.start() if start else 0 :].splitlines())


def _until_prose(lines: list[str]) -> str:
    for number, line in enumerate(lines):
        if line.strip() and not CODE_LINE.match(line):
            return "\n".join(lines[:number])
    return "\n".join(lines)
