r"""What a written number is worth, exactly: integers, decimals, fractions, mixed numbers, percent, units, 3e5.

It may assume text from math_text.normalize. Values are Fractions; nothing is rounded and nothing is evaluated.
It will not guess: text that is not plainly one number is None.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

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
CURRENCY = r"(?:US\$|\$|€|£|¥|₹|₽|₩|USD|EUR|GBP|Rs\.?|¢)"
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
REST = re.compile(
    r"\s*(?P<scale>(?:hundreds?|dozen|thousands?|millions?|mil|mn|billions?|bn|trillion|[kKMBT])(?![a-zA-Z]))?"
    rf"\s*(?P<percent>%|percent(?:age)?(?: points?)?\b|pct\b)?\s*(?P<currency>{CURRENCY})?\s*(?P<unit>.*)"
)
# One name per unit: two different names in two answers are two different answers.
UNITS = {
    "$": "dollar", "us$": "dollar", "usd": "dollar", "dollar": "dollar", "buck": "dollar", "€": "euro", "eur": "euro",
    "euro": "euro", "£": "pound", "gbp": "pound", "¢": "cent", "cent": "cent", "penny": "cent", "pennie": "cent",
    "mm": "mm", "millimeter": "mm", "millimetre": "mm", "cm": "cm", "centimeter": "cm", "centimetre": "cm", "m": "m",
    "meter": "m", "metre": "m", "km": "km", "kilometer": "km", "kilometre": "km", "in": "inch", "inch": "inch",
    "inche": "inch", "ft": "foot", "foot": "foot", "feet": "foot", "yd": "yard", "yard": "yard", "mi": "mile",
    "mile": "mile", "mg": "mg", "milligram": "mg", "g": "g", "gram": "g", "kg": "kg", "kilogram": "kg", "oz": "ounce",
    "ounce": "ounce", "lb": "lb", "lbs": "lb", "ton": "ton", "tonne": "ton", "ml": "ml", "milliliter": "ml", "l": "l",
    "liter": "l", "litre": "l", "s": "second", "sec": "second", "second": "second", "min": "minute",
    "minute": "minute", "h": "hour", "hr": "hour", "hour": "hour", "day": "day", "week": "week", "month": "month",
    "year": "year", "yr": "year", "degree": "degree", "rad": "radian", "radian": "radian", "mph": "mph", "kph": "km/h",
    "km/h": "km/h", "m/s": "m/s",
}  # fmt: skip
UNIT = re.compile(r"[A-Za-z][A-Za-z'-]*\.?(?:(?: |/| / )[A-Za-z][A-Za-z'-]*\.?){0,5}(?:\s?\^\s?\{?[23]\}?)?")
# Words that change the value, or make it something other than one value.
NO_UNIT = frozenset([
    "or", "nor", "and", "not", "to", "than", "more", "less", "least", "most", "fewer", "between", "either", "times",
    "plus", "minus", "over", "under", "above", "below", "about", "squared", "cubed", "factorial", "mod", "modulo",
    "base", "pi", "tau", "sqrt", "root", "log", "ln", "exp", "sin", "cos", "tan", "cot", "sec", "csc", "inf",
    "infinity", "i", "e", "x", "y", "z", "per-cent", "halves", "half", "thirds", "quarters", "remainder", "r", "if",
    "unless", "maybe", "approximately", "off", "hundredths", "tenths", "thousandths", "by", "divided", "multiplied",
    "choose", "power", "of",
])  # fmt: skip


@dataclass(frozen=True)
class Quantity:
    """A number as written. `value` is before the percent sign: 50 % has the value 50 and `percent`."""

    value: Fraction
    percent: bool = False
    unit: str | None = None  # name in UNITS, None if there is none or it is a common noun


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

    50 % is 50 %, 50 and 1/2; 50 is not 1/2.
    """
    if prediction.unit and gold.unit and prediction.unit != gold.unit:
        return False
    if prediction.value == gold.value:
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
    unit = re.sub(r"^\(([A-Za-z ]+)\)$", r"\1", match["unit"].strip())
    scale = match["scale"]
    if scale and len(scale) == 1 and rest[0] == " ":  # 5 K, 3 B: not a scale; 5K is
        return None
    if scale:
        value *= SCALES[scale]
    if unit and not _is_unit(unit, attached=not rest[:1].isspace() and not scale and not match["percent"]):
        return None
    name = UNITS.get((currency or match["currency"] or "").lower()) or _unit_name(unit)
    return Quantity(value, bool(match["percent"]), name)


def _is_unit(text: str, attached: bool) -> bool:
    if not UNIT.fullmatch(text):
        return False
    words = re.findall(r"[A-Za-z]+", text)
    if any(word.lower() in NO_UNIT for word in words) and not _unit_name(text):
        return False
    known = [_stem(word) in UNITS for word in words]
    if attached:
        return known[0]
    return all(k or (len(w) >= 3 and re.search("[aeiouyAEIOUY]", w)) for k, w in zip(known, words, strict=True))


def _unit_name(text: str) -> str | None:
    """The unit's one name, its power included (cm^2, square cm): None for a common noun."""
    if not text:
        return None
    power = re.search(r"\^\s?\{?([23])\}?$", text)
    words = re.sub(r"\s?\^\s?\{?[23]\}?$", "", text).lower().replace(" / ", "/").split()
    suffix = power[1] if power else {"square": "2", "sq": "2", "cubic": "3"}.get(words[0].rstrip("."), "")
    words = [w for w in words if w.rstrip(".") not in ("square", "sq", "cubic", "us", "of")]
    name = UNITS.get(_stem(words[0])) if words else None
    if len(words) > 1 or name is None:  # "miles per hour", "dollars left": the first word alone decides little
        return None
    return name + suffix


def _stem(word: str) -> str:
    word = word.lower().rstrip(".")
    return word if word in UNITS or not word.endswith("s") else word[:-1]


def _fraction_of_one(quantity: Quantity) -> Fraction:
    return quantity.value / 100 if quantity.percent else quantity.value


def _braced(text: str) -> bool:
    return text.startswith("{") and text.endswith("}") and text.count("{") == 1
