"""Duplicates and look-alikes planted in GSM8K: `python -m benchmarks.prepare_data FILE`. About ten seconds a seed."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

from rl_distill.data_preparation.duplicates import Prints, find_duplicates, fingerprint
from rl_distill.files import read_jsonl
from tests.data_preparation.planting import plant


def main(path: str) -> None:
    rows = read_jsonl(Path(path))
    for seed in range(5):
        everything, planted, look_alikes = plant(rows, 0.2, seed)
        start = time.perf_counter()
        prints = Prints.of([fingerprint(row) for row in everything])
        for threshold in (0.5, 0.6, 0.7, 0.8):
            found = set(find_duplicates(prints, everything.__getitem__, threshold))
            missed = Counter(kind for index, kind in planted.items() if index not in found)
            right = len(found & set(planted))
            print(
                f"seed {seed} threshold {threshold}: planted {len(planted)}, look-alikes {len(look_alikes)}; recall "
                f"{right / len(planted):.4f}, precision {right / len(found):.4f}, look-alikes lost "
                f"{len(found & set(look_alikes))}, originals lost {len([i for i in found if i < len(rows)])}; missed "
                f"{dict(missed)}; {time.perf_counter() - start:.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1])
