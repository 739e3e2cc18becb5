r"""What a written number is worth, exactly: integers, decimals, fractions, mixed numbers, percent, units, 3e5.

It may assume text from math_text.normalize. Values are Fractions; nothing is rounded and nothing is evaluated.
It will not guess: text that is not plainly one number is None.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from . import math_languages, math_units
from .math_units import MARK, UNITS

MAX_DIGITS = 200
MAX_EXPONENT = 300

DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}|\d{1,3}(?:[ ']\d{3})+|\d+)"
DECIMAL = rf"(?:{DIGITS}(?:\.\d*)?|\.\d+)"
SIGNED = rf"[-+]?\s*{DECIMAL}"
REPEATING = re.compile(r"(\d*)\.(\d*)(?:\\overline\s*\{(\d+)\}|\\overline\s*(\d)|\\dot\s*\{?(\d)\}?|\((\d+)\))")
FRACTION = re.compile(
    rf"\\frac\s*(?:\{{\s*({SIGNED})\s*\}}|(\d))\s*(?:\{{\s*({SIGNED})\s*\}}|(\d))|({DECIMAL})\s*/\s*({DECIMAL})"
)
MIXED = re.compile(r"(\d+)(?:\s+and\s+|\s+|(?=\\frac))(\\frac.*|\d+\s*/\s*\d+)")
POWER = r"(?:\s*(?:\\times|\\cdot|\*|x)\s*10\s*(?:\^|\*\*)\s*\{?\s*(?P<power>[-+]?\s*\d+)\s*\}?|[eE](?P<e>[-+]?\d+))"
CURRENCY = r"(?:US\$|\$|€|£|¥|₹|₽|₩|USD|EUR|GBP|CNY|RMB|JPY|Rs\.?|¢)"
QUANTITY = re.compile(
    rf"(?P<sign>[-+]?)\s*(?P<currency>{CURRENCY})?\s*(?P<sign2>[-+]?)\s*"
    rf"(?P<body>\d*\.\d*(?:\\overline\s*(?:\{{\d+\}}|\d)|\\dot\s*(?:\{{\d\}}|\d)|\(\d+\))"
    rf"|\d+(?:\s+and\s+)?\s*\\frac[^a-zA-Z]*|\d+(?:\s+and\s+|\s+)\d+\s*/\s*\d+"
    rf"|\\frac[^a-zA-Z%$]*|{DECIMAL}\s*/\s*{DECIMAL}|{DECIMAL})"
    rf"{POWER}?(?P<rest>.*)"
)
SCALES = {
    "hundred": 100, "dozen": 12, "thousand": 1000, "k": 1000, "million": 10**6, "mil": 10**6, "mn": 10**6, "M": 10**6,
    "billion": 10**9, "bn": 10**9, "B": 10**9, "trillion": 10**12, "T": 10**12, "K": 1000, "hundreds": 100,
    "thousands": 1000, "millions": 10**6, "billions": 10**9,
}  # fmt: skip
PERCENT = (
    rf"{MARK}?(?:%|percent(?:age)?(?: points?)?\b|per cent\b|pct\b|por ciento\b|prozent\b|pour cent\b"
    rf"|процент\w*|퍼센트|パーセント)"
)
REST = re.compile(
    rf"\s*{MARK}?(?P<scale>(?:hundreds?|dozen|thousands?|millions?|mil|mn|billions?|bn|trillion|[kKMBT])(?![^\W\d_]))?"
    rf"\s*(?P<percent>{PERCENT})?\s*(?P<currency>{CURRENCY})?\s*(?P<unit>.*)"
)


@dataclass(frozen=True)
class Quantity:
    """A number as written. `value` is before the percent sign: 50 % has the value 50 and `percent`."""

    value: Fraction
    percent: bool = False
    unit: str | None = None  # name from math_units, None if there is none or it is a common noun


def quantity(text: str) -> Quantity | None:
    """The quantity that a text is, or None where it is not plainly one."""
    text = text.strip()
    while (text.startswith("(") and text.endswith(")") and text.count("(") == 1) or _braced(text):
        text = text[1:-1].strip()
    if not any(c.isdigit() for c in text[:40]) or sum(c.isdigit() for c in text) > MAX_DIGITS:
        return None
    match = QUANTITY.fullmatch(text)
    if match is None or (match["sign"] and match["sign2"]):
        return None
    value = magnitude(match["body"].strip())
    if value is None:
        return None
    exponent = match["power"] or match["e"]
    if exponent is not None:
        if abs(int(exponent.replace(" ", ""))) > MAX_EXPONENT:
            return None
        value *= Fraction(10) ** int(exponent.replace(" ", ""))
    if "-" in (match["sign"], match["sign2"]):
        value = -value
    return _with_rest(value, match["currency"], match["rest"])


def same_quantity(prediction: Quantity, gold: Quantity) -> bool:
    """True if two quantities are worth the same. A unit or a percent sign may be missing on one side, but not differ.

    50 % is 50 %, 50 and 1/2; 50 is not 1/2, and 0.5 % not 0.5.
    """
    if prediction.unit and gold.unit and not math_units.same_unit(prediction.unit, gold.unit):
        return False
    below_one = prediction.percent and not gold.percent and 0 < abs(gold.value) < 1
    if prediction.value == gold.value and not below_one:
        return True
    if prediction.percent == gold.percent:
        return False
    return _fraction_of_one(prediction) == _fraction_of_one(gold)


def magnitude(body: str) -> Fraction | None:
    """The value of an unsigned numeral: decimal, repeating decimal, fraction or mixed number."""
    if re.fullmatch(DECIMAL, body):
        return _decimal(body)
    repeating = REPEATING.fullmatch(body)
    if repeating:
        return _repeating_decimal(repeating[1], repeating[2], next(g for g in repeating.groups()[2:] if g))
    mixed = MIXED.fullmatch(body)
    if mixed:
        part = _fraction(mixed[2])
        return None if part is None or not 0 <= part < 1 else int(mixed[1]) + part
    return _fraction(body)


def _fraction(text: str) -> Fraction | None:
    match = FRACTION.fullmatch(text.strip())
    if match is None:
        return None
    top, bottom = (_decimal(g.replace(" ", "")) for g in match.groups() if g is not None)
    return top / bottom if bottom else None


def _decimal(text: str) -> Fraction:
    return Fraction(re.sub(r"[, ']", "", text).rstrip(".") or "0")


def _repeating_decimal(whole: str, fixed: str, period: str) -> Fraction:
    start = Fraction(int((whole + fixed) or "0"), 10 ** len(fixed))
    return start + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))


def _with_rest(value: Fraction, currency: str | None, rest: str) -> Quantity | None:
    """What follows the digits: scale word, percent sign, currency, unit; None if it is anything else."""
    match = REST.fullmatch(rest)
    if match is None or (currency and match["currency"]):
        return None
    unit = re.sub(r"^\(([^\W\d_ ]+(?:[ -][^\W\d_]+)*)\)$", r"\1", match["unit"].strip())
    scale = match["scale"]
    if scale and len(scale) == 1 and rest[0] == " " and scale != "k":  # 5 K, 3 B: not a scale; 5K is
        scale, unit = None, rest.strip()
    factor, unit = (SCALES[scale], unit) if scale else _foreign_scale(unit)
    attached = not rest[:1].isspace() and factor == 1 and not match["percent"]
    if unit and not math_units.is_unit(unit, attached=attached):
        return None
    name = UNITS.get((currency or match["currency"] or "").lower()) or math_units.unit_name(unit)
    return Quantity(value * factor, bool(match["percent"]), name)


def _foreign_scale(unit: str) -> tuple[int, str]:
    """The factor of a scale word that a unit begins with (3千, 5 миллионов рублей), and the unit behind it."""
    word, _, behind = unit.partition(" ")
    factor = math_languages.SCALE_WORDS.get(word.lower().rstrip("."))
    if factor is not None:
        return factor, re.sub(r"^(?:de|d'|di)\s*", "", behind.strip())
    return math_languages.scaled(unit)


def _fraction_of_one(quantity: Quantity) -> Fraction:
    return quantity.value / 100 if quantity.percent else quantity.value


def _braced(text: str) -> bool:
    return text.startswith("{") and text.endswith("}") and text.count("{") == 1
