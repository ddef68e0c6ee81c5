"""What the variants of a sweep say of each other: rows in, the sentences that stand before those of each variant out.

Two scales order 83 % to 100 % of 6 pairs of conditions alike in accuracy: model=a and model=b 83 % (Spearman 0.80), ...
Variants differ in what reading an item 16 times does to accuracy on it. Less the effect with range=A: +9.0 points
with range=B (2.0 to 16.0; told from it), ...
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pretrain_exp.analysis.agreement import Agreement
from pretrain_exp.analysis.answer import changed, lead
from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.metrics import shown_metrics
from pretrain_exp.analysis.multiplicity import benjamini_hochberg
from pretrain_exp.analysis.outcomes import Relevance, headline
from pretrain_exp.analysis.place import MOST_PAIRED, compared, short_variant
from pretrain_exp.analysis.scores import Scores

MOST = 6  # variants that are named in a passage
_TOLD = 0.05  # adjusted p below which a variant is told from the first


def scale_answers(agreements: Sequence[Agreement], scores: Scores, chosen: Estimate | None) -> list[str]:
    """How often two scales order two conditions alike, in the outcome of `chosen`; nothing where no model varies."""
    rows = [
        row for row in agreements
        if chosen and (row.evaluation, row.metric) == (chosen.evaluation, chosen.metric)
        and row.seed is None and not math.isnan(row.accuracy)
    ]  # fmt: skip
    if not rows:
        return []
    shares = sorted({f"{100 * row.accuracy:.0f} %" for row in rows}, key=lambda text: float(text.split()[0]))
    pairs = sorted({row.pairs for row in rows})
    counted = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
    each = [
        f"{short_variant(row.first)} and {short_variant(row.second)} {row.same} of {row.pairs}"
        + ("" if math.isnan(row.spearman) else f" (Spearman {row.spearman:.2f})".replace("-", "−"))
        for row in rows
    ]
    left = f"; {len(each) - MOST} more in the table" if len(each) > MOST else ""
    share = " to ".join(dict.fromkeys((shares[0], shares[-1])))
    return [
        f"Two scales order {share} of {counted} pairs of conditions alike in "
        f"{scores.metric(rows[0].metric).label}: {', '.join(each[:MOST])}{left}. "
        "Conditions share runs, so this has no interval."
    ]


def variant_answers(rows: Sequence[Estimate], scores: Scores, relevance: Relevance, labels: Sequence[str]) -> list[str]:
    """A passage for each insertion: the effect of a variant less that of another, at the headline's dose.

    In the metric of the headline, then in the next that is shown first (metrics.py). labels: of the variants in their
    order; which of them are held against which: `place.compared`. Nothing where there are no others.
    """
    passages = []
    for insertion in dict.fromkeys(row.insertion for row in rows if row.contrast == "member_vs_member"):
        top = headline(rows, relevance, None, insertion)
        if top is not None:
            passages += [_passage(rows, scores, labels, replace(top, metric=name)) for name in _metrics(rows, top)]
    return [passage for passage in passages if passage]


def _metrics(rows: Sequence[Estimate], top: Estimate) -> list[str]:
    place = (top.insertion, top.evaluation, top.task)
    there = shown_metrics(row.metric for row in rows if (row.insertion, row.evaluation, row.task) == place)
    return list(dict.fromkeys((top.metric, *there)))[:2]


def _passage(rows: Sequence[Estimate], scores: Scores, labels: Sequence[str], top: Estimate) -> str:
    place = ("insertion", "evaluation", "task", "metric", "group", "dose")
    found = [
        row for row in rows
        if row.contrast == "member_vs_member" and row.scope in ("seeds", "run")
        and all(getattr(row, name) == getattr(top, name) for name in place)
    ]  # fmt: skip
    over_seeds = {row.panel for row in found if row.scope == "seeds"}
    found = [row for row in found if row.scope == "seeds" or row.panel not in over_seeds]
    if not found:
        return ""
    pairs, first = compared(labels), short_variant(labels[0]) or "(unnamed)"
    every = 2 < len(labels) <= MOST_PAIRED
    adjusted = benjamini_hochberg([row.p for row in found])
    m = scores.metric_of(top)
    told = [bool(p < _TOLD) for p in adjusted]
    of = f"in what {lead(top, m)[0].lower()}{lead(top, m)[1:]} does to {changed(top, m)}"
    nothing = f"No variant can be told from {'another' if every else first} {of}"
    verdict = f"Variants differ {of}" if any(told) else nothing
    each = []
    for row, differs in zip(found, told, strict=True):
        reference, other = map(short_variant, pairs[row.panel])
        seed = f", seed {row.seed}" if row.scope == "run" and len({r.seed for r in found}) > 1 else ""
        size = f"{m.difference(row.estimate)} {m.unit}".rstrip()
        less = f" less {reference or '(unnamed)'}" if every else ""
        mark = f"; told {'apart' if every else 'from it'}" if differs else ""
        interval = f"no interval: {row.flag}" if math.isnan(row.low) else m.interval(row.low, row.high)
        each.append(f"{size} with {other or '(unnamed)'}{less}{seed} ({interval}{mark})")
    left = f"; {len(each) - MOST} more in the tables" if len(each) > MOST else ""
    methods = " and ".join(dict.fromkeys(row.method for row in found))
    over = f"; intervals are of single comparisons, told after Benjamini-Hochberg over {len(found)}"
    over = over if len(found) > 1 else ""
    less = "Effects" if every else f"Less the effect with {first}" if any(told) else "Less its effect"
    return f"{verdict}. {less}: {', '.join(each[:MOST])}{left} ({_percent(top)} {methods}{over})."


def _percent(row: Estimate) -> str:
    return f"{'one run; ' if row.scope == 'run' else ''}{100 * row.level:g} %"
