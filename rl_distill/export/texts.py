"""Texts to judge an export by: 1,000 generated ones with digits, newlines, Chinese, emoji and code, or the user's.

No model and no tokenizer. The generated texts are the same on every machine.
"""

from __future__ import annotations

import random
from pathlib import Path

from ..students.calibration import read_texts

NUM_TEXTS = 1000
WORDS = [
    "The",
    "a",
    "price",
    "of",
    "train",
    "costs",
    "Tom's",
    "apples",
    "how",
    "many",
    "are",
    "left",
    "don't",
    "WE'LL",
    "Answer",
    "Zürich",
    "naïve",
    "café",
    "x",
    "y",
]
CHINESE = "今天天气很好我们去学习数学题目答案是多少苹果火车小时价格一共剩下"
EMOJI = ("🙂", "🚀", "👩‍🔬", "🇨🇭", "👍🏽", "❤️")
SYMBOLS = ("+", "-", "*", "/", "=", "==", "<=", "...", "$", "%", "(", ")", "[", "]", "{}", '"', "→", "≤", "½", "²")
GAPS = (" ", " ", " ", " ", "", "  ", "\n", "\n\n", "\t", "\r\n", " \n ", "\n    ")


def generated_texts(num_texts: int = NUM_TEXTS, seed: int = 0) -> list[str]:
    """Texts of 1 to 40 pieces: words, numbers, Chinese, emoji, symbols and code, joined by spaces and line breaks."""
    generator = random.Random(seed)
    return [_text(generator) for _ in range(num_texts)]


def _text(generator: random.Random) -> str:
    parts: list[str] = []
    for _ in range(generator.randint(1, 40)):
        parts += [_piece(generator), generator.choice(GAPS)]
    return "".join(parts)


def _piece(generator: random.Random) -> str:
    kind = generator.random()
    if kind < 0.4:
        return generator.choice(WORDS)
    if kind < 0.6:
        return f"{generator.randint(0, 10 ** generator.randint(1, 9)):{generator.choice(['d', ',', '.2f'])}}"
    if kind < 0.75:
        return "".join(generator.choices(CHINESE, k=generator.randint(1, 8)))
    if kind < 0.82:
        return generator.choice(EMOJI)
    if kind < 0.88:
        return f"def f(x_{generator.randint(0, 9)}):\n    return x"
    return generator.choice(SYMBOLS)


def texts_of(path: Path | None) -> list[str]:
    """Those of the file (.txt, .jsonl, .parquet); the generated ones without a file."""
    return generated_texts() if path is None else read_texts(path)
