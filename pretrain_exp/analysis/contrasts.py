"""One comparison of two sets of scores, within a run and over seeds: scores by seed in, rows of the result out.

paired        the same items in two arms: exact McNemar and mid-p, Newcombe's paired interval (binary); paired t
independent   items at a dose against holdout items: Newcombe method 10 and Fisher's exact test (binary); Welch
over seeds    mean of per-seed effects, t on S - 1 degrees of freedom
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.means import t_interval, welch
from pretrain_exp.analysis.paired import count_pairs, mcnemar_exact, mcnemar_midp
from pretrain_exp.analysis.proportions import newcombe, newcombe_paired
from pretrain_exp.analysis.seeds import over_seeds, two_level_bootstrap

Vector = NDArray[np.float64]
NO_VARIANCE = "no variance"
ONE_ITEM = "one item only"
DESCRIPTIVE = "descriptive: runs are not the unit here"
ITEMS, FACTS = "items", "facts"  # what is counted: a fact's score is the mean over its probes


def flags_of_runs(flags: Iterable[str], own: Sequence[str] = (NO_VARIANCE, ONE_ITEM)) -> list[str]:
    """What the flags of single runs say of their mean too, each once. own: why a run has no interval of its own."""
    said = dict.fromkeys(part for flag in flags for part in flag.split("; ") if part)
    return [part for part in said if part not in own]


@dataclass(frozen=True)
class Pair:
    """Scores of the same items in two arms of one seed. item: (n,) codes; runs: how many each score is a mean of.

    counted: ITEMS, or FACTS where a score is the mean over the items of a fact.
    """

    seed: int
    item: NDArray[np.int64]
    first: Vector
    second: Vector
    runs: int = 1
    counted: str = ITEMS

    @property
    def difference(self) -> Vector:
        return self.first - self.second


def mean_over_runs(pairs: Sequence[Pair]) -> Pair:
    """One pair per item of one seed whose items were scored in several runs (variants of a sweep that share a dose)."""
    if len(pairs) == 1:
        return pairs[0]
    item, where = np.unique(np.concatenate([p.item for p in pairs]), return_inverse=True)
    count = np.bincount(where)
    first = np.bincount(where, np.concatenate([p.first for p in pairs])) / count
    second = np.bincount(where, np.concatenate([p.second for p in pairs])) / count
    return Pair(pairs[0].seed, item, first, second, len(pairs), pairs[0].counted)


def paired_rows(
    template: Estimate, pairs: Sequence[Pair], binary: bool, resamples: int, rng_seed: int
) -> list[Estimate]:
    """Rows of first - second: one per seed; with two seeds or more also over seeds, pooled and bootstrapped."""
    rows = [_paired_run(template, pair, binary) for pair in pairs if len(pair.item)]
    if len(rows) > 1:
        rows.append(_over_seeds(template, rows))
        if binary and all(row.b is not None for row in rows[:-1]):
            rows.append(_pooled(template, rows[:-1], rows[-1].estimate))
        if resamples:
            differences = [pair.difference for pair in pairs if len(pair.item)]
            boot = two_level_bootstrap(differences, resamples, template.level, rng_seed)
            rows.append(
                replace(
                    rows[len(differences)], scope="bootstrap", low=boot.low, high=boot.high, p=np.nan, p_method="",
                    method=f"two-level bootstrap (seeds, then {template.counted}; {resamples} resamples)",
                    resampling_seed=rng_seed,
                    flag=NO_VARIANCE if boot.degenerate else DESCRIPTIVE,
                )
            )  # fmt: skip
    return rows


def _paired_run(template: Estimate, pair: Pair, binary: bool) -> Estimate:
    d = pair.difference
    row = replace(
        template, scope="run", seed=pair.seed, n=len(d), estimate=float(d.mean()),
        value=float(pair.first.mean()), reference=float(pair.second.mean()),
    )  # fmt: skip
    if binary and pair.runs == 1 and pair.counted == ITEMS:
        counts = count_pairs(pair.first, pair.second)
        low, high = newcombe_paired(counts.both, counts.first, counts.second, counts.neither, row.level)
        b, c = counts.first, counts.second
        return replace(
            row, low=float(low), high=float(high), method="Newcombe paired score interval over items", b=b, c=c,
            p=float(mcnemar_exact(b, c)), p_method="exact McNemar", p_mid=float(mcnemar_midp(b, c)),
            flag="no discordant pair" if b + c == 0 else "",
        )  # fmt: skip
    interval = t_interval(d, row.level)
    means = f" on means of {pair.runs} runs" if pair.runs > 1 else ""
    return replace(
        row, low=float(interval.low), high=float(interval.high), method=f"paired t interval over {pair.counted}{means}",
        p=float(interval.p), p_method=f"paired t{means}", flag=_flag(bool(interval.degenerate), len(d)),
    )  # fmt: skip


def independent_rows(
    template: Estimate, sides: Sequence[tuple[int, Vector, Vector]], binary: bool, what: str = ""
) -> list[Estimate]:
    """Rows of mean(first) - mean(second) for (seed, first, second): one per seed, and over seeds if there are more.

    what: each value is, of what is counted.
    """
    rows = [_independent_run(template, *side, binary, what) for side in sides if len(side[1]) and len(side[2])]
    return [*rows, _over_seeds(template, rows)] if len(rows) > 1 else rows


def _independent_run(template: Estimate, seed: int, x: Vector, y: Vector, binary: bool, what: str) -> Estimate:
    row = replace(
        template, scope="run", seed=seed, n=len(x) + len(y), estimate=float(x.mean() - y.mean()),
        value=float(x.mean()), reference=float(y.mean()),
    )  # fmt: skip
    if binary:
        k, m = int(x.sum()), int(y.sum())
        low, high = newcombe(k, len(x), m, len(y), row.level)
        p = float(fisher_exact([[k, len(x) - k], [m, len(y) - m]]).pvalue)
        return replace(
            row, low=float(low), high=float(high), method="Newcombe method 10 over items", p=p, p_method="Fisher exact"
        )
    if min(len(x), len(y)) < 2:
        return replace(row, method=f"Welch t over {what}{row.counted}", flag=ONE_ITEM)
    interval = welch(x, y, row.level)
    return replace(
        row, low=float(interval.low), high=float(interval.high), method=f"Welch t interval over {what}{row.counted}",
        p=float(interval.p), p_method="Welch t", flag=NO_VARIANCE if interval.degenerate else "",
    )  # fmt: skip


def _over_seeds(template: Estimate, rows: Sequence[Estimate]) -> Estimate:
    interval = over_seeds([row.estimate for row in rows], template.level)
    return replace(
        template, scope="seeds", seed=None, seeds=len(rows), n=sum(row.n for row in rows),
        estimate=float(interval.mean), low=float(interval.low), high=float(interval.high),
        value=float(np.mean([row.value for row in rows])), reference=float(np.mean([row.reference for row in rows])),
        method=f"t interval over {len(rows)} seeds", p=float(interval.p), p_method=f"t over {len(rows)} seeds",
        flag=NO_VARIANCE if interval.degenerate else "",
    )  # fmt: skip


def _pooled(template: Estimate, rows: Sequence[Estimate], estimate: float) -> Estimate:
    b, c = sum(row.b or 0 for row in rows), sum(row.c or 0 for row in rows)
    return replace(
        template, scope="pooled", seed=None, seeds=len(rows), n=sum(row.n for row in rows), estimate=estimate, b=b, c=c,
        value=float(np.mean([row.value for row in rows])), reference=float(np.mean([row.reference for row in rows])),
        method="none: runs are pooled", p=float(mcnemar_exact(b, c)), p_method="exact McNemar, pooled",
        p_mid=float(mcnemar_midp(b, c)), flag=DESCRIPTIVE,
    )  # fmt: skip


def _flag(degenerate: bool, n: int) -> str:
    return "" if not degenerate else ONE_ITEM if n == 1 else NO_VARIANCE
