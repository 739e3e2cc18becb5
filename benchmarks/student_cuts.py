"""What cuts cost before any training: perplexity and KL(teacher || student) of every criterion on a real model.

    python benchmarks/student_cuts.py TEACHER --gsm8k FOLDER [--only depth|width|search] [--also SHAPE]

TEACHER is a folder or hub id; FOLDER holds GSM8K's train.jsonl and test.jsonl. Importance is measured on GSM8K's
training problems with their answers, or on docstrings of Python's standard library; cuts are judged on the answers to
test problems and on other docstrings. Prints a Markdown table. Trains nothing.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rl_distill.students.calibration import Calibration, Row, TokenBatch, batches, take
from rl_distill.students.families import load_teacher
from rl_distill.students.importance import Importance, measure
from rl_distill.students.measure import compare, predicting_states
from rl_distill.students.selection import choose
from rl_distill.students.shape import StudentShapeConfig, parse_student_arch
from rl_distill.students.surgery import Cut, cut_model

MODULES = """
argparse collections csv datetime decimal functools heapq http.client inspect json logging random shutil smtplib socket
statistics subprocess tarfile tempfile threading unittest.mock urllib.request uuid zipfile
"""
DEPTH = ("uniform:22", "block_influence:22", "cosine:22", "activation_norm:22")
WIDTH = (
    {"ffn": "activation_norm:0.75"},
    {"ffn": "magnitude:0.75"},
    {"ffn": "activation_norm:0.5"},
    {"ffn": "magnitude:0.5"},
    {"heads": "activation_norm:2"},
    {"heads": "weight_variance:2"},
    {"hidden": "504"},
    {"hidden": "432"},
)


def gsm8k(path: Path, limit: int) -> list[Row]:
    """Problems as prompts, their reference answers as what counts."""
    records = [json.loads(line) for line in path.read_text().splitlines()[:limit]]
    return [Row(" " + record["answer"], f"Question: {record['question']}\nAnswer:") for record in records]


def docstrings() -> Iterator[Row]:
    """Those of at least 200 characters in some modules of the standard library, each once."""
    seen: set[str] = set()
    for name in MODULES.split():
        module = importlib.import_module(name)
        for value in (module, *vars(module).values()):
            text = inspect.getdoc(value) or ""
            if len(text) >= 200 and text not in seen:
                seen.add(text)
                yield Row(text)


class Bench:
    """A teacher, its importance on two kinds of text, and held-out text of both kinds."""

    def __init__(self, teacher: str, folder: Path, max_tokens: int, search_tokens: int) -> None:
        self.model: PreTrainedModel = load_teacher(teacher, "float32")
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(teacher)
        self.max_tokens = max_tokens
        docs = Calibration.of(list(docstrings()))
        problems = Calibration.of(gsm8k(folder / "train.jsonl", 400), gsm8k(folder / "test.jsonl", 200))
        self.held_out = {"gsm8k": self.tokens(problems.held_out), "docs": self.tokens(docs.held_out)}
        self.states = {
            kind: [predicting_states(self.model, batch) for batch in found] for kind, found in self.held_out.items()
        }
        self.rows = {"gsm8k": problems.rows, "docs": docs.rows}
        self.search = batches(take(problems.rows, self.tokenizer, 512, search_tokens))
        self.importance: dict[str, Importance] = {}

    def tokens(self, rows: list[Row] | tuple[Row, ...]) -> list[TokenBatch]:
        return batches(take(rows, self.tokenizer, 512, self.max_tokens))

    def importance_on(self, kind: str) -> Importance:
        if kind not in self.importance:
            self.importance[kind] = measure(self.model, self.tokens(list(self.rows[kind])))
        return self.importance[kind]

    def row(self, kind: str, **shape: str) -> str:
        """One line of the table."""
        started = time.perf_counter()
        importance = self.importance_on(kind) if kind in self.rows else None
        cut = choose(self.model, StudentShapeConfig(**shape), importance, self.search)
        seconds = time.perf_counter() - started
        name = ", ".join(f"{key} {value}" for key, value in shape.items())
        return f"| {name} | {kind} {self.judge(cut)} {seconds:.0f} | {gone(cut, self.model)} |"

    def judge(self, cut: Cut) -> str:
        """Cells: parameters kept, then perplexity and KL on both kinds of held-out text."""
        student = cut_model(self.model, cut)
        share = sum(x.numel() for x in student.parameters()) / sum(x.numel() for x in self.model.parameters())
        cells = [f"{share:.1%}"]
        for kind, held_out in self.held_out.items():
            found = compare(self.model, student, held_out, teacher_states=self.states[kind])
            cells += [f"{found.student_perplexity:.2f}", f"{found.kl:.3f}", f"{found.top1_agreement:.1%}"]
        return f"| {' | '.join(cells)} |"


def gone(cut: Cut, model: PreTrainedModel) -> str:
    layers = [str(layer) for layer in range(model.config.num_hidden_layers) if layer not in cut.layers]
    return " ".join(layers) or "-"


def rows(bench: Bench, only: str | None, also: str) -> Iterator[str]:
    yield f"| nothing | - {bench.judge(choose(bench.model, StudentShapeConfig(), None))} 0 | - |"
    if only in (None, "depth"):
        for layers in DEPTH:
            for kind in ("-",) if layers.startswith("uniform") else ("gsm8k", "docs"):
                yield bench.row(kind, layers=layers)
    if also:
        shape = {key: value for key, value in asdict(parse_student_arch(also)).items() if value is not None}
        yield bench.row("gsm8k", **shape)
    if only in (None, "search"):
        yield bench.row("gsm8k", layers="learned:22")
    if only in (None, "width"):
        for shape in WIDTH:
            blind = any(value.split(":")[0] in ("magnitude", "weight_variance") for value in shape.values())
            for kind in ("-",) if blind else ("gsm8k", "docs"):
                yield bench.row(kind, **shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("--gsm8k", type=Path, required=True)
    parser.add_argument("--only", choices=["depth", "width", "search"])
    parser.add_argument("--also", default="", help="one more cut, written as student_arch: teacher:layers=0,2,5")
    parser.add_argument("--max_tokens", type=int, default=4096)
    parser.add_argument("--search_tokens", type=int, default=512)
    args = parser.parse_args()
    bench = Bench(args.teacher, args.gsm8k, args.max_tokens, args.search_tokens)
    columns = ("cut", "importance on", "parameters", *("gsm8k PPL", "KL", "top-1", "docs PPL", "KL", "top-1"))
    print(f"| {' | '.join((*columns, 'choice, s', 'layers gone'))} |")
    print("|---|---|" + "---:|" * 8 + "---|")
    for line in rows(bench, args.only, args.also):
        print(line, flush=True)


if __name__ == "__main__":
    main()
