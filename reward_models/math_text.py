r"""Brings an answer to one spelling: every Unicode minus, space, fraction and superscript, LaTeX spacing, `\text{}`.

It may assume a short string (an extracted answer, at most 2,000 characters).
It will not interpret the answer: nothing here knows what a number is worth.
"""

import re

MINUSES = "\u2212\u2010\u2011\u2012\u2013\u2014\u2015\ufe58\ufe63\uff0d\u207b\u208b"
SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\t\r\n"
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f"
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-", strict=True))
VULGAR = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5",
    "⅙": "1/6", "⅚": "5/6", "⅐": "1/7", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8", "⅑": "1/9", "⅒": "1/10",
}  # fmt: skip
SYMBOLS = {
    "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "∙": "\\cdot ", "÷": "/", "⁄": "/", "∕": "/", "π": "\\pi ",
    "∞": "\\infty ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ",
    "≈": "\\approx ", "±": "\\pm ", "∅": "\\emptyset ", "°": "^\\circ ", "∶": ":", "′": "'", "’": "'", "‘": "'",
    "“": '"', "”": '"', "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ",
}  # fmt: skip
FULL_WIDTH = {chr(0xFF01 + i): chr(0x21 + i) for i in range(94) if chr(0xFF01 + i) not in MINUSES}
TABLE = str.maketrans(
    FULL_WIDTH
    | SYMBOLS
    | dict.fromkeys(MINUSES, "-")
    | dict.fromkeys(SPACES, " ")
    | dict.fromkeys(INVISIBLE, "")
    | {c: f" {v}" for c, v in VULGAR.items()}
)

ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\d+|[a-z]))")
WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`"), ('"', '"'))
WRAPPING_COMMAND = re.compile(
    r"\\(?:boxed|fbox|text|textbf|textit|textrm|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}"
)
DOLLARS = re.compile(r"(?<!\\)\$([^$]+)(?<!\\)\$")
SIZING = re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![a-zA-Z])")
PREFIX = re.compile(
    r"(?:(?:so |thus |therefore,? |hence )?(?:the )?(?:final )?answer(?: is|:)?:? *)?"
    r"(?:\\(?:approx|sim)(?![a-zA-Z])|approximately\b|approx\.|about\b|roughly\b)? *",
    re.IGNORECASE,
)
REWRITES = (
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\{,\}|(?<=\d)\\[,!](?=\d{3}(?!\d))"), ","),
    (re.compile(r"(?<!\\)\\!"), ""),
    (re.compile(r"(?<!\\)\\[,;:> ]|\\q?quad(?![a-zA-Z])|(?<!\\)~"), " "),
    (re.compile(r"\^\s*\{?\\(?:circ|degree)\s*\}?|\\degree(?![a-zA-Z])"), " degrees"),
    (re.compile(r"\\(?:geq|geqslant|ge)(?![a-zA-Z])|>="), r"\\ge "),
    (re.compile(r"\\(?:leq|leqslant|le)(?![a-zA-Z])|<="), r"\\le "),
    (re.compile(r"\\(?:neq|ne)(?![a-zA-Z])|!="), r"\\ne "),
    (re.compile(r"\\lt(?![a-zA-Z])"), "<"),
    (re.compile(r"\\gt(?![a-zA-Z])"), ">"),
    (re.compile(r"(?<!\\)\\([%$#&])"), r"\1"),
    (re.compile(r"\\lbrace(?![a-zA-Z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![a-zA-Z])"), r"\\}"),
    (re.compile(r" +"), " "),
)


def normalize(answer: str) -> str:
    """The answer in one spelling, still LaTeX where it was LaTeX, without wrapping `$`, quotes, final punctuation."""
    text = _superscripts(answer).translate(TABLE)
    text = ROOT.sub(lambda m: f"\\sqrt{{{m[1] or m[2]}}}", text)
    text = _unwrap(text)
    for _ in range(4):  # commands nested in one another; more than a few levels is no answer
        text, changed = WRAPPING_COMMAND.subn(r" \1 ", text)
        if not changed:
            break
    text = SIZING.sub(" ", DOLLARS.sub(r" \1 ", text))
    for pattern, replacement in REWRITES:
        text = pattern.sub(replacement, text)
    text = _unwrap(text)
    prefix = PREFIX.match(text)
    return _unwrap(text[prefix.end() :] if prefix else text)


def _unwrap(text: str) -> str:
    """Without the marks around an answer and the punctuation after it; a final `...` stays, part of the number."""
    while True:
        before = text
        text = text.strip()
        if not text.endswith(("..", "\\.")):
            text = text.rstrip(".,;").rstrip() if not text.endswith("\\") else text
        for left, right in WRAPPERS:
            inner = text[len(left) : -len(right)]
            if text.startswith(left) and text.endswith(right) and inner.strip() and left not in inner:
                text = inner
        if text == before:
            return text


def _superscripts(text: str) -> str:
    if not any(c in text for c in SUPERSCRIPTS):
        return text
    run = f"[{''.join(SUPERSCRIPTS)}]+"
    return re.sub(run, lambda m: "^{" + "".join(SUPERSCRIPTS[c] for c in m[0]) + "}", text)
