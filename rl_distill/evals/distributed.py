"""Evaluation over all processes: each solves and grades its share of the problems, and every one gets the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import distributed
from ..config import RunConfig
from ..types import Problem
from .evaluation import Evaluation, GreedyModel, Writer, evaluate_writer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def solve(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem], config: RunConfig
) -> Evaluation:
    """`solve_with` a causal LM in this process."""
    return solve_with(GreedyModel(model, tokenizer, config.generation.stop), tokenizer, problems, config)


def solve_with(
    writer: Writer, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem], config: RunConfig
) -> Evaluation:
    """The Evaluation of all `problems`, in order, the same on every process; in one process it is `evaluate_writer`."""
    processes = distributed.world_size()
    if processes == 1:
        return evaluate_writer(writer, tokenizer, problems, config)
    rows = range(distributed.rank(), len(problems), processes)
    mine = evaluate_writer(writer, tokenizer, [problems[row] for row in rows], config)
    found = distributed.gather_list(list(zip(rows, mine.completions, mine.grades, strict=True)))
    found.sort(key=lambda item: item[0])
    return Evaluation(list(problems), [completion for _, completion, _ in found], [grade for _, _, grade in found])
