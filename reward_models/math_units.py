r"""Units of measurement: which words after a number are a unit, and whether two units are the same one.

It may assume a short text that stands after a number. Pint knows the physical units; it is imported when the first
unit that is not in the table below is met (0.4 s, once), and only ever asked for single words.
It will not convert: 5 m and 500 cm are two answers.
"""

import functools
import re
from typing import Any

from . import math_languages

# Before the letters that a `\text{}` or `\mathrm{}` held: `5\text{ m}` is a length, `5m` may be a product.
MARK = "\ue000"

# The everyday units, so that most answers never ask pint; names of money, which pint does not have.
UNITS = {
    "$": "dollar", "us$": "dollar", "usd": "dollar", "dollar": "dollar", "buck": "dollar", "€": "euro", "eur": "euro",
    "euro": "euro", "£": "pound", "gbp": "pound", "¢": "cent", "cent": "cent", "penny": "cent", "pennie": "cent",
    "¥": "yuan", "yuan": "yuan", "rmb": "yuan", "cny": "yuan", "yen": "yen", "jpy": "yen", "₽": "ruble", "₩": "won",
    "₹": "rupee", "rupee": "rupee", "quarter": "quarter", "dime": "dime", "nickel": "nickel",
    "mm": "mm", "millimeter": "mm", "millimetre": "mm", "cm": "cm", "centimeter": "cm", "centimetre": "cm", "m": "m",
    "meter": "m", "metre": "m", "km": "km", "kilometer": "km", "kilometre": "km", "in": "inch", "inch": "inch",
    "inche": "inch", "ft": "foot", "foot": "foot", "feet": "foot", "yd": "yard", "yard": "yard", "mi": "mile",
    "mile": "mile", "mg": "mg", "milligram": "mg", "g": "g", "gram": "g", "kg": "kg", "kilogram": "kg", "oz": "ounce",
    "ounce": "ounce", "lb": "lb", "lbs": "lb", "ton": "ton", "tonne": "ton", "ml": "ml", "milliliter": "ml", "l": "l",
    "liter": "l", "litre": "l", "s": "second", "sec": "second", "second": "second", "min": "minute",
    "minute": "minute", "h": "hour", "hr": "hour", "hour": "hour", "day": "day", "week": "week", "month": "month",
    "year": "year", "yr": "year", "degree": "degree", "rad": "radian", "radian": "radian", "mph": "mph", "kph": "km/h",
    "km/h": "km/h", "m/s": "m/s", "dm": "dm", "fps": "fps",
}  # fmt: skip
WORD = rf"{math_languages.LETTER}(?:{math_languages.LETTER}|['-])*\.?"
POWER = r"(?:\s?\^\s?(?:\{\s?-?[1-4]\s?\}|-?[1-4]))"
UNIT = re.compile(rf"{MARK}?{WORD}{POWER}?(?:(?: | ?/ ?\(?| ?\\cdot ?|\*|(?={MARK})){MARK}?{WORD}{POWER}?){{0,5}}\)?")
# Words that change the value, or make it something other than one value.
NO_UNIT = frozenset([
    "or", "nor", "and", "not", "to", "than", "more", "less", "least", "most", "fewer", "between", "either", "times",
    "plus", "minus", "over", "under", "above", "below", "about", "squared", "cubed", "factorial", "mod", "modulo",
    "base", "pi", "tau", "sqrt", "root", "log", "ln", "exp", "sin", "cos", "tan", "cot", "sec", "csc", "inf",
    "infinity", "i", "e", "x", "y", "z", "per-cent", "halves", "half", "thirds", "quarters", "remainder", "r", "if",
    "unless", "maybe", "approximately", "off", "hundredths", "tenths", "thousandths", "by", "divided", "multiplied",
    "choose", "power", "of", "given", "when", "where", "without", "except", "through", "until", "theta", "alpha",
    "beta", "gamma", "lambda", "but", "then", "equals", "is", "are", "was", "so", "because", "wrong", "incorrect",
    "fifths", "sixths", "eighths", "ninths", "fourths", "because", "instead", "nearly", "almost", "oo", "nan", "from",
    "tens", "ones",
])  # fmt: skip
NOT_CLAIMED = frozenset(["square", "sq", "cubic", "us", "of"])
# Symbols that stand for two units, or that pint takes for another one than a school book does.
AMBIGUOUS = frozenset(["C", "T", "B", "M", "h", "min", "degC", "degF", "AU"])
SINGLE = frozenset("mgsLlJKNVWATFCBHΩÅ")  # one-letter symbols that are taken for a unit after a number
MARKED_SINGLE = frozenset("StdRbMDuΩμ")  # only in \\text{}: else these are variables
SI_SYMBOL = re.compile(
    r"(?:[YZEPTGMkhdcmµμunpf]|da)?(?:Hz|Pa|Wb|lm|lx|Bq|Gy|Sv|kat|mol|cd|eV|bit|bps|Wh|Ah|bar|cal"
    r"|[gmsAKNJWCVFTHLlBbΩ]|ohm)|dB|rpm|ha|ppm|ppb|psi|atm|degC|degF"
)


@functools.lru_cache(maxsize=4096)
def is_unit(text: str, attached: bool) -> bool:
    """True if a text after a number says what is counted or measured, and changes nothing about the number.

    attached: no space stood between number and text; then its first word has to be a known unit (18cm, not 18xy).
    """
    if not UNIT.fullmatch(text) or re.search(f"[{math_languages.CJK}]", text):
        return math_languages.counted(text) is not None
    marked = text.startswith(MARK)
    words = re.findall(WORD, text.replace(MARK, ""))
    if any(_changes_the_value(word) for word in words) and not unit_name(text):
        return False
    if attached and not marked:
        return _everyday(words[0]) or (len(words) == 1 and math_languages.counted(words[0]) is not None)
    return all(
        _everyday(word) or _is_noun(word) or _is_symbol(word, marked) or word.lower().rstrip(".") in NOT_CLAIMED
        for word in words
    )


@functools.lru_cache(maxsize=4096)
def unit_name(text: str) -> str | None:
    """The unit's one name, its power included (cm^2, square cm): None for a common noun."""
    text = text.replace(MARK, "").strip()
    if not text:
        return None
    counted = math_languages.counted(text)
    if counted is not None:
        return counted or None
    power = re.search(r"\^\s?\{?([234])\}?$", text)
    words = re.sub(rf"{POWER}$", "", text).replace(" / ", "/").split()
    if not words:
        return None
    suffix = power[1] if power else {"square": "2", "sq": "2", "cubic": "3"}.get(words[0].lower().rstrip("."), "")
    words = [w for w in words if w.lower().rstrip(".") not in NOT_CLAIMED]
    if len(words) != 1:  # "miles per hour", "dollars left": the first word alone decides little
        return None
    name = UNITS.get(_stem(words[0])) or math_languages.UNITS.get(words[0].lower().rstrip("."))
    return (name or _pint_name(words[0]) or "") + suffix or None


def same_unit(first: str, second: str) -> bool:
    """True if two names from `unit_name` may be the same unit: equal, or of one size (mph, miles/hour)."""
    if first == second:
        return True
    sizes = _size(first), _size(second)
    return None not in sizes and sizes[0] == sizes[1]


def same_kind(first: str, second: str) -> bool:
    """True if two words are units of one dimension, or of money: "10 minutes 30 seconds" is one quantity, not two."""
    names = unit_name(first), unit_name(second)
    if None in names:
        return False
    money = {"dollar", "cent", "euro", "pound", "yuan", "jiao", "ruble", "kopeck", "quarter", "dime", "nickel"}
    if all(name in money for name in names):
        return True
    sizes = [_size(str(name)) for name in names]
    return None not in sizes and sizes[0][1] == sizes[1][1] and names[0] != names[1]  # type: ignore[index]


def _changes_the_value(word: str) -> bool:
    word = word if len(word) == 1 else word.lower()  # A is an ampere, "a" a word
    return word in NO_UNIT or word in math_languages.NO_UNIT


def _everyday(word: str) -> bool:
    return _stem(word) in UNITS or word.lower().rstrip(".") in math_languages.UNITS


def _is_noun(word: str) -> bool:
    """A word of three letters or more with a vowel, in whatever language: eggs, рублей."""
    letters = word.rstrip(".")
    if not letters.isascii():
        return len(letters) >= 2 or math_languages.counted(letters) is not None
    return len(letters) >= 3 and re.search("[aeiouyAEIOUY]", letters) is not None


def _is_symbol(word: str, marked: bool) -> bool:
    """A physical unit that is no product of variables: kWh, GB; one letter if it is in a `\\text` or one of SI's."""
    if len(word) == 1:
        return word in (SINGLE | MARKED_SINGLE if marked else SINGLE)
    if SI_SYMBOL.fullmatch(word) or word in AMBIGUOUS:
        return True
    if "-" in word:
        return all(_everyday(part) or _pint_name(part) for part in word.split("-"))
    return (marked or len(word) > 2 or not word.islower()) and _pint_name(word) is not None


def _stem(word: str) -> str:
    word = word.lower().rstrip(".")
    return word if word in UNITS or not word.endswith("s") else word[:-1]


@functools.lru_cache(maxsize=4096)
def _pint_name(word: str) -> str | None:
    """Pint's name of a unit written as one word or symbol, or as words joined by `/`; None if it knows none."""
    word = word.rstrip(".")
    if word in AMBIGUOUS or not re.fullmatch(rf"(?:{math_languages.LETTER}|/){{1,30}}", word):
        return None
    names = [_pint_word(part) for part in word.split("/")]
    return None if None in names else "/".join(str(name) for name in names)


def _pint_word(word: str) -> str | None:
    found = sorted(registry().parse_unit_name(word), key=lambda candidate: candidate[0] != "")
    if not found:
        return None
    prefix, name, _ = found[0]  # without a prefix if there is such a reading: amps are amperes
    if name in ("speed_of_light", "pi", "elementary_charge", "technical_atmosphere") or (
        prefix and len(prefix + word) < 3
    ):
        return None
    odd = prefix and word.islower() and not SI_SYMBOL.fullmatch(word) and not word.startswith(prefix)
    return None if odd else prefix + name  # "cats" are no centi-atmospheres


@functools.lru_cache(maxsize=1024)
def _size(name: str) -> tuple[float, str] | None:
    """Size in base units, to nine digits, and dimension of a unit name; None where pint does not know it."""
    power = re.search(r"[234]$", name)
    words = name.rstrip("234").split("/")
    units = [_pint_word(PINT_NAMES.get(word, word)) for word in words]
    if None in units:
        return None
    unit = registry().Unit("/".join(f"({u})" for u in units)) ** (int(power[0]) if power else 1)
    factor, base = registry().get_base_units(unit, check_nonmult=False)
    return float(f"{factor:.9g}"), str(base)


PINT_NAMES = {"ton": "metric_ton", "h": "hour", "lb": "pound", "l": "liter"}


@functools.cache
def registry() -> Any:
    import pint

    return pint.UnitRegistry()
