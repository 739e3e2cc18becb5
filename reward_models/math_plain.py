r"""Turns formulas as they are typed or spoken (`2*sqrt(3)`, `x**2`, `pi/4`, "negative 5", "x squared") into LaTeX.

It may assume an answer in the spelling of math_text; LaTeX that is already there stays.
It will not calculate, and a word that it does not know stays a word.
"""

import re
from collections.abc import Callable

from .math_languages import MINUS_WORDS, digits_for_numerals, without_compound_scales

FUNCTIONS = (
    "arcsinh", "arccosh", "arctanh", "arcsin", "arccos", "arctan", "asin", "acos", "atan", "sinh", "cosh", "tanh",
    "sin", "cos", "tan", "cot", "sec", "csc", "ln", "lg", "log",
)  # fmt: skip
GREEK = (
    "alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "phi", "varphi", "sigma", "omega", "rho",
    "tau", "pi", "Delta", "Omega",
)  # fmt: skip
LATEX_NAMES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log"}
NOT_INSIDE = r"(?<![A-Za-z\\])"

OVER = re.compile(r"\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\\over(?![a-zA-Z])([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
BARE_OVER = re.compile(r"^([^{}]+?)\\over(?![a-zA-Z])([^{}]+)$")
VALUE_AHEAD = r"(?=[-\d\\(.a-zA-Z$])"
SPOKEN: tuple[tuple[re.Pattern, str], ...] = (
    (re.compile(rf"((?:^|[,(\[;=]|\bor\b|\band\b)\s*)(?:{MINUS_WORDS})\s*(?=[\d\\(.$]|[a-z](?![a-z]))", re.I), r"\1-"),
    (re.compile(r"百分之\s*(\d+(?:\.\d+)?)"), r"\1%"),
    (re.compile(r"(\d+)\s*分之\s*(\d+)"), r"\\frac{\2}{\1}"),
    (re.compile(r"(?<![\w.])(\d+) and (?:a|one)[ -]half\b", re.I), r"\1\\frac{1}{2}"),
    (re.compile(r"(?<![\w.])(\d+) and (?:a|one)[ -]third\b", re.I), r"\1\\frac{1}{3}"),
    (re.compile(r"(?<![\w.])(\d+) and (?:a|one)[ -]quarter\b", re.I), r"\1\\frac{1}{4}"),
    (re.compile(r"\b(?:the )?(?:square root|sqrt) of (?=[\d(\\a-z])", re.I), "sqrt "),
    (re.compile(r"\b(?:the )?cube root of (\d+|[a-z])(?![a-z])", re.I), r"\\sqrt[3]{\1}"),
    (re.compile(r"(?<=[\w)}])\s+squared\b", re.I), "^2"),
    (re.compile(r"(?<=[\w)}])\s+cubed\b", re.I), "^3"),
    (re.compile(r"(?<=[\w)}])\s+to the power (?:of )?(-?\d+|[a-z])(?![a-z])", re.I), r"^{\1}"),
    (re.compile(r"(?<=[\w)}])\s+to the (\d+)(?:st|nd|rd|th)(?: power)?\b", re.I), r"^{\1}"),
    (re.compile(rf"(?<=[\d)}}a-z!])\s+plus\s+{VALUE_AHEAD}", re.I), " + "),
    (re.compile(rf"(?<=[\d)}}a-z!])\s+minus\s+{VALUE_AHEAD}", re.I), " - "),
    (re.compile(rf"(?<=[\d)}}a-z!])\s+(?:times|multiplied by)\s+{VALUE_AHEAD}", re.I), r" \\times "),
    (re.compile(r"(?<![\w.])(\d+|pi|\\pi|[a-z])\s+(?:over|divided by)\s+(\d+|pi|\\pi|[a-z])(?![\w.])", re.I), r"\1/\2"),
    (re.compile(r"(?<![\w.])(\d+)\s+choose\s+(\d+)(?!\w)", re.I), r"\\binom{\1}{\2}"),
    (re.compile(r"(?<=[\w)}])\s+(?:equals|is equal to)\s+", re.I), " = "),
)
SYMBOLS: tuple[tuple[re.Pattern, str], ...] = (
    (re.compile(rf"{NOT_INSIDE}(?:infinity|infinite|inf|infty|oo)(?![A-Za-z])", re.I), r"\\infty "),
    (re.compile(r"^(?:the )?(?:empty set|null set|emptyset)$", re.I), r"\\emptyset"),
    (re.compile(r"^\\?\{\s*\\?\}$"), r"\\emptyset"),
    (re.compile(rf"{NOT_INSIDE}(sin|cos|tan|ln|log)(?=[xyz](?![A-Za-z]))"), r"\\\1 "),
    (re.compile(rf"{NOT_INSIDE}({'|'.join(GREEK)})(?![A-Za-z])"), r"\\\1 "),
    (re.compile(rf"{NOT_INSIDE}(max|min|gcd)(?=\()"), r"\\\1"),
    (re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[])"), r" \\cup "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<=[\w)}])\s*\*\s*(?=[\w(\\-])"), r" \\cdot "),
    (re.compile(r"(?<=[\w)}])\^(?:1(?![\d.])|\{\s*1\s*\})"), ""),
    (re.compile(r"\^\s*([-+]?\d{2,}|-\d)(?![\d.])"), r"^{\1}"),
    (
        re.compile(
            r"(?<![\w.}^])1(?:\s?\*\s?)?(?=\\(?:pi|sqrt|theta)|[abcinpqrtuvwxyz](?![A-Za-z])|e(?![-+\dA-Za-z]))"
        ),
        "",
    ),
)
FUNCTION_CALL = re.compile(
    rf"{NOT_INSIDE}({'|'.join(FUNCTIONS)})(?=\s*[(^]|_|\d*\(|\s+(?:\d|[a-z](?![A-Za-z])|\\(?:pi|theta|frac"
    rf"|sqrt|alpha|beta)))"
)
NAMED_ARGUMENT: dict[str, Callable[[str], str]] = {
    "sqrt": lambda inside: rf"\sqrt{{{inside}}}",
    "cbrt": lambda inside: rf"\sqrt[3]{{{inside}}}",
    "exp": lambda inside: f"e^{{{inside}}}",
    "abs": lambda inside: f"|{inside}|",
    "floor": lambda inside: rf"\lfloor {inside} \rfloor",
    "ceil": lambda inside: rf"\lceil {inside} \rceil",
    "factorial": lambda inside: f"({inside})!",
    "log2": lambda inside: rf"\log_{{2}}({inside})",
    "log10": lambda inside: rf"\log_{{10}}({inside})",
}
OPENED = re.compile(rf"{NOT_INSIDE}({'|'.join(NAMED_ARGUMENT)})\s*\(|(?:\^|\*\*)\s*\(")
BARE_ROOT = re.compile(rf"{NOT_INSIDE}sqrt\s*(\d+(?:\.\d+)?|[a-z](?![a-z]))")
PLAIN_WORDS = re.compile(r"[A-Za-z*^]|\\over|[^\x00-\x7f]|\{")
MAX_REWRITES = 40
ONES = {
    word: value
    for value, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
}
TENS = {
    word: 10 * value
    for value, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 2)
}
MULTIPLES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
NUMBER_WORD = "|".join([*ONES, *TENS, *MULTIPLES])
NUMBER_WORDS = re.compile(
    rf"(?P<sign>(?:minus|negative)\s+)?(?P<words>(?:{'|'.join([*ONES, *TENS])})(?:(?:[ -]"
    rf"|\s+and\s+)(?:{NUMBER_WORD}))*)(?![\w-])(?!\s+(?:and|or|over|of|point)\b)(?=(?P<rest>.*))",
    re.I | re.S,
)


def to_latex(text: str) -> str:
    """The answer with typed and spoken formulas as LaTeX; numbers, and words that are no mathematics, unchanged."""
    if not PLAIN_WORDS.search(text):
        return text
    text = BARE_OVER.sub(r"\\frac{\1}{\2}", OVER.sub(r"\\frac{\1}{\2}", text))
    text = without_compound_scales(digits_for_words(digits_for_numerals(text)))
    for pattern, replacement in SPOKEN:
        text = pattern.sub(replacement, text)
    text = BARE_ROOT.sub(r"\\sqrt{\1}", _calls(text))
    text = FUNCTION_CALL.sub(lambda m: "\\" + LATEX_NAMES.get(m[1], m[1]), text)
    text = re.sub(r"\\(log)(\d+)\(", r"\\\1_{\2}(", text)
    text = re.sub(r"\\log_(\d{2,})", r"\\log_{\1}", text)
    for pattern, replacement in SYMBOLS:
        text = pattern.sub(replacement, text)
    return text.strip()


def digits_for_words(text: str) -> str:
    """A text that begins with a number in words ("forty-two apples") with digits instead."""
    match = NUMBER_WORDS.match(text)
    if match is None or any(c.isdigit() for c in text):
        return text
    total, current = 0, 0
    for word in re.findall(r"[a-z]+", match["words"].lower()):
        if word in MULTIPLES:
            current = max(1, current) * MULTIPLES[word]
            if word != "hundred":
                total, current = total + current, 0
        elif word != "and":
            current += ONES.get(word, TENS.get(word, 0))
    return f"{'-' if match['sign'] else ''}{total + current}{text[match.end() :]}"


def _calls(text: str) -> str:
    """`sqrt(x+1)`, `exp(2)`, `2^(n+1)` and the like with their balanced argument in braces."""
    start = 0
    for _ in range(MAX_REWRITES):
        call = OPENED.search(text, start)
        end = _closing(text, call.end()) if call else -1
        if call is None or end == -1:
            return text
        inside = text[call.end() : end]
        written = NAMED_ARGUMENT[call[1]](inside) if call[1] else f"^{{{inside}}}"
        text, start = text[: call.start()] + written + text[end + 1 :], call.start() + 1
    return text


def _closing(text: str, start: int) -> int:
    """Index of the parenthesis that closes the one just before `start`; -1 if none does."""
    depth = 1
    for index in range(start, len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if depth == 0:
            return index
    return -1
