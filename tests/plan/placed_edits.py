"""Promises that every placement keeps: nothing overlaps, random edits stay in their span and in one sequence."""

from __future__ import annotations

import numpy as np
from plan_samples import PHASES, S

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.plan.edits import Edits

RAMP = Phases([Phase(0, 2, S), Phase(5, 8, S), Phase(20, 16, S)])
LONGER = Phases([Phase(0, 3, S), Phase(7, 2, 2 * S)])


def intervals(requests: list[Edits], positions: list[np.ndarray]) -> np.ndarray:
    """(start, stop) of all edits, sorted."""
    starts = np.concatenate(positions)
    stops = starts + np.concatenate([request.lengths for request in requests])
    return np.stack([starts, stops], axis=1)[np.argsort(starts)]


def check(requests: list[Edits], positions: list[np.ndarray], phases: Phases = PHASES) -> None:
    """No overlap; each random edit in its span and in one sequence."""
    table = intervals(requests, positions)
    assert (table[:-1, 1] <= table[1:, 0]).all()
    for request, position in zip(requests, positions, strict=True):
        if request.mode == "random":
            assert (position >= request.span[0]).all()
            assert (position + request.lengths <= request.span[1]).all()
            first, last = phases.locate(position)[0], phases.locate(position + request.lengths - 1)[0]
            assert (first == last).all()
