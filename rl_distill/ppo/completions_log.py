"""Sampled completions with their scores: a parquet file for programs and a text for people, per logged step."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import distributed
from .rollout_building import Rollout


def gather_rows(rollout: Rollout, step: int) -> list[dict[str, Any]]:
    """One dict per completion of all processes: step, task, prompt, completion, finish, every reward part (None where
    unscored), total, and the mean advantage of its tokens.
    """
    advantages = [part.mean() for part in rollout.advantages_N.split(rollout.lengths)]
    rows = []
    for row, (problem, completion) in enumerate(zip(rollout.problems, rollout.completions, strict=True)):
        rows.append(
            {
                "step": step,
                "task": problem.task,
                "prompt": problem.prompt,
                "completion": completion.text,
                "finish": completion.finish.value,
                **{name: scores[row] for name, scores in rollout.scores.parts.items()},
                "total": rollout.scores.total[row],
                "advantage": float(advantages[row]),
            }
        )
    return distributed.gather_list(rows)


def write_rows(rows: list[dict[str, Any]], folder: Path, step: int) -> None:
    """completions_<step>.parquet and .txt in the folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"completions_{step:05d}.parquet")
    (folder / f"completions_{step:05d}.txt").write_text(readable(rows))


def publish(rows: list[dict[str, Any]], step: int, report_to: Sequence[str]) -> None:
    """The rows as a table `completions` to wandb and trackio, if the run reports to them (it has opened their run)."""
    import pandas

    for name in {"wandb", "trackio"} & set(report_to):
        tracker = importlib.import_module(name)
        tracker.log({"completions": tracker.Table(dataframe=pandas.DataFrame(rows)), "ppo_step": step})


def readable(rows: list[dict[str, Any]]) -> str:
    """The rows one below the other, best total first: scores in a line, then prompt and completion."""
    texts = {"step", "prompt", "completion"}
    ranked = sorted(rows, key=lambda row: -float("inf") if row["total"] is None else row["total"], reverse=True)
    blocks = []
    for row in ranked:
        numbers = [f"{name} {_short(value)}" for name, value in row.items() if name not in texts]
        blocks.append(f"--- {'  '.join(numbers)}\n{row['prompt']}>>>{row['completion']}\n")
    return "\n".join(blocks)


def _short(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
