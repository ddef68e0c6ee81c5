"""When an item was learned: right or wrong at every evaluated step in, a code for each item out.

    steps      500  1000  1500  2000
    item a       0     0     1     1     learned at 1500      (wrong until then, right from then on)
    item b       1     1     1     1     learned at 500, the first evaluated step
    item c       0     1     0     1     unstable             (no step function)
    item d       0     0     0     0     never
    item e       1     1     0     0     forgotten at 1500    (right until then, wrong from then on)

One run's codes are noisy: items picked because a run learned them at s will, in another run of the same kind, often not
be learned at s (regression to the mean). `recurrence` says how often, from repeated control runs, so that an effect on
picked items can be held against what picking alone would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike, NDArray

NEVER, UNSTABLE = -1, -2  # codes beside steps; a forgotten item has code FORGOTTEN - step
FORGOTTEN = -10


@dataclass(frozen=True)
class Recurrence:
    """Of items that one control run learned at `step`: how another control run, on average over pairs, coded them.

    again: share learned at the same step; earlier, later: at another; other: never, unstable or forgotten. picked: mean
    number of items a run; accuracy: {step: share of the picked items that another run has right there}. Shares are NaN
    where no run picked any.
    """

    step: int
    picked: float
    again: float
    earlier: float
    later: float
    other: float
    accuracy: dict[int, float]


def learned_at(right: ArrayLike, steps: Sequence[int]) -> NDArray[np.int64]:
    """Codes (items,) of answers (items, steps), steps ascending: the step, NEVER, UNSTABLE, or FORGOTTEN - step.

    Raises ValueError where the shapes or the steps do not fit; NaN (not scored) makes an item unstable.
    """
    values = np.asarray(right, float)
    if values.ndim != 2 or values.shape[1] != len(steps) or list(steps) != sorted(set(steps)) or not len(steps):
        raise ValueError(f"answers of shape {values.shape} do not fit the steps {list(steps)}, ascending and distinct")
    known = ~np.isnan(values).any(axis=1)
    answers = values > 0.5
    changes = (answers[:, 1:] != answers[:, :-1]).sum(axis=1)
    where = np.argmax(np.diff(answers.astype(np.int8), axis=1, prepend=answers[:, :1].astype(np.int8)) != 0, axis=1)
    at = np.asarray(steps, np.int64)[where]
    codes = np.full(len(values), UNSTABLE, np.int64)
    first, last = answers[:, 0], answers[:, -1]
    codes[changes == 0] = np.where(first, steps[0], NEVER)[changes == 0]
    once = changes == 1
    codes[once & last] = at[once & last]
    codes[once & first] = FORGOTTEN - at[once & first]
    codes[~known] = UNSTABLE
    return codes


def recurrence(runs: Sequence[ArrayLike], steps: Sequence[int]) -> list[Recurrence]:
    """For each step, over all ordered pairs of control runs (items, steps) each. ValueError below two runs."""
    if len(runs) < 2:
        raise ValueError("how often a code recurs needs at least two control runs")
    answers = [np.asarray(run, float) for run in runs]
    codes = [learned_at(run, steps) for run in answers]
    found = []
    for step in steps:
        shares, accuracy, sizes = [], [], []
        for first, second in permutations(range(len(runs)), 2):
            picked = codes[first] == step
            sizes.append(int(picked.sum()))
            if not picked.any():
                continue
            other = codes[second][picked]
            shares.append([np.mean(other == step), np.mean((other >= 0) & (other < step)), np.mean(other > step)])
            accuracy.append(np.nanmean(answers[second][picked], axis=0))
        again, earlier, later = np.mean(shares, axis=0) if shares else (np.nan,) * 3
        means = np.mean(accuracy, axis=0) if accuracy else np.full(len(steps), np.nan)
        found.append(
            Recurrence(
                int(step), float(np.mean(sizes)), float(again), float(earlier), float(later),
                float(1 - again - earlier - later), dict(zip(map(int, steps), means.tolist(), strict=True)),
            )
        )  # fmt: skip
    return found


def describe(code: int) -> str:
    """A code in words."""
    if code == NEVER:
        return "never"
    if code == UNSTABLE:
        return "unstable"
    return f"learned at {code}" if code >= 0 else f"forgotten at {FORGOTTEN - code}"
