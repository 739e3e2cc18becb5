"""From a model's text to a Python program: which part of the text is code, and what of the prompt goes before it.

It may assume nothing of the text: it is read with linear scans, never parsed, compiled or run here (deeply nested
source can crash Python's own parser). It will not repair code.
"""

import re

# Possessive (`*+`): without it a megabyte of backticks costs quadratic time.
FENCE = re.compile(r"^[ \t]*+(`{3,}+|~{3,}+)[ \t]*+([A-Za-z0-9_+-]*+)[^\n]*+\n", re.MULTILINE)
PYTHON_FENCES = ("", "python", "python3", "py")
# Where a continuation of a function ends: OpenAI's HumanEval stops, and the ways in which chat goes on after code.
STOPS = ("\nclass ", "\ndef ", "\n# ", "\nif ", "\nprint", "\nassert ", "\n```", "\n@", "\n<|")
CODE_LINE = re.compile(
    r"[ \t)\]}#@]|(?:async |def |class |import |from |if |elif |else:|for |while |with |try:|except|finally:|return"
    r"|global |assert |raise |del |pass\b|lambda )|[A-Za-z_][\w.]*(?:\[[^\]]*\])*[ \t]*"
    r"(?:[-+*/|&^%@]?=|:[ \t]*\S+[ \t]*=|\()"
    r"|\"\"\"|'''"
)
CODE_START = re.compile(r"^(?:async def |def |class |import |from \S+ import |@)", re.MULTILINE)


def build_rollout(head: str, completion: str, entry_point: str) -> str:
    """The program that a completion stands for, tests not included.

    A completion that defines `entry_point` is a program of its own, after the imports and helpers of the head;
    one that does not continues the head, as HumanEval's do, and ends where the function does.
    """
    text, fenced = find_code(completion, entry_point)
    if defines(text, entry_point):
        code = text if fenced else _without_prose(text)
        return f"{_helpers(head, entry_point)}{code.rstrip()}\n"
    body = text if fenced else _until_stop(text)
    return f"{head}{body.rstrip()}\n"


def program_head(code_prompt: str | None, prompt: str, entry_point: str) -> str:
    """The text that the program begins with: `code_prompt` if the problem has one, else what the prompt shows of it
    (a fenced block that defines `entry_point`, or the prompt itself).
    """
    if code_prompt is not None:
        return code_prompt
    for block in reversed(_fenced_blocks(prompt)):
        if defines(block, entry_point):
            return block
    return prompt


def find_code(completion: str, entry_point: str) -> tuple[str, bool]:
    """The code in a completion, and whether it stood in a fence: the last Python block, if possible one that defines
    `entry_point`; without a fence the whole text. Everything up to the last `</think>` is left out.
    """
    text = completion.rpartition("</think>")[2]
    blocks = list(_fenced_blocks(text))
    for block in reversed(blocks):
        if defines(block, entry_point):
            return block, True
    if blocks:
        return blocks[-1], True
    return text, False


def defines(code: str, entry_point: str) -> bool:
    """True if the code has a top-level function (or assignment) of that name."""
    name = re.escape(entry_point)
    return re.search(rf"^(?:(?:async[ \t]+)?def[ \t]+{name}[ \t]*\(|{name}[ \t]*=[^=])", code, re.MULTILINE) is not None


def _fenced_blocks(text: str) -> list[str]:
    """The Python blocks of a text. A fence that is never closed lasts until the end: the completion was cut."""
    blocks, position = [], 0
    while (opening := FENCE.search(text, position)) is not None:
        closing = re.compile(rf"^[ \t]*+{opening[1][0]}{{3,}}+[ \t]*+$", re.MULTILINE).search(text, opening.end())
        end = closing.start() if closing else len(text)
        if opening[2].lower() in PYTHON_FENCES:
            blocks.append(text[opening.end() : end])
        if closing is None:
            break
        position = closing.end()
    return blocks


def _helpers(head: str, entry_point: str) -> str:
    """What stands in the head before the function to write (imports, helper functions); nothing if it is chat."""
    match = re.search(rf"^(?:async[ \t]+)?def[ \t]+{re.escape(entry_point)}[ \t]*\(", head, re.MULTILINE)
    if match is None:
        return ""
    before = head[: match.start()]
    first = CODE_START.search(before)
    return before[first.start() :].rstrip() + "\n\n\n" if first else ""


def _until_stop(text: str) -> str:
    ends = [end for stop in STOPS if (end := text.find(stop)) != -1]
    return text[: min(ends)] if ends else text


def _without_prose(text: str) -> str:
    """The lines from the first that starts code to the last before prose, for chat that forgot its fences."""
    start = CODE_START.search(text)
    lines = text[start.start() if start else 0 :].splitlines()
    for number, line in enumerate(lines):
        if line.strip() and not CODE_LINE.match(line):
            return "\n".join(lines[:number])
    return "\n".join(lines)
