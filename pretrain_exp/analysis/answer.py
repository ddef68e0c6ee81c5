"""The answer in a sentence: rows of the result in, what a colleague would be told out. Verbs follow the intervals.

    Reading a fact 16 times raised <outcome> by 2.05 nats in knowledge/memorization (95 % <method>: ..., n = ...; ...).
    Holdout facts, never read: +1.62 nats (...); beyond them: +0.43 nats (...). Treated − placebo: +1.98 nats (...).

A verb says that reading did it only where the change exceeds that of holdout items, by the interval of the difference
in differences: that their own interval holds 0 says that few were scored as well as that they stood still.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.metrics import Metric
from pretrain_exp.analysis.outcomes import FLOOR, Relevance, headline, measured_of
from pretrain_exp.analysis.place import short_variant
from pretrain_exp.analysis.scores import REMOVED, Scores


def matching(rows: Sequence[Estimate], like: Estimate, **changes: object) -> Estimate | None:
    """The row that agrees with `like` in all that says where it is, but for `changes`."""
    keys = ("contrast", "evaluation", "task", "metric", "panel", "insertion", "group", "dose", "scope", "seed")
    wanted = {key: getattr(like, key) for key in keys} | changes
    return next((row for row in rows if all(getattr(row, key) == value for key, value in wanted.items())), None)


def answers(rows: Sequence[Estimate], scores: Scores, relevance: Relevance | None = None) -> list[str]:
    """One passage for each panel and insertion; a single sentence that says why when nothing can be answered.

    scores: what the rows are of: the units of their metrics, and what was scored at more than one step, so that the
    sentence says at which.
    """
    relevance = relevance or Relevance(rows)
    places = dict.fromkeys(
        (row.panel, row.insertion) for row in rows if row.dose is not None and row.contrast != "member_vs_member"
    )
    varied = [len({place[i] for place in places}) > 1 for i in (0, 1)]
    found = [
        _answer(
            rows, row, scores.metric_of(row),
            ", ".join(short_variant(part) for part, named in zip(place, varied, strict=True) if named and part),
            _where(rows, row, scores),
        )
        + _passed_over(row, relevance, scores)
        for place in places
        if (row := headline(rows, relevance, *place))
    ]  # fmt: skip
    return found or _side_effects_only(rows, scores)


def outcome_name(evaluation: str, task: str) -> str:
    """`knowledge/memorization`: the task, with its evaluation where the task does not begin with it."""
    return task if task == evaluation or task.startswith(f"{evaluation}/") else f"{evaluation}/{task}"


def _answer(rows: Sequence[Estimate], row: Estimate, m: Metric, name: str, where: str) -> str:
    holdout = matching(rows, row, dose=0) if row.dose and row.contrast == "treated_vs_control" else None
    moved = holdout is not None and not _stood_still(holdout)
    beyond = matching(rows, row, contrast="difference_in_differences") if holdout else None
    against = "control" if row.contrast == "treated_vs_control" else f"holdout {m.things} of the same run"
    beyond_tells = beyond is not None and not _holds_zero(beyond) and (beyond.estimate > 0) == (row.estimate > 0)
    may_have = moved or (holdout is not None and beyond is not None and abs(holdout.estimate) >= FLOOR)
    unproven = may_have and not beyond_tells and not _holds_zero(row)
    if math.isnan(row.low):
        seen = f"{_seen(row, m)}: {_signed(row, m)} against {against} in {where}"
        others = "runs" if row.scope == "seeds" else f"{m.things}"
        sentence = f"{seen}; no interval, so nothing can be concluded about other {others} "
    elif holdout and unproven:
        sentence = _compared(row, holdout, moved, m, where)
    else:
        sentence = f"{lead(row, m)} {_effect(row, m)} in {where} "
    sentence = f"{name}: {sentence[0].lower()}{sentence[1:]}" if name else sentence
    sentence += (
        f"({_interval(row, m)}, n = {_count(rows, row)}; {against} {m.level(row.reference)} → treated "
        f"{m.level(row.value)}{_tests(rows, row)})."
    )
    if holdout:
        sentence += f" Holdout {m.things}, never read: {_with_interval(holdout, m)}"
        sentence += f"; beyond them: {_told(beyond, m)}." if beyond and (moved or unproven) else "."
    sentence += _lower(rows, row, m)
    placebo = matching(rows, row, contrast="treated_vs_placebo") if row.contrast == "treated_vs_control" else None
    return f"{sentence} Treated − placebo: {_told(placebo, m)}." if placebo else sentence


def _lower(rows: Sequence[Estimate], row: Estimate, m: Metric) -> str:
    """The same at every dose between none and this one."""
    doses = sorted({r.dose for r in rows if r.dose and row.dose and r.dose < row.dose and r.group == row.group})
    found = [(dose, same) for dose in doses if (same := matching(rows, row, dose=dose))]
    said = ", ".join(f"{_planted(d, m) if m.planted else m.about + _times(d)} {_with_interval(r, m)}" for d, r in found)
    return f" Less often: {said}." if said else ""


def _with_interval(row: Estimate, m: Metric) -> str:
    interval = f"no interval: {row.flag}" if math.isnan(row.low) else m.interval(row.low, row.high)
    return f"{_signed(row, m)} ({interval})"


def _told(row: Estimate, m: Metric) -> str:
    return _with_interval(row, m) + (", which this study cannot tell from no effect" if _holds_zero(row) else "")


def _count(rows: Sequence[Estimate], row: Estimate) -> str:
    """'5 items × 2 seeds' where each seed has as many, else their sum."""
    each = [r.n for r in _runs(rows, row)] if row.scope == "seeds" else []
    if len(each) == row.seeds and len(set(each)) == 1:
        return f"{each[0]:,} {row.counted} × {row.seeds} seeds"
    return f"{row.n:,} {row.counted}"


def _runs(rows: Sequence[Estimate], row: Estimate) -> list[Estimate]:
    """The rows of single runs that a row over seeds is made of."""
    return [
        r for r in rows
        if r.scope == "run" and (r.contrast, r.group, r.dose) == (row.contrast, row.group, row.dose)
        and measured_of(r) == measured_of(row)
    ]  # fmt: skip


def lead(row: Estimate, m: Metric) -> str:
    """What was done: 'Reading an item 16 times'."""
    if row.group == REMOVED:
        return f"Not reading {m.a_thing} that was removed"
    if not row.dose:
        return "Training on what was planted"
    if m.planted:
        return f"Reading {_planted(row.dose, m)}"
    return f"Reading {m.a_thing} {m.about}{_times(row.dose)}"


def _planted(dose: int, m: Metric) -> str:
    return f"{dose:,} {m.planted}{'' if dose == 1 else 's'}"


def _times(dose: int) -> str:
    return "once" if dose == 1 else f"{dose:,} times"


def changed(row: Estimate, m: Metric) -> str:
    """What it did it to: 'accuracy on it'."""
    return m.changed if row.dose or row.group == REMOVED else f"{m.label} of {m.things} that were never read"


def _effect(row: Estimate, m: Metric) -> str:
    if _holds_zero(row):
        return f"had no effect on {changed(row, m)} that this study can tell: {_signed(row, m)}"
    verb = "raised" if row.estimate > 0 else "lowered"
    return f"{verb} {changed(row, m)} by {m.difference(abs(row.estimate), sign=False)} {m.unit}".rstrip()


def _seen(row: Estimate, m: Metric) -> str:
    """What was measured and on what: 'Accuracy (items read 4 times)'."""
    if row.group == REMOVED:
        what = f"{m.things} that were removed"
    elif not row.dose:
        what = f"{m.things} that were never read"
    else:
        what = f"after {_planted(row.dose, m)}" if m.planted else f"{m.things} read {m.about}{_times(row.dose)}"
    return f"{m.label[:1].upper()}{m.label[1:]} ({what})"


def _compared(row: Estimate, holdout: Estimate, moved: bool, m: Metric, where: str) -> str:
    """Where holdout items moved too and not less, or may have: what is seen, and not that reading did it."""
    size = f"{m.difference(abs(row.estimate), sign=False)} {m.unit}".rstrip()
    side = "higher" if row.estimate > 0 else "lower"
    alike = (holdout.estimate > 0) == (row.estimate > 0)
    others = f"and so it is for holdout {m.things}" if alike else f"while holdout {m.things} moved the other way"
    others = others if moved else f"and holdout {m.things} may have moved as much"
    return f"{_seen(row, m)} is {size} {side} than in control in {where}, {others} "


def _where(rows: Sequence[Estimate], row: Estimate, scores: Scores) -> str:
    tasks = {r.task for r in rows if measured_of(r)._replace(task=row.task) == measured_of(row)}
    name = outcome_name(row.evaluation, row.task) + (f", one of {len(tasks)} tasks," if len(tasks) > 1 else "")
    if row.step is not None and (row.evaluation, row.task, row.metric) in scores.at_several_steps():
        return f"{name} at step {row.step:,}"
    return name.removesuffix(",")


def _signed(row: Estimate, m: Metric) -> str:
    return f"{m.difference(row.estimate)} {m.unit}".rstrip()


def _interval(row: Estimate, m: Metric) -> str:
    percent = f"{100 * row.level:g} %"
    if math.isnan(row.low):
        return row.flag or "it cannot be computed"
    low, high = row.low, row.high
    if row.estimate < 0 and high < 0:  # said as "lowered by": turned round
        low, high = -high, -low
    signed = not (row.low > 0 or row.high < 0)
    return f"{'one run; ' if row.scope == 'run' else ''}{percent} {row.method}: {m.interval(low, high, signed)}"


def _tests(rows: Sequence[Estimate], row: Estimate) -> str:
    """Exact tests within each run beside the interval over seeds: the weakest of them."""
    if row.scope == "run":
        return f"; {row.p_method} p {format_p(row.p)}" if not math.isnan(row.p) else ""
    each = [r for r in _runs(rows, row) if not math.isnan(r.p)]
    if not each:
        return ""
    low, high = min(r.p for r in each), max(r.p for r in each)
    if high < 0.05:
        return f"; {each[0].p_method} p {format_p(high, bound=True)} in each seed"
    return (
        f"; {each[0].p_method} p from {format_p(low).removeprefix('= ')} to {format_p(high).removeprefix('= ')} by seed"
    )


def _passed_over(row: Estimate, relevance: Relevance, scores: Scores) -> str:
    """Outcomes that come first and are the same number everywhere."""
    names = [scores.metric(name).label for name in relevance.passed_over(measured_of(row))]
    said = " and ".join(names)
    return f" {said[:1].upper()}{said[1:]}: the same in both arms for every item, so it says nothing." if names else ""


def _side_effects_only(rows: Sequence[Estimate], scores: Scores) -> list[str]:
    """The task with most items, over seeds where there are any; nothing else is looked at."""
    for row in sorted(rows, key=lambda row: (row.scope != "seeds", -row.n)):
        if row.contrast == "treated_vs_control" and row.dose is None and row.scope in ("seeds", "run"):
            m = scores.metric(row.metric)
            percent = f"{100 * row.level:g} %"
            what = f"Treated − control in {m.label} of {outcome_name(row.evaluation, row.task)}: {_signed(row, m)}"
            return [f"{what} ({percent} {row.method}: {m.interval(row.low, row.high)}; n = {row.n:,})."]
    return ["No answer: no planted item was scored in a treated run."]


def _stood_still(row: Estimate) -> bool:
    """Whether its interval holds 0; where there is none, only no change at all is none."""
    return abs(row.estimate) < FLOOR if math.isnan(row.low) else _holds_zero(row)


def _holds_zero(row: Estimate) -> bool:
    return math.isnan(row.low) or row.low <= 0 <= row.high


def format_p(p: float, bound: bool = False) -> str:
    """'= 0.012', '< 0.001'; as an upper bound '≤ 0.012'."""
    if math.isnan(p):
        return "–"
    if p < 0.001:
        return "< 0.001"
    return f"{'≤' if bound else '='} {p:.3f}" if p < 0.1 else f"{'≤' if bound else '='} {p:.2f}"
