"""Planted facts over training: results and ledger in, tables of traces, effectivity and retention out.

    results  item x arm x seed x step, of the evaluation `knowledge`      (study.RESULTS)
    ledger   which text of which fact was read at which step              (study.LEDGER, with member and seed)

An item's id begins with its fact's (items/facts.py), so no other key is needed. A fact without a row is a holdout.
Each number is given for the treated traces alone, and for treated minus control, which training on other text moves
as well; with all values and without outliers (outside the quartiles by twice their distance).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pretrain_exp.analysis.acquisition import (
    ONE_FACT,
    TWO_VALUES,
    WINDOW,
    Vector,
    fit_decay,
    peaks,
    retainability,
    without_outliers,
)
from pretrain_exp.analysis.contrasts import NO_VARIANCE, flags_of_runs
from pretrain_exp.analysis.means import MeanInterval, t_interval
from pretrain_exp.analysis.scores import Scores, Series, Unit, read_scores
from pretrain_exp.analysis.seeds import over_seeds
from pretrain_exp.items.facts import PROBE_TYPES, fact_of

METRIC = "target_logprob"
NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class TracePoint:
    """Means over the probes of one type and dose in one run at one step."""

    member: str
    seed: int
    insertion: str
    type: str
    dose: int
    arm: str
    step: int
    n: int
    log_prob: float  # nats
    probability: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A number of one type of probe and dose. seed None: over seeds (t), the row to conclude from.

    against: "" (treated alone) or "control" (treated - control). outliers: whether they are in.
    n: values (effectivity: probe x injection; decay: probe x time); facts: independent ones, or seeds (seed None).
    """

    member: str
    seed: int | None
    insertion: str
    type: str
    dose: int
    against: str
    outliers: bool
    n: int
    facts: int
    estimate: float
    se: float
    low: float
    high: float
    lost_at: float = NAN  # decay: steps after which nothing is left by the fit
    flag: str = ""


@dataclass(frozen=True)
class KnowledgeTable:
    """name: traces, effectivity [nats] or decay [share of the gain lost per tenfold time]."""

    name: str
    caption: str
    rows: Sequence[TracePoint] | Sequence[Effect]

    def to_arrow(self) -> pa.Table:
        """One column a field; NaN is null."""
        if not self.rows:
            return pa.table({})
        columns = {field.name: [getattr(row, field.name) for row in self.rows] for field in fields(self.rows[0])}
        return pa.table({name: pa.array([None if v != v else v for v in values]) for name, values in columns.items()})


@dataclass(frozen=True)
class _Cell:
    """The probes of one type and dose in one run. values: arm -> metric -> (steps, probes)."""

    labels: dict[str, Any]
    facts: NDArray[np.str_]
    injections: list[NDArray[np.int64]]  # of each probe's fact
    steps: list[int]
    values: dict[str, dict[str, NDArray[np.float64]]]


def knowledge_tables(
    scores: pa.Table, ledger: pa.Table, window: int = WINDOW, level: float = 0.95
) -> list[KnowledgeTable]:
    """The tables of all probes among the results; none where there are none.

    scores: results; ledger: as in StudyData. window: steps within which an injection's peak is looked for.
    """
    probed = scores.filter(_probe_tasks(scores))
    cells = list(_cells(read_scores(probed), ledger)) if len(probed) else []
    if not cells:
        return []
    traces = [point for cell in cells for point in _trace_points(cell)]
    effects = [row for cell in cells for row in _effectivity_rows(cell, window, level)]
    decays = [row for cell in cells for row in _decay_rows(cell, window, level)]
    return [
        KnowledgeTable("traces", "Probes of planted facts over training", traces),
        KnowledgeTable(
            "effectivity",
            f"Rise of the target's log-probability from an injection to the peak within {window} steps [nats]; a peak "
            "is a maximum over evaluated states, so noise alone makes it positive, of treated − control too",
            [*effects, *_over_seeds(effects, level)],
        ),
        KnowledgeTable(
            "decay",
            "Share of the gained log-probability that is lost in each tenfold time since the last peak, of probes that "
            "gained anything",
            [*decays, *_over_seeds(decays, level)],
        ),
    ]


def _probe_tasks(scores: pa.Table) -> pa.Array:
    tasks = [task for task in scores["task"].unique().to_pylist() if task.rpartition("/")[2] in PROBE_TYPES]
    return pc.is_in(scores["task"], pa.array(tasks, pa.string()))


def _cells(scores: Scores, ledger: pa.Table) -> Iterator[_Cell]:
    read = _read_at(ledger)
    facts = np.array([fact_of(item) for item in scores.items.tolist()], dtype=str)
    for series in (series for series in scores.series if series.metric == METRIC):
        insertion, _, kind = series.task.rpartition("/")
        for unit in scores.units("treated"):
            injections = read.get((unit, insertion))
            steps = scores.steps(series, unit)
            if injections is None or not steps:
                continue
            arms = {arm: _stacked(scores, series, unit, arm, steps) for arm in ("treated", "control")}
            probed = ~np.isnan(arms["treated"][METRIC]).all(0)
            times = [injections.get(fact, []) for fact in facts]
            for dose in sorted({len(times[i]) for i in np.flatnonzero(probed)}):
                chosen = np.flatnonzero(probed & np.array([len(each) == dose for each in times]))
                yield _Cell(
                    {"member": unit.member, "seed": unit.seed, "insertion": insertion, "type": kind, "dose": dose},
                    facts[chosen],
                    [np.array(times[i], dtype=np.int64) for i in chosen],
                    steps,
                    {arm: {name: v[:, chosen] for name, v in of.items()} for arm, of in arms.items()},
                )


def _read_at(ledger: pa.Table) -> dict[tuple[Unit, str], dict[str, list[int]]]:
    """(unit, insertion) -> fact -> the steps at which it was read, one an exposure."""
    found: dict[tuple[Unit, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    planted = ledger.filter(pc.equal(ledger["status"], "planted"))
    columns = [planted[name].to_pylist() for name in ("member", "seed", "insertion", "item", "step")]
    for member, seed, insertion, item, step in zip(*columns, strict=True):
        found[Unit(member, seed), insertion][fact_of(item)].append(step)
    return found


def _stacked(scores: Scores, series: Series, unit: Unit, arm: str, steps: list[int]) -> dict[str, NDArray[np.float64]]:
    """metric -> (steps, items), NaN where not scored."""
    nothing = np.full(len(scores.items), np.nan)
    out = {}
    for metric in (METRIC, "target_prob", "acc"):
        vectors = [scores.get(series._replace(metric=metric), unit, arm, step) for step in steps]
        out[metric] = np.stack([nothing if vector is None else vector for vector in vectors])
    return out


def _trace_points(cell: _Cell) -> Iterator[TracePoint]:
    for arm, values in cell.values.items():
        for i, step in enumerate(cell.steps):
            there = ~np.isnan(values[METRIC][i])
            if there.any():
                means = [float(np.mean(values[name][i, there])) for name in (METRIC, "target_prob", "acc")]
                log_prob, probability, accuracy = means
                yield TracePoint(
                    **cell.labels, arm=arm, step=step, n=int(there.sum()), log_prob=log_prob, probability=probability,
                    accuracy=accuracy,
                )  # fmt: skip


def _traces(cell: _Cell) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """("" or "control", (steps, probes)): the treated traces, and what they are above the control's."""
    treated, control = cell.values["treated"][METRIC], cell.values["control"][METRIC]
    yield "", treated
    if not np.isnan(control).all():
        yield "control", treated - control


def _effectivity_rows(cell: _Cell, window: int, level: float) -> Iterator[Effect]:
    """The mean over facts, each fact being the mean of its own values."""
    for against, traces in _traces(cell):
        found = [peaks(cell.steps, traces[:, i], times, window).effectivity for i, times in enumerate(cell.injections)]
        values, facts = _joined(found), np.repeat(cell.facts, [len(each) for each in found])
        for outliers, kept in _with_and_without(values):
            names = np.unique(facts[kept])
            if not len(names):
                continue
            means = [values[kept & (facts == name)].mean() for name in names]
            yield Effect(
                **cell.labels, against=against, outliers=outliers, n=int(kept.sum()), facts=len(names),
                **_numbers(t_interval(means, level), len(names)),
            )  # fmt: skip


def _decay_rows(cell: _Cell, window: int, level: float) -> Iterator[Effect]:
    for against, traces in _traces(cell):
        found = [retainability(cell.steps, traces[:, i], times, window) for i, times in enumerate(cell.injections)]
        since, share = (_joined([each[k] for each in found]) for k in (0, 1))
        facts = np.repeat(cell.facts, [len(each.since) for each in found])
        lost = sum(not len(each.since) for each in found)
        for outliers, kept in _with_and_without(share):
            if not kept.any():
                continue
            fit = fit_decay(since[kept], share[kept], facts[kept])
            low, high = fit.interval(level)
            left = f"{lost} of {len(found)} probes gained nothing or have no state after their peak" if lost else ""
            yield Effect(
                **cell.labels, against=against, outliers=outliers, n=fit.n, facts=fit.clusters, estimate=fit.constant,
                se=fit.se, low=low, high=high, lost_at=fit.lost_at, flag="; ".join(filter(None, (fit.flag, left))),
            )  # fmt: skip


def _joined(parts: Sequence[NDArray[Any]]) -> Vector:
    return np.concatenate([np.empty(0), *parts])


def _with_and_without(values: Vector) -> Iterator[tuple[bool, NDArray[np.bool_]]]:
    yield True, np.ones(len(values), bool)
    yield False, without_outliers(values)


def _over_seeds(rows: Sequence[Effect], level: float) -> Iterator[Effect]:
    """The mean over seeds of each number that two seeds or more have."""
    groups: dict[tuple[Any, ...], list[Effect]] = defaultdict(list)
    for row in rows:
        groups[row.member, row.insertion, row.type, row.dose, row.against, row.outliers].append(row)
    for (member, insertion, kind, dose, against, outliers), seeds in groups.items():
        of = [row for row in seeds if not np.isnan(row.estimate)]
        if len(of) > 1:
            numbers = _numbers(over_seeds([row.estimate for row in of], level), len(of))
            flags = flags_of_runs((row.flag for row in seeds), (NO_VARIANCE, ONE_FACT, TWO_VALUES))
            flags.append(numbers.pop("flag"))
            yield Effect(
                member=member, seed=None, insertion=insertion, type=kind, dose=dose, against=against, outliers=outliers,
                n=sum(row.n for row in of), facts=len(of), **numbers, flag="; ".join(filter(None, flags)),
            )  # fmt: skip


def _numbers(interval: MeanInterval, n: int) -> dict[str, Any]:
    return {
        "estimate": float(interval.mean),
        "se": float(interval.sd) / n**0.5,
        "low": float(interval.low),
        "high": float(interval.high),
        "flag": NO_VARIANCE if interval.degenerate else "",
    }
