r"""The exact value of a formula in whole numbers: sums, products, powers, factorials and fractions, as a Fraction.

It may assume text from math_text.normalize. Results are bounded (20,000 bits), so that no formula costs more than 1 ms.
It will not approximate: a root, a letter or anything else that is not rational arithmetic is None.
"""

import math
import re
from fractions import Fraction

MAX_BITS = 20_000
MAX_CHARACTERS = 400
MAX_DEPTH = 30
MAX_FACTORIAL = 1_000

TOKEN = re.compile(
    r"\s*(?:(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)|(?P<frac>\\frac)|(?P<binom>\\binom)"
    r"|(?P<times>\\times|\\cdot|\*|(?<=[\d\s)])[xX](?=\s*[\d(.]))|(?P<over>\\div|/)|(?P<sign>[-+^!(){}\[\]]))"
)


class NotExact(ValueError):
    """The text is no rational formula, or its value is too large to write out."""


def exact_value(text: str) -> Fraction | None:
    """The value, or None where the text is not rational arithmetic within the bounds."""
    if len(text) > MAX_CHARACTERS or not any(c.isdigit() for c in text):
        return None
    try:
        return _Reader(_tokens(text)).whole()
    except (NotExact, ZeroDivisionError):
        return None


def _tokens(text: str) -> list[str]:
    tokens, position, text = [], 0, text.rstrip()
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise NotExact
        tokens.append({"times": "*", "over": "/"}.get(str(match.lastgroup), match[0].strip()))
        position = match.end()
    return tokens


class _Reader:
    """Recursive descent: sum > product > signed > power > factorial > atom."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.position, self.depth = tokens, 0, 0

    def whole(self) -> Fraction:
        value = self.sum()
        if self.position != len(self.tokens):
            raise NotExact
        return value

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self, *expected: str) -> bool:
        if self.peek() in expected and self.peek():
            self.position += 1
            return True
        return False

    def sum(self) -> Fraction:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotExact
        value = self.product()
        while self.peek() in ("+", "-"):
            sign = 1 if self.take("+") else -1 if self.take("-") else 0
            value = _bounded(value + sign * self.product())
        self.depth -= 1
        return value

    def product(self) -> Fraction:
        value = self.signed()
        while True:
            if self.take("*"):
                value = _bounded(value * self.signed())
            elif self.take("/"):
                value = _bounded(value / self.signed())
            elif self.peek() == "(":  # 2(3) is a product; 2\frac{1}{2} may be a mixed number
                value = _bounded(value * self.power())
            else:
                return value

    def signed(self) -> Fraction:
        if self.take("-"):
            return -self.signed()
        return self.signed() if self.take("+") else self.power()

    def power(self) -> Fraction:
        base = self.factorial()
        if not self.take("^"):
            return base
        exponent = self.group() if self.peek() == "{" else self.signed()
        return _power(base, exponent)

    def factorial(self) -> Fraction:
        value = self.atom()
        while self.take("!"):
            if value.denominator != 1 or not 0 <= value <= MAX_FACTORIAL:
                raise NotExact
            value = _bounded(Fraction(math.factorial(int(value))))
        return value

    def atom(self) -> Fraction:
        token = self.peek()
        if token in ("(", "{", "["):
            return self.group()
        self.position += 1
        if token in ("\\frac", "\\binom"):
            first, second = self.argument(), self.argument()
            return _bounded(first / second) if token == "\\frac" else _binomial(first, second)
        if not token[:1].isdigit() and not token.startswith("."):
            raise NotExact
        return Fraction(token.replace(",", "").rstrip(".") or "0")

    def argument(self) -> Fraction:
        """What a command takes: a group, or one digit of a number (\\frac12)."""
        if self.peek() == "{":
            return self.group()
        token = self.peek()
        if not token.isdigit():
            raise NotExact
        if len(token) > 1:
            self.tokens[self.position : self.position + 1] = [token[0], token[1:]]
        self.position += 1
        return Fraction(int(token[0]))

    def group(self) -> Fraction:
        closing = {"(": ")", "{": "}", "[": "]"}.get(self.peek())
        if closing is None:
            raise NotExact
        self.position += 1
        value = self.sum()
        if not self.take(closing):
            raise NotExact
        return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > MAX_BITS or (base == 0 and exponent <= 0):
        raise NotExact
    if (base.numerator.bit_length() + base.denominator.bit_length()) * abs(int(exponent)) > MAX_BITS:
        raise NotExact
    return base ** int(exponent)


def _binomial(n: Fraction, k: Fraction) -> Fraction:
    if n.denominator != 1 or k.denominator != 1 or not 0 <= k <= n <= MAX_FACTORIAL:
        raise NotExact
    return Fraction(math.comb(int(n), int(k)))


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > 2 * MAX_BITS:
        raise NotExact
    return value
