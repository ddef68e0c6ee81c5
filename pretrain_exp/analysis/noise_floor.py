"""What two runs without any edit differ by: the controls of a study in, one row for each thing measured out.

    run 0  ----------  score of each item        A/A: the runs differ in their seeds alone, so every difference is noise
    run 1  ----------  score of each item

An effect between one treated run and one control is told from this noise only where it exceeds `two_runs`; with k runs
an arm, `detectable` says what is seen with 80 % power.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from pretrain_exp.analysis.metrics import SIZES, metric_rank
from pretrain_exp.analysis.power import mde_seeds
from pretrain_exp.analysis.scores import Scores, Series, Unit

ARMS_OF = (3, 5, 10)  # seeds for which the smallest effect that can be seen is given
_RATIO = {"nll": ("nats_per_token", "tokens")}  # a loss of texts of unequal lengths is a ratio of sums


@dataclass(frozen=True)
class Floor:
    """One metric of one task. member: variant of the sweep; n: items; runs: controls; all in units of the metric.

    means: of each run; sd_runs: of these; largest: difference of two of them; two_runs: half the 95 % interval of the
    difference of two runs, t on runs - 1 degrees of freedom; sd_items: of the paired differences of items between runs.
    detectable: seeds -> smallest mean of paired differences, of this spread, that the t test sees with 80 % power.
    """

    evaluation: str
    task: str
    metric: str
    member: str
    n: int
    runs: int
    mean: float
    means: tuple[float, ...]
    sd_runs: float
    largest: float
    two_runs: float
    sd_items: float
    detectable: dict[int, float]

    def row(self) -> dict[str, Any]:
        """As a plain row, a column for each number of seeds; without the single runs."""
        values = asdict(self)
        del values["means"]
        return values | {f"detectable_{k}_seeds": value for k, value in values.pop("detectable").items()}


def noise_floor(scores: Scores, level: float = 0.95) -> list[Floor]:
    """A row for each metric that two controls or more of one member have, at the last step that all of them scored.

    One training under several seeds counts once; where all are one, they are equal in everything and `sd_runs` is 0.
    """
    members: dict[str, list[Unit]] = {}
    for unit in scores.units("control"):
        members.setdefault(unit.member, []).append(unit)
    have = set(scores.series)
    found = []
    for member, seeds in members.items():
        distinct = list({scores.originals[unit]: unit for unit in reversed(seeds)}.values())
        units = distinct if len(distinct) > 1 else seeds
        for series in scores.series if len(units) > 1 else ():
            ratio = _RATIO.get(series.metric)
            if series.metric in SIZES:
                continue
            vectors = _vectors(scores, series, units)
            if len(vectors) < 2:
                continue
            weights = None
            if ratio is not None and (sizes := series._replace(metric=ratio[1])) in have:
                if not (sized := _vectors(scores, sizes, units)):
                    continue  # texts without sizes have no loss per token
                weights = sized[0]
                series = series._replace(metric=ratio[0])
            found.append(_floor(series, member, vectors, weights, level))
    return found


def _vectors(scores: Scores, series: Series, units: Sequence[Unit]) -> list[NDArray[np.float64]]:
    steps = [scores.steps(series, unit, "control") for unit in units]
    common = set.intersection(*(set(each) for each in steps)) if steps else set()
    if not common:
        return []
    return [scores.vectors[series, "control", unit, max(common)] for unit in units]


def _floor(
    series: Series,
    member: str,
    vectors: Sequence[NDArray[np.float64]],
    weights: NDArray[np.float64] | None,
    level: float,
) -> Floor:
    values = np.stack(vectors)
    scored = ~np.isnan(values).any(axis=0)
    values = values[:, scored]
    size = np.ones(values.shape[1]) if weights is None else weights[scored]
    means = values.sum(axis=1) / size.sum()
    per_item = values / size
    pairs = list(combinations(range(len(means)), 2))
    sd_runs = float(means.std(ddof=1))
    differences = [per_item[i] - per_item[j] for i, j in pairs]
    return Floor(
        evaluation=series.evaluation,
        task=series.task,
        metric=series.metric,
        member=member,
        n=values.shape[1],
        runs=len(means),
        mean=float(means.mean()),
        means=tuple(means.tolist()),
        sd_runs=sd_runs,
        largest=max(abs(float(means[i] - means[j])) for i, j in pairs),
        two_runs=float(student.ppf(0.5 + level / 2, len(means) - 1)) * math.sqrt(2) * sd_runs
        if sd_runs > 0
        else math.nan,
        sd_items=float(np.mean([d.std(ddof=1) for d in differences])) if values.shape[1] > 1 else math.nan,
        detectable={k: mde_seeds(math.sqrt(2) * sd_runs, k, level=level) for k in ARMS_OF},
    )


def floor_answers(floors: Sequence[Floor], scores: Scores) -> list[str]:
    """A sentence for the best-known metric of each task: what one treated and one control run must differ by."""
    return [_sentence(floor, scores) for floor in best_known(floors)]


def best_known(floors: Sequence[Floor]) -> list[Floor]:
    """Of each task the metric that is best known."""
    best: dict[tuple[str, str, str], Floor] = {}
    for floor in floors:
        key = floor.member, floor.evaluation, floor.task
        if key not in best or metric_rank(floor.metric) < metric_rank(best[key].metric):
            best[key] = floor
    return list(best.values())


def _sentence(floor: Floor, scores: Scores) -> str:
    m = scores.metric(floor.metric)
    where = ": ".join(part for part in (floor.member, f"{m.label} of {floor.task}") if part)
    if not floor.sd_runs > 0:
        return f"{where}: {floor.runs} runs without any edit are equal in it, so their noise cannot be estimated."
    size = f"{m.difference(floor.largest, sign=False)} {m.unit}".rstrip()
    return (
        f"{where}: {floor.runs} runs without any edit differ by up to {size}; an effect between one treated and one "
        f"control run must exceed {m.difference(floor.two_runs, sign=False)} to be told from noise."
    )
