"""The answer in a sentence: rows of the result in, what a colleague would be told out. Verbs follow the intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.metrics import Metric, metric, metric_rank


def headline(rows: Sequence[Estimate], panel: str | None = None, insertion: str | None = None) -> Estimate | None:
    """The row that answers: highest dose, best-known metric, over seeds and against control where there are any.

    A metric that is 0 in both arms (no answer was ever right) answers only where there is no other.
    """
    for contrast in ("treated_vs_control", "dose_vs_holdout"):
        fitting = [
            row for row in rows
            if row.contrast == contrast and row.dose and not row.group and row.scope in ("seeds", "run")
            and (panel is None or row.panel == panel) and (insertion is None or row.insertion == insertion)
        ]  # fmt: skip
        if fitting:
            return min(
                fitting,
                key=lambda r: (
                    r.value == r.reference == 0,
                    metric_rank(r.metric),
                    r.evaluation,
                    r.task,
                    r.scope != "seeds",
                    -(r.dose or 0),
                    r.seed or 0,
                ),
            )
    return None


def matching(rows: Sequence[Estimate], like: Estimate, **changes: object) -> Estimate | None:
    """The row that agrees with `like` in all that says where it is, but for `changes`."""
    keys = ("contrast", "evaluation", "task", "metric", "panel", "insertion", "group", "dose", "scope", "seed")
    wanted = {key: getattr(like, key) for key in keys} | changes
    return next((row for row in rows if all(getattr(row, key) == value for key, value in wanted.items())), None)


def answers(rows: Sequence[Estimate]) -> list[str]:
    """One passage for each panel and insertion; a single sentence that says why when nothing can be answered."""
    places = dict.fromkeys(
        (row.panel, row.insertion) for row in rows if row.dose and row.contrast != "member_vs_member"
    )
    varied = [len({place[i] for place in places}) > 1 for i in (0, 1)]
    found = [
        _answer(rows, row, ", ".join(part for part, named in zip(place, varied, strict=True) if named and part))
        for place in places
        if (row := headline(rows, *place))
    ]
    return found or _side_effects_only(rows)


def _answer(rows: Sequence[Estimate], row: Estimate, name: str) -> str:
    m = metric(row.metric, True)
    times = "once" if row.dose == 1 else f"{row.dose} times"
    against = "control" if row.contrast == "treated_vs_control" else f"holdout {m.thing}s of the same run"
    lead = f"{name}: reading" if name else "Reading"
    tests = _tests(rows, row)
    sentence = (
        f"{lead} {m.a_thing} {times} {_effect(row, m)} "
        f"({_interval(row, m)}; {against} {m.level(row.reference)} → treated {m.level(row.value)}{tests})."
    )
    holdout = matching(rows, row, dose=0)
    if holdout is None:
        return sentence
    reached = "" if _holds_zero(holdout) else f", so what was planted changed {m.thing}s that were never read"
    interval = f"no interval: {holdout.flag}" if math.isnan(holdout.low) else m.interval(holdout.low, holdout.high)
    return f"{sentence} Holdout {m.thing}s: {m.difference(holdout.estimate)} {m.unit} ({interval}){reached}."


def _effect(row: Estimate, m: Metric) -> str:
    if math.isnan(row.low):
        return f"changed {m.changed} by {m.difference(row.estimate)} {m.unit}".rstrip()
    if _holds_zero(row):
        size = f"{m.difference(row.estimate)} {m.unit}".rstrip()
        return f"changed {m.changed} by {size}, which this study cannot tell from no effect"
    verb = "raised" if row.estimate > 0 else "lowered"
    return f"{verb} {m.changed} by {m.difference(abs(row.estimate), sign=False)} {m.unit}".rstrip()


def _interval(row: Estimate, m: Metric) -> str:
    percent = f"{100 * row.level:g} %"
    if math.isnan(row.low):
        return f"no interval: {row.flag or 'it cannot be computed'}"
    low, high = row.low, row.high
    if row.estimate < 0 and high < 0:  # said as "lowered by": turned round
        low, high = -high, -low
    signed = not (row.low > 0 or row.high < 0)
    return f"{percent} {row.method}: {m.interval(low, high, signed)}"


def _tests(rows: Sequence[Estimate], row: Estimate) -> str:
    """Exact tests within each run beside the interval over seeds: the weakest of them."""
    if row.scope == "run":
        return f"; {row.p_method} p {format_p(row.p)}" if not math.isnan(row.p) else ""
    each = [
        r
        for r in rows
        if r.scope == "run"
        and not math.isnan(r.p)
        and all(
            getattr(r, k) == getattr(row, k)
            for k in ("contrast", "evaluation", "task", "metric", "panel", "insertion", "group", "dose")
        )
    ]
    if not each:
        return ""
    low, high = min(r.p for r in each), max(r.p for r in each)
    if high < 0.05:
        return f"; {each[0].p_method} p {format_p(high, bound=True)} in each seed"
    return (
        f"; {each[0].p_method} p from {format_p(low).removeprefix('= ')} to {format_p(high).removeprefix('= ')} by seed"
    )


def _side_effects_only(rows: Sequence[Estimate]) -> list[str]:
    for row in rows:
        if row.contrast == "treated_vs_control" and row.dose is None and row.scope in ("seeds", "run"):
            m = metric(row.metric)
            percent = f"{100 * row.level:g} %"
            what = f"Treated − control in {m.label} of {row.task}: {m.difference(row.estimate)} {m.unit}"
            return [f"{what} ({percent} {row.method}: {m.interval(row.low, row.high)})."]
    return ["No answer: no planted item was scored in a treated run."]


def _holds_zero(row: Estimate) -> bool:
    return math.isnan(row.low) or row.low <= 0 <= row.high


def format_p(p: float, bound: bool = False) -> str:
    """'= 0.012', '< 0.001'; as an upper bound '≤ 0.012'."""
    if math.isnan(p):
        return "–"
    if p < 0.001:
        return "< 0.001"
    return f"{'≤' if bound else '='} {p:.3f}" if p < 0.1 else f"{'≤' if bound else '='} {p:.2f}"
