"""The reward audit: what each reward gave, how often it failed, and whether a proxy parted from the verified check."""

from __future__ import annotations

from html import escape

from reward_models import VERIFYING_REWARDS

from .runs import Run


def section(run: Run) -> str:
    """A table of the rewards, the audit of the proxies among them, and a plain sentence on the outcome."""
    labels = [name.split("/")[1] for name in run.names("rewards/", "/mean") if name != "rewards/total/mean"]
    if not labels:
        return '<p class="note">This run recorded no rewards.</p>'
    head = "".join(f"<th>{w}</th>" for w in ("reward", "weight", "first steps", "last steps", "not scored", "errors"))
    rows = "".join(reward_row(run, label) for label in labels)
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return table + proxies(run, labels) + outages(run)


def reward_row(run: Run, label: str) -> str:
    values = [y for _, y in run.series(f"rewards/{label}/mean")]
    weights = [y for _, y in run.series(f"rewards/{label}/weight")]
    tenth = max(1, len(values) // 10)
    cells = [
        _range(weights),
        f"{mean(values[:tenth]):.3f}" if values else "–",
        f"{mean(values[-tenth:]):.3f}" if values else "–",
        share(mean([y for _, y in run.series(f"rewards/{label}/unscored")])),
        share(mean([y for _, y in run.series(f"rewards/{label}/errors")])),
    ]
    return f"<tr><td>{escape(label)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def proxies(run: Run, labels: list[str]) -> str:
    """Correlation with the check, and the share of highly rewarded answers that are wrong, for each audited proxy."""
    audited = list(dict.fromkeys(name.split("/")[1] for name in run.names("audit/")))
    if not audited:
        only_checks = all(label in VERIFYING_REWARDS for label in labels)
        words = (
            "Every reward of this run is a verified check of the task itself, so there is no proxy that could be gamed "
            "in its place."
            if only_checks
            else "No audit was recorded: it needs a verified check beside the proxy rewards (weight 0 will do)."
        )
        return f'<p class="note">{words}</p>'
    head = "".join(f"<th>{w}</th>" for w in ("proxy", "agrees with the check", "high but wrong", "verdict"))
    rows = "".join(proxy_row(run, label) for label in audited)
    note = (
        "Agreement is the rank correlation with the check over the last tenth of the run. High but wrong: among the "
        "answers that the proxy likes best, the share that fail the check."
    )
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f'{table}<p class="note">{note}</p>'


def proxy_row(run: Run, label: str) -> str:
    def late(measure: str) -> float | None:
        values = [y for _, y in run.series(f"audit/{label}/{measure}")]
        return mean(values[-max(1, len(values) // 10) :])

    alarms = sum(y > 0 for _, y in run.series(f"audit/{label}/hacking"))
    verdict = (
        f'<span class="bad">rose while the check fell, in {alarms} steps</span>'
        if alarms
        else '<span class="good">no sign of hacking</span>'
    )
    correlation = late("correlation")
    shown = "–" if correlation is None else f"{correlation:.2f}"
    return (
        f"<tr><td>{escape(label)}</td><td>{shown}</td><td>{share(late('high_but_wrong'))}</td><td>{verdict}</td></tr>"
    )


def outages(run: Run) -> str:
    """How often a grader itself was out of order: such answers are left out, never counted as wrong."""
    names = [name for name in run.metrics[0] if name.endswith("/outages")] if run.metrics else []
    found = {name.split("/")[0]: mean([y for _, y in run.series(name)]) or 0.0 for name in names}
    if not found:
        return ""
    words = ", ".join(f"{escape(name)} {share(value)}" for name, value in found.items())
    return f'<p class="note">Graders out of order (such answers are left out, not counted as wrong): {words}.</p>'


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def share(value: float | None) -> str:
    """A share in per cent, with two digits where it is small."""
    if value is None or value == 0:
        return "–" if value is None else "0"
    if value < 1e-4:
        return "< 0.01 %"
    return f"{100 * value:.2g} %" if value < 0.0995 else f"{100 * value:.0f} %"


def _range(values: list[float]) -> str:
    if not values:
        return "–"
    return f"{values[0]:g}" if values[0] == values[-1] else f"{values[0]:g} → {values[-1]:g}"
