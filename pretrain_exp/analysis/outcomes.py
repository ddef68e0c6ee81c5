"""Which outcome answers for an insertion: what was measured in, one order of it out, fixed before anything is scored.

    1. outcomes of an evaluation made for this kind of insertion (study/measured.py) before those of any other
    2. outcomes that can say anything before those that are the same number, 0 or 1, in both arms at every dose
    3. metrics made for one kind of insertion (KINDS_OWN), then accuracy, then losses, as in metrics.py
    4. of several tasks: what is nearest to the planted text (TASKS), then the one with most items, then by name

Neither the size nor the sign of an effect is looked at. The row that answers is that of the highest dose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.metrics import metric_rank
from pretrain_exp.analysis.scores import ASIDE, REMOVED
from pretrain_exp.items.facts import PROBE_TYPES

KINDS_OWN = ("watermark", "exposure", "attack", "poison_logprob", "target_logprob")
TASKS = (*PROBE_TYPES, "trigger")  # last parts of tasks, the nearest to what was planted first
FLOOR = 1e-9  # chances that differ by less (of sampling a text: 1e-60 against 1e-58) are the same number
ABOUT = (REMOVED, "trigger")  # groups of probes whose others are there to be compared with: kept, without trigger


class Measured(NamedTuple):
    """An outcome of one insertion in one panel."""

    panel: str
    insertion: str
    evaluation: str
    task: str
    metric: str


def measured_of(row: Estimate) -> Measured:
    return Measured(row.panel, row.insertion, row.evaluation, row.task, row.metric)


class Relevance:
    """The order above, for the rows of one study. measured_by: insertion -> evaluations made for its kind."""

    def __init__(self, rows: Sequence[Estimate], measured_by: Mapping[str, Sequence[str]] | None = None):
        self.measured_by = measured_by or {}
        self._sizes: dict[tuple[str, str, str], int] = {}
        self._speaks: dict[Measured, bool] = {}
        for row in rows:
            if row.dose is None or row.contrast not in ("treated_vs_control", "dose_vs_holdout"):
                continue
            where = row.insertion, row.evaluation, row.task
            self._sizes[where] = max(row.n, self._sizes.get(where, 0))
            at_end = min(abs(row.value), abs(row.value - 1)) < FLOOR
            speaks = not (at_end and abs(row.value - row.reference) < FLOOR)
            self._speaks[measured_of(row)] = self._speaks.get(measured_of(row), False) or speaks

    def silent(self, place: Measured) -> bool:
        """Whether it is 0 (or 1) for every item in both arms at every dose."""
        return not self._speaks.get(place, True)

    def key(self, place: Measured) -> tuple[bool, bool, tuple[bool, tuple[int, str]], str, tuple[int, int, str]]:
        """Sorting key of an outcome among those of its insertion."""
        made = self.measured_by.get(place.insertion, ())
        last = place.task.rpartition("/")[2]
        nearest = TASKS.index(last) if last in TASKS else len(TASKS)
        size = self._sizes.get(place[1:4], 0)
        return (
            bool(made) and place.evaluation not in made,
            self.silent(place),
            outcome_rank(place.metric),
            place.evaluation,
            (nearest, -size, place.task),
        )

    def passed_over(self, chosen: Measured) -> list[str]:
        """Metrics of the same task that would have come before this one, and say nothing."""
        found = [
            place for place in self._speaks
            if place[:4] == chosen[:4] and self.silent(place)
            and outcome_rank(place.metric) < outcome_rank(chosen.metric)
        ]  # fmt: skip
        return [place.metric for place in sorted(found, key=self.key)]


def headline(
    rows: Sequence[Estimate], relevance: Relevance | None = None, panel: str | None = None, insertion: str | None = None
) -> Estimate | None:
    """The row that answers: over seeds and against control where there are any, of the highest dose.

    Of an insertion with groups that it is about (ABOUT), one of these; where only items of dose 0 were scored, those.
    What was removed answers before what was kept, although nobody read it.
    """
    relevance = relevance or Relevance(rows)
    for contrast in ("treated_vs_control", "dose_vs_holdout"):
        fitting = [
            row for row in rows
            if row.contrast == contrast and row.dose is not None and row.group in ("", *ABOUT)
            and row.scope in ("seeds", "run")
            and (panel is None or row.panel == panel) and (insertion is None or row.insertion == insertion)
        ]  # fmt: skip
        gone = [row for row in fitting if row.group == REMOVED]
        fitting = gone or [row for row in fitting if row.dose] or fitting
        if fitting:
            return min(
                fitting,
                key=lambda row: (
                    relevance.key(measured_of(row)),
                    row.group not in ABOUT,
                    row.scope != "seeds",
                    -(row.dose or 0),
                    row.seed or 0,
                ),
            )
    return None


def outcome_rank(metric: str) -> tuple[bool, tuple[int, str]]:
    """Sorting key: metrics of one kind of insertion first, then the best-known ones."""
    return metric not in KINDS_OWN, metric_rank(metric)


def about(items: Sequence[tuple[str, int, bool]]) -> list[int]:
    """Of one insertion's items, (group, dose, probe) each, the indices of those that its outcome is taken on.

    Its probes where it has any, else its items; of these the groups that it is about, else those of a dose above 0,
    else all.
    """
    here = [i for i, (group, _, _) in enumerate(items) if group != ASIDE]
    asked = [i for i in here if items[i][2]] or here
    chosen, planted = [i for i in asked if items[i][0] in ABOUT], [i for i in asked if items[i][1] > 0]
    return chosen or planted or asked
