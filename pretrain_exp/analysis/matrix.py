"""From the scores of a study to the matrix of dependence: what each experiment alone does to the outcome of each.

    arms only_<insertion>, treated (all), control   x   outcomes, one an insertion   ->   (n + 1) x n cells

The outcome of an insertion is the one that answers for it (outcomes.py) on what it is about: its probes, or the items
that it plants. Each cell is taken on the same items, averaged by fact, against the control of the same seed. (Continual
pretraining dependence testing: arXiv:2509.23383, section 5.) In: the study's items and its design. Out: cells of
dependence.py, and the noise of the controls beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pretrain_exp.analysis.contrasts import FACTS, ITEMS, Pair, mean_over_runs
from pretrain_exp.analysis.dependence import ALL, Cell, dependence, noise_of_controls
from pretrain_exp.analysis.design import Design, Panel
from pretrain_exp.analysis.metrics import SIZES
from pretrain_exp.analysis.outcomes import Measured, Relevance, about
from pretrain_exp.analysis.scores import Series, Unit
from pretrain_exp.analysis.study import ONLY, StudyData

Masks = dict[tuple[Unit, str], NDArray[np.bool_]]  # (unit, insertion) -> which items it is about


@dataclass(frozen=True)
class Outcome:
    """What is measured of an insertion: one metric of one evaluation, over all its tasks."""

    insertion: str
    evaluation: str
    metric: str


@dataclass(frozen=True)
class Matrix:
    """cells: (treatment, outcome) in the order of the outcomes, `all` last; noise: of the controls, by insertion.

    noise is the standard deviation of control means between seeds; NaN for one seed.
    """

    panel: str
    outcomes: tuple[Outcome, ...]
    cells: tuple[Cell, ...]
    noise: Mapping[str, float]

    @property
    def treatments(self) -> list[str]:
        return list(dict.fromkeys(cell.treatment for cell in self.cells))

    def cell(self, treatment: str, outcome: str) -> Cell | None:
        return next((each for each in self.cells if (each.treatment, each.outcome) == (treatment, outcome)), None)

    def rows(self) -> list[dict[str, Any]]:
        """The cells as plain rows, each with the metric and the noise of its outcome."""
        of = {outcome.insertion: outcome for outcome in self.outcomes}
        return [
            {"panel": self.panel, **asdict(cell), "evaluation": of[cell.outcome].evaluation}
            | {"metric": of[cell.outcome].metric, "noise_of_controls": self.noise[cell.outcome]}
            for cell in self.cells
        ]


def matrices(study: StudyData, design: Design, relevance: Relevance) -> list[Matrix]:
    """One matrix a panel that has arms of single insertions; none for a study without them."""
    arms = sorted({arm for _, arm, _, _ in design.scores.vectors if arm.startswith(ONLY)})
    if not arms:
        return []
    masks = subjects(study.items, design.scores.items)
    found = []
    for panel in design.panels:
        names = [arm.removeprefix(ONLY) for arm in arms]
        answering = [_outcome(relevance, design, panel, masks, name) for name in names]
        outcomes = [outcome for outcome in answering if outcome is not None]
        treatments = {**{name: f"{ONLY}{name}" for name in names}, ALL: "treated"}
        differences: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
        counted: dict[str, str] = {}
        for treatment, arm in treatments.items():
            for outcome in outcomes:
                pairs = _pairs(design, panel, masks, outcome, arm)
                if pairs:
                    differences[treatment, outcome.insertion] = [pair.difference for pair in pairs]
                    counted[outcome.insertion] = pairs[0].counted
        if differences:
            noise = noise_of_controls({o.insertion: _controls(design, panel, masks, o) for o in outcomes})
            found.append(
                Matrix(panel.label, tuple(outcomes), tuple(dependence(differences, counted, design.level)), noise)
            )
    return found


def subjects(items: pa.Table, vocabulary: NDArray[np.str_]) -> Masks:
    """Of the vocabulary; see `about`."""
    index = {name: i for i, name in enumerate(vocabulary.tolist())}
    names = ["member", "seed", "insertion", "item", "group", "dose"]
    probes = items["probe"].to_pylist() if "probe" in items.column_names else [False] * len(items)
    rows: dict[tuple[Unit, str], list[tuple[str, str, int, bool]]] = {}
    columns = [items[name].to_pylist() for name in names]
    for member, seed, insertion, item, group, dose, probe in zip(*columns, probes, strict=True):
        rows.setdefault((Unit(member, seed), insertion), []).append((item, group, dose, bool(probe)))
    found = {}
    for key, each in rows.items():
        mask = np.zeros(len(vocabulary), bool)
        chosen = about([(group, dose, probe) for _, group, dose, probe in each])
        mask[[index[each[i][0]] for i in chosen if each[i][0] in index]] = True
        found[key] = mask
    return found


def _outcome(relevance: Relevance, design: Design, panel: Panel, masks: Masks, insertion: str) -> Outcome | None:
    """What answers for the insertion (outcomes.py) on what it is about."""
    found: set[Measured] = set()
    for series in design.scores.series:
        if series.metric in SIZES:
            continue
        for unit in panel.units:
            mask, scores = masks.get((unit, insertion)), design.at_end(series, unit, "treated")
            control = design.at_end(series, unit, "control")
            if mask is None or scores is None or control is None or np.isnan(scores[mask]).all():
                continue
            found.add(Measured(panel.label, insertion, *series))
    first = min(found, key=relevance.key, default=None)
    return None if first is None else Outcome(insertion, first.evaluation, first.metric)


def _series(design: Design, outcome: Outcome) -> list[Series]:
    return [s for s in design.scores.series if (s.evaluation, s.metric) == (outcome.evaluation, outcome.metric)]


def _pairs(design: Design, panel: Panel, masks: Masks, outcome: Outcome, arm: str) -> list[Pair]:
    """For each seed the scores of the items in this arm and in the control, over all tasks."""
    by_seed = []
    for seed in panel.seeds:
        pairs = []
        for unit in panel.of_seed(seed):
            mask = masks.get((unit, outcome.insertion))
            sides = [_over_tasks(design, unit, outcome, which) for which in (arm, "control")]
            if mask is None or sides[0] is None or sides[1] is None:
                continue
            item = np.flatnonzero(mask & ~np.isnan(sides[0]) & ~np.isnan(sides[1]))
            if len(item):
                pair = design.by_fact(Pair(seed, item, sides[0][item], sides[1][item]))
                pairs.append(replace(pair, counted=FACTS if len(pair.item) < len(item) else ITEMS))
        if pairs:
            by_seed.append(mean_over_runs(pairs))
    return by_seed


def _over_tasks(design: Design, unit: Unit, outcome: Outcome, arm: str) -> NDArray[np.float64] | None:
    """Scores at the unit's last step; an item has one task."""
    vectors = []
    for series in _series(design, outcome):
        step = design.last_step(series, unit)
        vector = None if step is None else design.scores.get(series, unit, arm, step)
        if vector is not None:
            vectors.append(vector)
    if not vectors:
        return None
    together = vectors[0].copy()
    for vector in vectors[1:]:
        together = np.where(np.isnan(together), vector, together)
    return together


def _controls(design: Design, panel: Panel, masks: Masks, outcome: Outcome) -> Sequence[NDArray[np.float64]]:
    """Each control once, on the items that all of them scored and any seed's experiment is about."""
    runs: dict[Unit, NDArray[np.float64]] = {}
    about = np.zeros(len(design.scores.items), bool)
    for seed in panel.seeds:
        units = panel.of_seed(seed)
        about |= np.any([masks[unit, outcome.insertion] for unit in units if (unit, outcome.insertion) in masks], 0)
        for unit in units:
            run, vector = design.scores.run_of("control", unit), _over_tasks(design, unit, outcome, "control")
            if run is not None and vector is not None:
                runs.setdefault(design.scores.originals[run], vector)
                break
    if not runs:
        return []
    vectors = list(runs.values())
    common = about & ~np.isnan(vectors).any(axis=0)
    return [vector[common] for vector in vectors] if common.any() else []
