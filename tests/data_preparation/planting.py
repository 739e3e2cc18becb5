"""Duplicates and look-alikes planted in real problems; used by the tests and by benchmarks/prepare_data.py."""

import random
import re

WORDS = {"2": "two", "3": "three", "4": "four", "5": "five", "6": "six", "10": "ten", "12": "twelve"}


def shouted(text, draw):
    return re.sub(r"(?<![\d])[.,!?](?!\d)", " ", text).upper()


def typo(text, draw):
    """Two neighbours swapped in about one word of 25, at least one."""
    words = text.split(" ")
    places = [i for i, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    for i in draw.sample(places, min(len(places), max(1, len(words) // 25))):
        at = draw.randrange(1, len(words[i]) - 2)
        words[i] = words[i][:at] + words[i][at + 1] + words[i][at] + words[i][at + 2 :]
    return " ".join(words)


def spelled(text, draw):
    return re.sub(r"(?<![\d.,$/])\b(2|3|4|5|6|10|12)\b(?![\d.,/%:]\d|%)", lambda found: WORDS[found[0]], text)


def swapped(text, draw):
    parts = re.split(r"(?<=[.!?]) +", text)
    if len(parts) > 2:
        parts[0], parts[1] = parts[1], parts[0]
    return " ".join(parts)


def framed(text, draw):
    return f"Please solve this problem. {text}"


def dropped(text, draw):
    """Without its first two articles."""
    return re.sub(r" (the|a|an) ", " ", text, count=2)


DUPLICATES = (shouted, typo, spelled, swapped, framed, dropped)


def other_number(text, draw):
    """One number of the text changed."""
    found = list(re.finditer(r"\d+", text))
    if not found:
        return None
    one = draw.choice(found)
    return text[: one.start()] + str(int(one[0]) + draw.randrange(1, 9)) + text[one.end() :]


def opposite(text, draw):
    for old, new in ((" more ", " less "), (" first ", " last "), (" each ", " total "), (" before ", " after ")):
        if old in text:
            return text.replace(old, new, 1)
    return None


def exchanged_numbers(text, draw):
    """Two different numbers of the text change places."""
    found = list(re.finditer(r"\d+", text))
    pairs = [(a, b) for a in found for b in found if a.start() < b.start() and a[0] != b[0]]
    if not pairs:
        return None
    a, b = draw.choice(pairs)
    return text[: a.start()] + b[0] + text[a.end() : b.start()] + a[0] + text[b.end() :]


LOOK_ALIKES = (other_number, opposite, exchanged_numbers)


def plant(rows, share, seed):
    """(all rows shuffled behind the originals, indices of duplicates by kind, indices of look-alikes by kind).

    Look-alikes keep the gold answer of their original, so that only the text can tell them apart.
    """
    draw = random.Random(seed)
    out, kinds = list(rows), {}
    for row in draw.sample(rows, int(len(rows) * share)):
        for changes in (DUPLICATES, LOOK_ALIKES):
            change = draw.choice(changes)
            text = change(row["question"], draw)
            if text and text != row["question"]:
                kinds[len(out)] = change.__name__
                out.append({"question": text, "answer": row["answer"]})
    names = {change.__name__ for change in DUPLICATES}
    planted = {i: kind for i, kind in kinds.items() if kind in names}
    return out, planted, {i: kind for i, kind in kinds.items() if kind not in names}
