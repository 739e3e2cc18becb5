"""Finds the final answer in a model's text: the last box, the last `####`, "the answer is", or the last number.

It may assume text of any length and content; every scan is linear in it.
It will not interpret the answer (math_values.py), nor look into reasoning: everything up to the last `</think>` is cut.
"""

import re

MODES = ("strict", "flexible")
MAX_ANSWER_CHARACTERS = 2_000
TAIL_CHARACTERS = 4_000  # a spoken answer ("the answer is") and a last number are looked for in the end of the text

BRACES = re.compile(r"(?P<box>\\{1,2}(?:boxed|fbox)(?![a-zA-Z])\s*\{?)|\\.|[{}]", re.DOTALL)
BARE_BOX = re.compile(r"-?\d[\d,.]*\d|-?\d|[A-Za-z]")
SPOKEN = re.compile(
    r"(?:\banswer(?:\s+to\s[^.\n:]{1,80})?\s*\**\s*(?:is\b|=|:)(?:\s+equal\s+to\b|\s*:)?|^[ \t>*#]*A(?:ns)?\s*\**:)"
    r"[ \t*_]*",
    re.IGNORECASE | re.MULTILINE,
)
SENTENCE_END = re.compile(r"[.!?;,]?[ \t]*(?:\n|$)|[.!?;](?=\s)|,(?=\s+[a-zA-Z]{2})|[ \t]*<\|")
MATH_SPAN = re.compile(
    r"(?<![\\$])\$(?!\s)([^$\n]{1,400})(?<![\\\s])\$(?![$\d])|\$\$([^$]{1,400})\$\$|\\\(([^\n]{1,400}?)\\\)|\\\[(.{1,400}?)\\\]",
    re.DOTALL,
)
NUMBER = re.compile(
    r"(?<![\w.^\\])(?<!\^\{)[-+\u2212\u2013\uff0d]?\s?(?:\\?[$]|[\u20ac\u00a3\u00a5])?\s?"
    r"(?:\d+[ -]\d+\s?/\s?\d+|\d{1,3}(?:(?:,|\{,\}|\\,|\\!|[\u00a0\u2009\u202f])\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?:e[-+]?\d+)?(?:\s?/\s?\d+(?:\.\d+)?)?"
    r"(?![\d^]|\.\d|,\d|(?:st|nd|rd|th)\b|(?![mgkshlKMBL])[A-Za-z](?![A-Za-z]))"
    r"(?:\s?\\?%|\s?percent\b|\s(?:thousand|million|billion|trillion|hundred|dozen)\b)?"
)
NOT_A_VALUE_BEFORE = re.compile(r"(?:[<>\u2264\u2265\u2260]|\\(?:ge|le|ne|gt|lt)q?|\d\s?:|\bnot|\bthan|\bor)\s*$")
NOT_A_VALUE_AFTER = re.compile(r"\s*(?:or\b|\\pm|\u00b1|\?)")
HEDGE = re.compile(r"\b(?:not|either|neither|n?or|between|than|at least|at most)\b", re.IGNORECASE)


def extract_answer(text: str, mode: str = "flexible") -> str | None:
    """The final answer as it was written, or None.

    strict: an answer that is marked as one (`\\boxed{}`, `####`, "the answer is", "Answer:"). flexible: also the last
    formula or number of the text, or the whole text where it is nothing but an answer. None for reasoning never closed
    by `</think>` and for an answer longer than 2,000 characters.
    """
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(MODES)}, not {mode!r}")
    said = _after_reasoning(text)
    if said is None:
        return None
    answer = _marked_answer(said)
    if answer is None and mode == "flexible":
        answer = _unmarked_answer(said)
    if answer is None or len(answer) > MAX_ANSWER_CHARACTERS:
        return None
    return answer.strip() or None


def last_box(text: str) -> str | None:
    """What stands in the last balanced `\\boxed{...}` or `\\fbox{...}` (or `\\boxed 5`), or None; one linear scan."""
    first = text.find("box")
    if first == -1:
        return None
    answer, open_braces = None, []
    for token in BRACES.finditer(text, max(0, first - 3)):
        if token["box"] is not None and not token[0].endswith("{"):
            bare = BARE_BOX.match(text, token.end())
            answer = bare[0] if bare else answer
        elif token[0] == "{" or token["box"] is not None:
            open_braces.append(token.end() if token["box"] else None)
        elif token[0] == "}" and open_braces:
            start = open_braces.pop()
            answer = text[start : token.start()] if start is not None else answer
    return answer


def _after_reasoning(text: str) -> str | None:
    _, closed, after = text.rpartition("</think>")
    if not closed:
        return None if "<think>" in text else text
    return after


def _marked_answer(text: str) -> str | None:
    boxed = last_box(text)
    if boxed is not None:
        return boxed
    _, found, after = text.rpartition("####")
    if found:
        line = after.lstrip(" \t#").partition("\n")[0].partition("<|")[0]
        return line[: MAX_ANSWER_CHARACTERS + 1]
    return _spoken_answer(text[-TAIL_CHARACTERS:])


def _spoken_answer(tail: str) -> str | None:
    spoken = _last(SPOKEN, tail)
    if spoken is None:
        return None
    rest = tail[spoken.end() :].lstrip()
    span = MATH_SPAN.match(rest)
    if span:
        return _formula(span)
    end = SENTENCE_END.search(rest)
    answer = rest[: end.start()] if end else rest
    if not _looks_like_prose(answer) or HEDGE.search(answer):
        return answer.strip("*_ \t")
    formula = _last(MATH_SPAN, answer)
    if formula:
        return _formula(formula)
    number = NUMBER.search(answer.rpartition("=")[2])
    return number[0] if number else answer


def _unmarked_answer(text: str) -> str | None:
    if "boxed" in text or "\\fbox" in text:  # a box that was never closed: the text was cut in the middle of its answer
        return None
    stripped = text.strip()
    if len(stripped) <= 200 and "\n" not in stripped and not _looks_like_prose(stripped):
        return stripped
    tail = text[-TAIL_CHARACTERS:]
    formula, number = _last(MATH_SPAN, tail), _last(NUMBER, tail)
    if formula and (number is None or number.start() < formula.end()):
        return _formula(formula)
    if number is None or (number.start() == 0 and len(text) > len(tail)):  # the number may begin before the tail
        return None
    before, after = tail[max(0, number.start() - 20) : number.start()], tail[number.end() :]
    return None if NOT_A_VALUE_BEFORE.search(before) or NOT_A_VALUE_AFTER.match(after) else number[0]


def _looks_like_prose(text: str) -> bool:
    """True if the text has a word that LaTeX commands, units and short names do not explain: at least two in a row."""
    bare = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{[^{}]*\}|\\[a-zA-Z]+|\b(?:and|or)(?=\s+[-+$\d\\(])", " ", text)
    return re.search(r"[A-Za-z]{2,}[,:]?\s+(?:[A-Za-z]{2,}|[^\sA-Za-z])", bare) is not None


def _last(pattern: re.Pattern, text: str) -> re.Match | None:
    match = None
    for match in pattern.finditer(text):  # noqa: B007  only the last is wanted
        pass
    return match


def _formula(span: re.Match) -> str:
    content = next(group for group in span.groups() if group is not None)
    following = span.string[span.end() : span.end() + 9]
    return content + "%" if re.match(r"\s?(?:\\?%|percent\b)", following) else content
