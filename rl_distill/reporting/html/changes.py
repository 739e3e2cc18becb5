"""The answers that changed: from wrong to right and from right to wrong, side by side, with what differs marked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from html import escape

from .runs import Answer, Run, changed, triples

NUM_SHOWN = 12  # of each kind; the file evaluations.jsonl has them all
WORDS = re.compile(r"\s+|\w+|[^\w\s]")
KINDS = (("fixed", 0.0, 1.0, "Wrong, now right"), ("broken", 1.0, 0.0, "Right, now wrong"))


def section(run: Run) -> str:
    """Counts of the four kinds and examples; a line that says what is missing where a run kept no answers."""
    if not run.answers:
        return (
            '<p class="note">This run kept no answers to single problems (evaluations.jsonl), so changes cannot be '
            "shown.</p>"
        )
    return counts(run) + examples(run)


def counts(run: Run) -> str:
    rows = triples(run, "overall")
    pairs = [(before["grade"] == 1.0, after["grade"] == 1.0) for _, before, after in rows]
    past = sum(after["grade"] == 1.0 and teacher["grade"] != 1.0 for teacher, _, after in rows)
    cells = (
        ("up", pairs.count((False, True)), "wrong, now right"),
        ("down", pairs.count((True, False)), "right, now wrong"),
        ("", pairs.count((True, True)), "right both times"),
        ("", pairs.count((False, False)), "wrong both times"),
    )
    boxes = "".join(f'<div class="{kind}"><b>{count}</b><span>{words}</span></div>' for kind, count, words in cells)
    lost = f"Of {len(rows):,} problems the student now solves {past} that its teacher gets wrong."
    return f'<div class="matrix">{boxes}</div><p class="note">{lost}</p>'


def examples(run: Run) -> str:
    blocks, buttons = [], ['<button data-show="all" aria-pressed="true">All shown</button>']
    for kind, was, now, words in KINDS:
        found = spread(changed(run, was, now))
        if not found:
            continue
        buttons.append(f'<button data-show="{kind}" aria-pressed="false">{words}</button>')
        blocks += [pair(kind, words, before, after) for before, after in found]
    tasks = sorted({answer["task"] for answer in run.answers["before"]})
    if len(tasks) > 1:
        buttons += [f'<button data-show="task-{escape(t)}" aria-pressed="false">{escape(t)}</button>' for t in tasks]
    chips = f'<div class="chips" role="group" aria-label="Which answers to show">{"".join(buttons)}</div>'
    return f"<div>{chips}{''.join(blocks)}</div>" if blocks else '<p class="note">No verdict changed.</p>'


def spread(pairs: Sequence[tuple[Answer, Answer]]) -> list[tuple[Answer, Answer]]:
    """At most NUM_SHOWN, taking the tasks in turn so that each is seen."""
    by_task: dict[str, list[tuple[Answer, Answer]]] = {}
    for before, after in pairs:
        by_task.setdefault(before["task"], []).append((before, after))
    turns = [found[i] for i in range(NUM_SHOWN) for found in by_task.values() if i < len(found)]
    return turns[:NUM_SHOWN]


def pair(kind: str, words: str, before: Answer, after: Answer) -> str:
    """One problem with both answers. All text is escaped: completions are hostile input to a page as well."""
    task = escape(before["task"])
    left, right = marked(before["completion"], after["completion"])
    sides = "".join(
        f'<div class="side {"right" if answer["grade"] == 1.0 else ""}"><h4>{name}: {verdict(answer)}</h4>'
        f"<pre>{text}</pre></div>"
        for name, answer, text in (("Before", before, left), ("After", after, right))
    )
    head = f'<header><span class="meta">{task}</span><pre>{escape(before["prompt"].strip())}</pre></header>'
    return f'<article class="card pair" data-kind="{kind} task-{task}">{head}<div class="sides">{sides}</div></article>'


def verdict(answer: Answer) -> str:
    return '<span class="good">right</span>' if answer["grade"] == 1.0 else '<span class="bad">wrong</span>'


def marked(first: str, second: str) -> tuple[str, str]:
    """Both texts as HTML with the words that the other one lacks in <mark>."""
    a, b = WORDS.findall(first.strip("\n")), WORDS.findall(second.strip("\n"))
    left, right = [], []
    for kind, a0, a1, b0, b1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        one, two = escape("".join(a[a0:a1])), escape("".join(b[b0:b1]))
        left.append(one if kind == "equal" or not one.strip() else f"<mark>{one}</mark>")
        right.append(two if kind == "equal" or not two.strip() else f"<mark>{two}</mark>")
    return "".join(left) or '<span class="meta">(nothing)</span>', "".join(
        right
    ) or '<span class="meta">(nothing)</span>'
