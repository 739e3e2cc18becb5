r"""Finds the final answer in a model's text: `<answer>` tags, boxes, `####`, JSON, "the answer is", or the last number.

It may assume text of any length and content; every scan is linear in it (a user's own `answer_pattern` aside).
It will not interpret the answer (math_compare.py), nor look into reasoning: all up to the last `</think>` is cut.
"""

import html
import json
import re
from dataclasses import dataclass
from typing import NamedTuple

from .math_languages import with_decimal_points
from .math_numbers import quantity, same_quantity
from .math_sentences import TAIL_CHARACTERS, read_sentence, spoken_answer, unmarked_answer
from .math_text import normalize
from .reasoning import after_reasoning

MODES = ("strict", "flexible", "last_line")
MAX_ANSWER_CHARACTERS = 2_000
MAX_BOXES = 32

BRACES = re.compile(r"(?P<box>\\{1,2}(?:boxed|fbox|framebox)(?![a-zA-Z])\s*\{?)|\\.|[{}]", re.DOTALL)
BARE_BOX = re.compile(r"-?\d[\d,.]*\d|-?\d|[A-Za-z]")
SIDE_BY_SIDE = re.compile(
    r"(?:\s|\$|\\\\|\\[()\[\],;: ]|[,;&*、]|\\q?quad|\\(?:text|mbox|mathrm)\s*\{\s*(?:,?\s*(?:and|or|или|或)\s*"
    r"|[,;\s])\}|\b(?:and|or|oder|und|ou|et|y|o)\b"
    r"|或者?|和|与|または|또는|или)*(?:[a-zA-Z](?:_\{?\d\}?)?\s*=\s*)?"
)
NAME_BEFORE = re.compile(r"(?<![A-Za-z\\])[a-zA-Z](?:_\{?\d\}?)?\s*=\s*$")
HTML_TAG = re.compile(
    r"</?(?:b|i|u|em|strong|span|p|div|code|mark|font|center|small|big|h[1-6]|br|li|ul|ol|pre|tt|result"
    r"|output)(?:\s[^<>]{0,100})?/?>",
    re.I,
)
HTML_POWER = re.compile(r"<sup>([^<>]{1,20})</sup>", re.I)
OPEN_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{(?![^{}]*\})[^{}]*$")  # cut in the middle of the answer
CALCULATION = re.compile(r"<<[^<>\n]{0,200}?([^<>=\n]{0,40})>>(?=(\s?\$?\d)?)")
BOLD = re.compile(r"(?<![\w)*])\*\*(?=[^\s*])([^*\n]{1,200}?)(?<=\S)\*\*(?![\w*])")
JSON_ANSWER = re.compile(
    r"[\"'](?:final[_ ]?)?(?:answer|result|solution)[\"']\s*:\s*(\"(?:[^\"\\\n]|\\.){0,400}\""
    r"|'[^'\n]{0,400}'|\{[^{}]{0,400}\}|\[[^\[\]]{0,400}\]|-?\d{1,3}(?:,\d{3})+(?!\d)|[^\s,}\]\"'\[{]{1,100})",
    re.I,
)


@dataclass(frozen=True)
class Extraction:
    """How the answer is found.

    mode: `strict` takes an answer that is marked as one, `flexible` also the last formula or number of the text,
    `last_line` what the last line says. answer_pattern: a regular expression that alone decides; the answer is its
    group `answer`, else its first group, else the match; the last match counts. answer_tags: names of the XML tags that
    mark an answer. decimal_comma: 3,5 is 3.5 and 1.234 is 1234, in completions and gold answers.
    """

    mode: str = "flexible"
    answer_pattern: str | None = None
    answer_tags: tuple[str, ...] = ("answer", "final_answer", "final-answer", "finalanswer", "solution")
    decimal_comma: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is one of {', '.join(MODES)}, not {self.mode!r}")
        if isinstance(self.answer_tags, str) or not all(re.fullmatch(r"[\w.-]+", tag) for tag in self.answer_tags):
            raise ValueError(f"answer_tags is a list of tag names such as [answer], not {self.answer_tags!r}")
        try:
            re.compile(self.answer_pattern or "")
        except re.error as error:
            raise ValueError(f"answer_pattern is no regular expression: {error}: {self.answer_pattern!r}") from error


class Span(NamedTuple):
    """A marked piece of text: where the mark begins and ends, and what it holds."""

    start: int
    end: int
    content: str


def extract_answer(
    text: str, mode: str = "flexible", how: Extraction | None = None, reasoning_opened: bool = False
) -> str | None:
    """The final answer as it was written, or None; `how` replaces `mode` where more is to be set.

    None for reasoning that is never closed by `</think>` (reasoning_opened: the prompt already opened it) and for an
    answer longer than 2,000 characters.
    """
    how = how or Extraction(mode)
    said = after_reasoning(text, reasoning_opened)
    if said is None:
        return None
    answer = _found(with_decimal_points(said) if how.decimal_comma else said, how)
    if answer is None or len(answer) > MAX_ANSWER_CHARACTERS or OPEN_BOX.search(answer):
        return None
    return answer.strip() or None


def marked_answer(text: str, how: Extraction) -> str | None:
    """The answer that a text without reasoning marks as one, or None."""
    if "<" in text:
        tagged = _side_by_side(text, _tagged(text, how.answer_tags))
        if tagged is not None:
            return _inside_tag(tagged, how)
    if "box" in text:
        boxed = _side_by_side(text, _boxes(text))
        if boxed is not None:
            return boxed
    _, found, after = text.rpartition("####")
    if found:
        line = _without_html(after.lstrip(" \t#").partition("\n")[0].partition("<|")[0])
        return line[: MAX_ANSWER_CHARACTERS + 1]
    tail = _without_html(text[-TAIL_CHARACTERS:])
    return _json_answer(tail) or spoken_answer(tail)


def last_box(text: str) -> str | None:
    """What stands in the last balanced `\\boxed{...}` or `\\fbox{...}` (or `\\boxed 5`), or None; one linear scan."""
    boxes = _boxes(text)
    return boxes[-1].content if boxes else None


def _found(said: str, how: Extraction) -> str | None:
    if how.answer_pattern is not None:
        return _by_pattern(said, how.answer_pattern)
    if how.mode == "last_line":
        lines = said.strip().rsplit("\n", 1)
        return marked_answer(lines[-1], how) or read_sentence(_without_html(lines[-1].strip()))
    answer = marked_answer(said, how)
    if answer is None and how.mode == "flexible":
        answer = _unmarked(said)
    return answer


def _by_pattern(text: str, pattern: str) -> str | None:
    match = None
    for match in re.finditer(pattern, text):  # noqa: B007  only the last is wanted
        pass
    if match is None:
        return None
    groups = match.groupdict()
    return groups["answer"] if "answer" in groups else match[1] if match.groups() else match[0]


def _unmarked(text: str) -> str | None:
    if "boxed" in text or "\\fbox" in text:  # a box that was never closed: the text was cut in the middle of its answer
        return None
    text = re.sub(r"^.*<(?:answer|final_answer)>", "", text, flags=re.DOTALL | re.IGNORECASE)  # never closed
    shortened = _without_html(text[-2 * TAIL_CHARACTERS :])
    return unmarked_answer(shortened, whole=len(text) <= 2 * TAIL_CHARACTERS)


def _inside_tag(content: str, how: Extraction) -> str | None:
    """The answer in an answer tag: what is marked in it, or the one line it is, or its last value."""
    content = _without_html(content.strip())
    marked = marked_answer(content, how)
    if marked is not None:
        return marked
    if re.fullmatch(r"[-\d.,]+!", content):
        return content  # a factorial; in a sentence it would be emphasis
    return read_sentence(content) if "\n" not in content else (unmarked_answer(content) or content)


def _tagged(text: str, tags: tuple[str, ...]) -> list[Span]:
    names = "|".join(re.escape(tag) for tag in tags)
    if not names:
        return []
    spans, opened = [], None
    for tag in re.finditer(rf"<\s{{0,3}}(/?)\s{{0,3}}(?:{names})(?:\s[^<>]{{0,80}})?>", text, re.IGNORECASE):
        if not tag[1]:
            opened = tag
        elif opened is not None:
            spans.append(Span(opened.start(), tag.end(), text[opened.end() : tag.start()]))
            opened = None
    return spans


def _boxes(text: str) -> list[Span]:
    """The balanced boxes that are in no other box, in order; one linear scan."""
    first = text.find("box")
    if first == -1:
        return []
    spans: list[Span] = []
    open_braces: list[tuple[int, int] | None] = []
    for token in BRACES.finditer(text, max(0, first - 8)):
        if token["box"] is not None and not token[0].endswith("{"):
            bare = BARE_BOX.match(text, token.end())
            if bare:
                spans.append(Span(token.start(), bare.end(), bare[0]))
        elif token[0] == "{" or token["box"] is not None:
            open_braces.append((token.start(), token.end()) if token["box"] else None)
        elif token[0] == "}" and open_braces:
            opened = open_braces.pop()
            if opened is not None:
                while spans and spans[-1].start > opened[0]:
                    spans.pop()
                spans.append(Span(opened[0], token.end(), text[opened[1] : token.start()]))
    return spans


def _side_by_side(text: str, spans: list[Span]) -> str | None:
    """What the last mark holds; the marks before it as well, where only "or", "and" or a comma stands between them."""
    if not spans:
        return None
    if len(spans) == 1:
        return spans[0].content
    chosen = [spans[-1]]
    for span in reversed(spans[:-1]):
        between = text[span.end : chosen[0].start]
        if len(between) > 60 or not SIDE_BY_SIDE.fullmatch(between) or len(chosen) >= MAX_BOXES:
            break
        chosen.insert(0, span)
    contents = [span.content.strip() for span in chosen]
    if len(chosen) == 1 or _all_the_same(contents):
        return spans[-1].content
    names = [NAME_BEFORE.search(text, max(0, span.start - 12), span.start) for span in chosen]
    return ", ".join((name[0] if name else "") + content for name, content in zip(names, contents))


def _all_the_same(contents: list[str]) -> bool:
    if len(set(contents)) == 1:
        return True
    numbers = [quantity(normalize(content)) if len(content) < 200 else None for content in contents]
    return all(
        number is not None and numbers[0] is not None and same_quantity(number, numbers[0]) for number in numbers
    )


def _json_answer(text: str) -> str | None:
    """The value of "answer" in the last JSON object that has one."""
    match = None
    for match in JSON_ANSWER.finditer(text):  # noqa: B007  only the last is wanted
        pass
    if match is None:
        return None
    value = match[1]
    if value.startswith('"'):
        try:
            value = json.loads(value, strict=False)
        except json.JSONDecodeError:  # LaTeX with single backslashes: "\frac{1}{2}"
            value = value[1:-1]
        return value if not re.search(r"[\b\f\t\r\n]", value) else match[1][1:-1]
    if value.startswith("{"):  # {"value": 88}: what it holds, where that is one thing
        inner = re.fullmatch(r"\{\s*[\"'][^\"']*[\"']\s*:\s*[\"']?([^\"',{}]*)[\"']?\s*\}", value)
        return inner[1].strip() if inner else value
    return value.strip("'[]")


def _without_html(text: str) -> str:
    """Without tags that only format, HTML's entities and GSM8K's <<6*7=42>> notes."""
    text = BOLD.sub(r"\1", text) if "**" in text else text
    if "<" in text:
        text = CALCULATION.sub(lambda m: "" if m[2] else m[1], text)
        text = HTML_TAG.sub(" ", HTML_POWER.sub(r"^{\1}", text))
    return html.unescape(text) if "&" in text and ";" in text else text
