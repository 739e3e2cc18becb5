r"""Brings an answer to one spelling: every Unicode minus, space, fraction and superscript, LaTeX spacing, `\text{}`.

It may assume a short string (an extracted answer, at most 2,000 characters). Plain text formulas: math_plain.py.
It will not interpret the answer: nothing here knows what a number is worth.
"""

import re

from .math_languages import PUNCTUATION, ascii_digits, with_decimal_points
from .math_plain import to_latex
from .math_units import MARK

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
    "“": '"', "”": '"', "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ", "≡": "\\equiv ", "⇒": "\\implies ",
    "→": "\\to ", "∖": "\\setminus ", "⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil ",
    "λ": "\\lambda ", "φ": "\\phi ", "∠": "\\angle ", "△": "\\triangle ", "ℝ": "\\mathbb{R}", "℃": " degrees C",
    "℉": " degrees F", "…": "...", "⟨": "\\langle ", "⟩": "\\rangle ", "∗": "*", "‐": "-",
}  # fmt: skip
FULL_WIDTH = {chr(0xFF01 + i): chr(0x21 + i) for i in range(94) if chr(0xFF01 + i) not in MINUSES}
TABLE = str.maketrans(
    FULL_WIDTH
    | PUNCTUATION
    | SYMBOLS
    | dict.fromkeys(MINUSES, "-")
    | dict.fromkeys(SPACES, " ")
    | dict.fromkeys(INVISIBLE, "")
    | {c: f" {v}" for c, v in VULGAR.items()}
)

ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\d+|[a-z]))")
WRAPPERS = (
    ("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("***", "***"), ("**", "**"), ("__", "__"), ("*", "*"),
    ("_", "_"), ("```", "```"), ("`", "`"), ('"', '"'), ("'", "'"), ("==", "=="), ("<b>", "</b>"),
)  # fmt: skip
# Commands that change how their argument looks, not what it is. \cancel and \sout take back what they hold.
TEXT_COMMAND = r"text|textnormal|textup|textrm|mathrm|mbox|hbox|operatorname\*?|rm|unit|si"
WRAPPING_COMMAND = re.compile(
    rf"\\(?P<name>{TEXT_COMMAND}|boxed|fbox|framebox|textbf|textit|textsf|texttt|textsc|emph|mathbf|mathit|mathsf"
    r"|mathtt|mathnormal|boldsymbol|bm|pmb|mathbin|mathrel|mathord|mathopen|mathclose|mathop|underline"
    r"|uline|uuline|overbrace"
    r"|underbrace|ensuremath|mathcolor|centerline|large|Large|LARGE|huge|Huge|small|bf|it|highlight|hl|em"
    r"|bold|textmd|textsl|textlf|smash|mathstrut)"
    r"\s*\{"
)
MAX_COMMANDS = 40
COLOR = re.compile(r"\\(?:textcolor|color|colorbox|mathcolor|fcolorbox\s*\{[^{}]*\})\s*(?:\[[^\[\]]*\])?\s*\{[^{}]*\}")
SWITCH = re.compile(
    r"\\(?:bf|it|rm|sf|tt|sl|em|sc|bfseries|itshape|rmfamily|sffamily|ttfamily|mdseries|upshape|slshape"
    r"|normalfont|boldmath"
    r"|tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge|displaystyle|textstyle|scriptstyle"
    r"|scriptscriptstyle|limits|nolimits|nonumber|notag|hfill|hfil|centering|noindent|par|strut|mathstrut"
    r"|null|protect|relax"
    r"|left|right|middle|[bB]igg?[lrm]?|unit|newline|linebreak|medskip|smallskip|bigskip|allowbreak|nobreak|hline"
    r"|checkmark|blacksquare|square|qed|QED|Box|qedhere|qedsymbol|therefore)(?![a-zA-Z])"
)
GROUP_SWITCH = re.compile(r"(?<![a-zA-Z*])\{\s*\\(rm|bf|it|em|large|Large|LARGE|huge|Huge|small)(?![a-zA-Z])([^{}]*)\}")
QUANTITY_COMMAND = re.compile(r"\\(?:SI|qty)\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
ALPHABET = re.compile(r"\\(?:mathbb|mathcal|mathfrak|mathscr)\s*\{\s*(-?[\d.,]+)\s*\}")
ONE_CELL = re.compile(r"\\begin\{(array|matrix)\}(?:\{[lcr|]*\})?([^&\\]*)\\end\{\1\}")
EMPTY_GROUP = re.compile(r"(?<=[\d\s)])\{\s*\}|^\{\s*\}(?=\S)")
OHM = re.compile(rf"(\d)\s*{MARK}?(?:([kMGmµμ])|(\\mu)(?![a-zA-Z]))?\s*{MARK}?\s*\\(?:Omega|ohm)(?![a-zA-Z])")
MICRO = re.compile(rf"\\mu\s*{MARK}")
DELIMITER_DOT = re.compile(r"\\(?:left|right)\s*\.")
INVISIBLE_COMMAND = re.compile(
    r"\\(?:(?:h|v)?phantom|hspace\*?|vspace\*?|mspace|kern|mkern|label|tag\*?|ref|hskip|rule)\s*"
    r"(?:\{[^{}]*\}(?:\{[^{}]*\})?|-?\d+\.?\d*\s?(?:mu|em|pt|ex|cm|mm))"
)
ENVIRONMENT = re.compile(
    r"\\(?:begin|end)\s*\{(?:aligned|align\*?|gather\*?|gathered|equation\*?|split|center|math|displaymath"
    r"|eqnarray\*?|multline\*?)\}"
)
ORNAMENT = "[\u2600-\u2716\u2719-\u27be\ufe0f\u2b50\u2b55\u25a0-\u25ff\U0001f300-\U0001faff\u200d]"
DOLLARS = re.compile(r"(?<!\\)\$([^$]+)(?<!\\)\$")
PREFIX = re.compile(
    r"(?:(?:so |thus |therefore,? |hence )?(?:the )?(?:final )?answer(?: is|:)?:? *)?"
    r"(?:\\(?:approx|sim|implies|Rightarrow|rightarrow|to)(?![a-zA-Z])|approximately\b|approx\.|about\b"
    r"|roughly\b|around\b"
    r"|大?[约約]|总?共|一共|合计|约为)? *",
    re.IGNORECASE,
)
REWRITES = (
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\{\s*,\s*\}|(?<=\d)(?:\\[,!]|~)(?=\d{3}(?!\d))"), ","),
    (re.compile(r"(?<!\\)\\!"), ""),
    (
        re.compile(
            r"(?<!\\)\\[,;:>/ -]|\\(?:q?quad|enspace|enskip|thinspace|medspace|thickspace|negthinspace"
            r"|space)(?![a-zA-Z])"
        ),
        " ",
    ),
    (re.compile(r"(?<!\\)~"), " "),
    (re.compile(r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\(?:text)?degree(?![a-zA-Z])"), " degrees"),
    (re.compile(r"\\(?:varnothing|empty)(?![a-zA-Z])"), r"\\emptyset"),
    (re.compile(r"\\[lcd]?dots(?![a-zA-Z])"), "..."),
    (
        re.compile(r"^\s*(?:\\mathbb\s*\{?R\}?|\\R|(?:the set of )?all real numbers|all reals)\s*$"),
        r"(-\\infty, \\infty)",
    ),
    (re.compile(r"\\(?:ast|star)(?![a-zA-Z])"), "*"),
    (re.compile(r"\\(?:geq|geqslant|ge)(?![a-zA-Z])|>="), r"\\ge "),
    (re.compile(r"\\(?:leq|leqslant|le)(?![a-zA-Z])|<="), r"\\le "),
    (re.compile(r"\\(?:neq|ne)(?![a-zA-Z])|!="), r"\\ne "),
    (re.compile(r"\\lt(?![a-zA-Z])"), "<"),
    (re.compile(r"\\gt(?![a-zA-Z])"), ">"),
    (re.compile(r"(?<!\\)\\([%$#&])"), r"\1"),
    (re.compile(r"\\lbrace(?![a-zA-Z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![a-zA-Z])"), r"\\}"),
    (
        re.compile(rf"(\d)\s*{MARK}?\s*(?:a\.\s?m\b\.?|A\.M\b\.?|AM\b|(?<=:\d\d)am\b|(?<=:\d\d )am\b)", re.ASCII),
        r"\1 am",
    ),
    (
        re.compile(rf"(\d)\s*{MARK}?\s*(?:p\.\s?m\b\.?|P\.M\b\.?|PM\b|(?<=:\d\d)pm\b|(?<=:\d\d )pm\b)", re.ASCII),
        r"\1 pm",
    ),
    (
        re.compile(
            r"\s*\(\s*(?:approximately|approx\.?|exact(?:ly)?|rounded\b[^()]*|to the nearest\b[^()]*|大?约)\s*\)\s*$"
        ),
        "",
    ),
    (re.compile(r" +"), " "),
)


def normalize(answer: str, decimal_comma: bool = False) -> str:
    """The answer in one spelling, LaTeX for formulas, without wrapping `$`, quotes, decorations, final punctuation."""
    text = _superscripts(answer).translate(TABLE)
    text = ascii_digits(text)
    if decimal_comma:
        text = with_decimal_points(text)
    text = ROOT.sub(lambda m: f"\\sqrt{{{m[1] or m[2]}}}", text)
    text = _undecorated(_unwrap(text))
    for pattern, replacement in REWRITES:
        text = pattern.sub(replacement, text)
    if "\\" in text:
        text = OHM.sub(lambda m: f"{m[1]} {MARK}{m[2] or ('μ' if m[3] else '')}Ω", MICRO.sub(f"{MARK}μ", text))
    text = _unwrap(text)
    prefix = PREFIX.match(text)
    return to_latex(_unwrap(text[prefix.end() :] if prefix else text))


def _undecorated(text: str) -> str:
    """Without the commands and marks that only change how an answer looks."""
    if "\\" in text:
        text = QUANTITY_COMMAND.sub(lambda m: rf"{m[1]}\text{{ {m[2].replace(chr(92), ' ').strip()}}}", text)
        text = ONE_CELL.sub(r"\2", ALPHABET.sub(r" \1 ", re.sub(r"\\raisebox\s*\{[^{}]*\}", r"\\text", text)))
        text = GROUP_SWITCH.sub(r"\\\1{\2}", text)
        text = DELIMITER_DOT.sub(" ", INVISIBLE_COMMAND.sub(" ", ENVIRONMENT.sub(" ", text)))
        text = _without_commands(COLOR.sub(" ", text))
        text = re.sub(r"&?\s*\\\\(?:\[[^\[\]]*\])?\s*$", "", SWITCH.sub(" ", text))
    if "&" in text and "\\begin" not in text:
        text = re.sub(r"(?<!\\)&(?=\s*[=<>])|^\s*&", "", text)
    text = EMPTY_GROUP.sub("", DOLLARS.sub(r" \1 ", text))
    return re.sub(rf"^(?:{ORNAMENT}|\s)+|(?:{ORNAMENT}|\s)+$", "", text)


def _without_commands(text: str) -> str:
    """Every decorating command replaced by what it holds, whatever braces there are in it."""
    position = 0
    for _ in range(MAX_COMMANDS):
        command = WRAPPING_COMMAND.search(text, position)
        end = _closing_brace(text, command.end()) if command else -1
        if command is None or end == -1:
            return text
        held, behind = _contents(command, text[command.end() : end]), text[end + 1 :]
        if command["name"].endswith("brace"):
            note = re.match(r"\s*[_^]\s*\{", behind)  # under or over the brace
            behind = behind[_closing_brace(behind, note.end()) + 1 :] if note else behind
        text, position = text[: command.start()] + held + behind, command.start()
    return text


def _closing_brace(text: str, start: int) -> int:
    """Index of the brace that closes the one just before `start`; -1 if none does."""
    depth = 1
    for brace in re.finditer(r"\\\\|\\[{}]|[{}]", text[start:]):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return start + brace.start()
    return -1


def _contents(command: re.Match, text: str) -> str:
    """What a decorating command holds; letters that a `\\text` held behind a number keep a mark that they are text."""
    name = command["name"]
    is_text = re.fullmatch(TEXT_COMMAND, name) and re.match(r"\s*[^\W\d_]", text) and command.start() > 0
    if not is_text:
        return f" {text} "
    spaced = (
        text[:1].isspace() or command.string[command.start() - 1] in " ,;"
    )  # 18\\text{k} is 18000, 5\\text{ K} is not
    return f"{' ' if spaced else ''}{MARK}{text.strip()} "


def _unwrap(text: str) -> str:
    """Without the marks around an answer and the punctuation after it; a final `...` stays, part of the number."""
    while True:
        before = text
        text = text.strip()
        text = re.sub(r"(?:\\[,;:! ]|(?<!\\)\\)$", "", text).rstrip()  # \, at the end
        if not text.endswith(("..", "\\.")):
            text = text.rstrip(".,;").rstrip()
        if (
            text.startswith("{")
            and "," not in text
            and text.endswith("}")
            and "\\" in text
            and _closing_brace(text, 1) == len(text) - 1
        ):
            text = text[1:-1]
        if (
            text.startswith("{{")
            and text.endswith("}}")
            and not text.startswith("{{{{")
            and _closing_brace(text, 1) == len(text) - 1
        ):
            text = text[1:-1]
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
