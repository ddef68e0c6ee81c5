"""Effects by time since the last exposure: item-wise effects joined to the ledger in, binned means and curves out.

    read for the last time            evaluated
    ---------|----------------------------|-------->   x = tokens trained on from the step that read it to this state
           step t                      state s          (both ends: steps t ... s - 1), never 0

Only states after an item's last exposure count, so every point has the whole dose. The curves are fitted to the items
of each seed; over seeds their half-lives are averaged as logarithms. Beside each point stands what the optimizer's
decay alone leaves of a weight over the same steps.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain_exp.analysis.contrasts import NO_VARIANCE, ONE_ITEM, Vector
from pretrain_exp.analysis.design import Cell, Design, Panel
from pretrain_exp.analysis.exposures import Clock, last_reads
from pretrain_exp.analysis.forgetting import Decay, exponential, logarithmic
from pretrain_exp.analysis.means import t_interval
from pretrain_exp.analysis.place import Place
from pretrain_exp.analysis.scores import Series, Unit
from pretrain_exp.analysis.seeds import TOO_WIDE, UNDETERMINED, over_seeds
from pretrain_exp.analysis.study import StudyData
from pretrain_exp.items.facts import fact_of

MOST_BINS = 8
FEWEST_IN_BIN = 10  # item effects
FEWEST = 3 * FEWEST_IN_BIN, 4  # item effects a seed, distances: below them nothing is fitted
_SIGHT = 100
BEYOND = "beyond the distances that were seen: an extrapolation"
FLAT = "not determined: no fading at all fits as well"


@dataclass(frozen=True, kw_only=True)
class FadedPoint(Place):
    """Mean treated − control of the items in one bin of distances. seed None: over seeds (t).

    distance: mean of its items, in `unit` (tokens or, where they were not logged, steps); weight_left: NaN if unknown.
    n: of what `counted` says: facts, where one has several probes; an item seen at several states counts once.
    """

    seed: int | None
    bin: int
    distance: float
    unit: str
    n: int
    counted: str
    effect: float
    low: float
    high: float
    weight_left: float
    method: str
    flag: str = ""


@dataclass(frozen=True, kw_only=True)
class Fade(Place):
    """A curve through the item effects of a dose. parameter, error: tau (exponential) or slope per tenfold distance.

    n: effects of items, counted: of how many facts or items. error: as if the effects of one fact were all the same
    (by Kish's effective number of facts, (sum n_i)^2 / sum n_i^2 of those with n_i effects); where its interval lets
    the curve be flat, no half-life is given.

    half_life, zero: in `unit`, NaN where the curve never gets there; low, high: of the half-life over seeds.
    """

    seed: int | None
    curve: str
    unit: str
    n: int
    counted: int
    amplitude: float
    parameter: float
    error: float
    half_life: float
    zero: float
    residual: float
    low: float = float("nan")
    high: float = float("nan")
    flag: str = ""


class _Sample(NamedTuple):
    """Of one seed, of each item and state: distance, effect, share of a weight that is left, fact; (n,) each."""

    x: Vector
    effect: Vector
    left: Vector
    fact: Vector


Scant = dict[str, tuple[int, int]]  # insertion -> item effects a seed and distances that it has, too few for a curve


def fading(study: StudyData, design: Design) -> tuple[list[FadedPoint], list[Fade], Scant]:
    """Points and curves of every insertion, metric that is shown first and dose above 0 that has three bins or more.

    Third, insertions without any curve although several states were evaluated.
    """
    points: list[FadedPoint] = []
    fades: list[Fade] = []
    scant: Scant = {}
    last = {key: _read_at(design, reads) for key, reads in last_reads(study).items()}
    clocks = {unit: Clock.of(study, unit) for unit in design.scores.units("treated")}
    in_tokens = bool(clocks) and all(clock.tokens for clock in clocks.values())
    unit_name = "tokens" if in_tokens else "steps"
    for panel, insertion, series in design.shown():
        for cell in design.cells(panel, insertion, series):
            if cell.dose == 0 or cell.group:
                continue
            samples = {
                seed: sample
                for seed in panel.seeds
                if len((sample := _sample(design, panel, series, cell, seed, last, clocks, in_tokens)).x)
            }
            edges = _edges(samples)
            if edges is None:
                if samples and any(len(design.scores.steps(series, unit)) > 1 for unit in panel.units):
                    scant[insertion] = max(scant.get(insertion, (0, 0)), _there(samples))
                continue
            where = {"panel": panel.label, "insertion": insertion, **series._asdict(), "dose": cell.dose}
            where["unit"] = unit_name
            points += _points(where, samples, edges, design.level, design.counted(series, insertion))
            fades += _fades(where, samples, design.level)
    for insertion in {point.insertion for point in points}:
        scant.pop(insertion, None)
    return points, fades, scant


def _read_at(design: Design, reads: dict[str, int]) -> NDArray[np.int64]:
    """The last step that read each item of the vocabulary, or its fact; -1: none."""
    names = design.scores.items.tolist()
    return np.array([reads.get(name, reads.get(fact_of(name), -1)) for name in names], np.int64)


def _there(samples: dict[int, _Sample]) -> tuple[int, int]:
    """Of the seed that has fewest."""
    return min((len(sample.x), len(np.unique(sample.x))) for sample in samples.values())


def _sample(
    design: Design, panel: Panel, series: Series, cell: Cell, seed: int,
    last: dict[tuple[Unit, str], NDArray[np.int64]], clocks: dict[Unit, Clock], in_tokens: bool,
) -> _Sample:  # fmt: skip
    parts = [_Sample(*(np.empty(0) for _ in range(4)))]
    for unit in panel.of_seed(seed):
        if (unit, cell.insertion) not in last:
            continue
        read_at = last[unit, cell.insertion]
        chosen = design.mask(unit, cell) & (read_at >= 0)
        for state in design.scores.steps(series, unit):
            treated, control = (design.scores.get(series, unit, arm, state) for arm in ("treated", "control"))
            if treated is None or control is None:
                continue
            there = chosen & (read_at < state) & ~np.isnan(treated) & ~np.isnan(control)
            if not there.any():
                continue
            clock, first = clocks[unit], read_at[there].astype(float)
            steps = state - first
            x = clock.tokens(np.array([state]))[0] - clock.tokens(first) if in_tokens and clock.tokens else steps
            left = clock.left(first, state) if clock.left else np.full(len(first), np.nan)
            fact = design.fact_codes(np.flatnonzero(there)).astype(float)
            parts.append(_Sample(x, treated[there] - control[there], left, fact))
    return _Sample(*(np.concatenate([part[i] for part in parts]) for i in range(4)))


def _edges(samples: dict[int, _Sample]) -> Vector | None:
    """Bounds of bins of about equal counts, the same for all seeds; None below three bins or without any effect."""
    if not samples:
        return None
    pooled = np.concatenate([sample.x for sample in samples.values()])
    if np.ptp(np.concatenate([sample.effect for sample in samples.values()])) == 0:
        return None  # nothing moved: a metric at its floor
    bins = min(MOST_BINS, min(len(sample.x) for sample in samples.values()) // FEWEST_IN_BIN)
    if bins < 3:
        return None
    edges = np.unique(np.quantile(pooled, np.linspace(0, 1, bins + 1)))
    return edges if len(edges) > 3 else None


def _points(
    where: dict, samples: dict[int, _Sample], edges: Vector, level: float, counted: str
) -> Iterator[FadedPoint]:
    """The mean over facts (or items), each being the mean of its own effects in the bin."""
    by_bin: dict[int, list[FadedPoint]] = defaultdict(list)
    for seed, sample in samples.items():
        which = np.clip(np.searchsorted(edges, sample.x, "right") - 1, 0, len(edges) - 2)
        for number in np.unique(which).tolist():
            mine = which == number
            _, of = np.unique(sample.fact[mine], return_inverse=True)
            means = np.bincount(of, sample.effect[mine]) / np.bincount(of)
            interval = t_interval(means, level)
            by_bin[number].append(
                FadedPoint(
                    **where, seed=seed, bin=number, distance=float(sample.x[mine].mean()), n=len(means),
                    counted=counted,
                    effect=float(interval.mean), low=float(interval.low), high=float(interval.high),
                    weight_left=float(sample.left[mine].mean()), method=f"t interval over {counted}",
                    flag="" if not interval.degenerate else ONE_ITEM if len(means) == 1 else NO_VARIANCE,
                )
            )  # fmt: skip
    for rows in by_bin.values():
        yield from rows
    for rows in by_bin.values():
        if len(rows) > 1:
            interval = over_seeds([row.effect for row in rows], level)
            yield replace(
                rows[0], seed=None, n=sum(row.n for row in rows), effect=float(interval.mean),
                distance=float(np.mean([row.distance for row in rows])), low=float(interval.low),
                high=float(interval.high), weight_left=float(np.mean([row.weight_left for row in rows])),
                method=f"t interval over {len(rows)} seeds", flag=NO_VARIANCE if interval.degenerate else "",
            )  # fmt: skip


def _fades(where: dict, samples: dict[int, _Sample], level: float) -> Iterator[Fade]:
    for curve in ("exponential", "logarithmic"):
        rows = []
        for seed, sample in samples.items():
            if len(np.unique(sample.x)) < 3:
                continue
            origin = float(sample.x.min())
            fitted = (
                exponential(sample.x, sample.effect)
                if curve == "exponential"
                else logarithmic(sample.x, sample.effect, origin)
            )
            rows.append(
                _fade(where, seed, fitted, float(sample.x.max()), np.unique(sample.fact, return_counts=True)[1])
            )
        yield from rows
        if len(rows) > 1:
            yield _over_seeds(rows, max(float(sample.x.max()) for sample in samples.values()), level)


def _fade(where: dict, seed: int, fitted: Decay, largest: float, each: NDArray[np.int64]) -> Fade:
    """each: how many effects every fact has."""
    (a, b), flag = fitted.parameters, ""
    error = fitted.errors[1] * math.sqrt(float((each**2).sum() / each.sum()))
    # farther than a hundred times what was measured, a fitted curve says nothing
    half, zero = (value if value <= _SIGHT * largest else float("nan") for value in (fitted.half_life, fitted.zero))
    if a != a:
        flag = "no fit"
    elif not math.isfinite(half):
        flag = "does not fade: no half-life"
    elif not abs(b) > 1.96 * error:
        half, zero, flag = math.nan, math.nan, FLAT
    elif half > largest:
        flag = BEYOND
    return Fade(
        **where, seed=seed, curve=fitted.name, n=fitted.n, counted=len(each), amplitude=a, parameter=b, error=error,
        half_life=half, zero=zero, residual=fitted.residual, flag=flag,
    )  # fmt: skip


def _over_seeds(rows: Sequence[Fade], largest: float, level: float) -> Fade:
    """Means over seeds; the half-life on its logarithm, where every seed has one."""
    halves = [row.half_life for row in rows]
    mean = replace(
        rows[0], seed=None, n=sum(row.n for row in rows), counted=sum(row.counted for row in rows),
        amplitude=float(np.mean([row.amplitude for row in rows])),
        parameter=float("nan"), error=float("nan"), zero=float("nan"), half_life=float("nan"),
        residual=float(np.mean([row.residual for row in rows])),
        flag=f"{sum(not 0 < h < math.inf for h in halves)} of {len(rows)} seeds have no half-life",
    )  # fmt: skip
    if not all(0 < h < math.inf for h in halves):
        return mean
    interval = over_seeds(np.log(halves), level)
    with np.errstate(over="ignore"):  # a bound beyond any number is inf
        low, high = np.exp([interval.low, interval.high]).tolist()
    half = float(np.exp(interval.mean))
    if not interval.degenerate and not (low > 0 and high / low < UNDETERMINED):
        return replace(mean, flag=TOO_WIDE)
    return replace(
        mean, half_life=half, low=low, high=high,
        flag=NO_VARIANCE if interval.degenerate else BEYOND if half > largest else "",
    )  # fmt: skip
