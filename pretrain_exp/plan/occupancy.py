"""Which positions are taken: disjoint intervals, kept sorted; and the greedy choice among rivals that overlap.

In: intervals as start and stop arrays. Out: which of them meet a taken position; which of them a greedy by priority
takes.
"""

from __future__ import annotations

import numpy as np


class Occupancy:
    """Disjoint half-open intervals. A small list of recent ones beside the large one keeps late rounds cheap."""

    def __init__(self) -> None:
        empty = np.zeros(0, dtype=np.int64)
        self._main = (empty, empty)
        self._recent = (empty, empty)

    def __len__(self) -> int:
        return len(self._main[0]) + len(self._recent[0])

    def add(self, start: np.ndarray, stop: np.ndarray) -> None:
        """Takes intervals that are disjoint from each other and from all that are taken."""
        self._recent = _merge(self._recent, (start, stop))
        if len(self._recent[0]) * 8 > len(self._main[0]):
            self._main = _merge(self._main, self._recent)
            self._recent = (start[:0], stop[:0])

    def meets(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Whether each interval shares a position with a taken one, bool (n,). Sorted starts are looked up faster."""
        return _meets(self._main, start, stop) | _meets(self._recent, start, stop)

    def intervals(self) -> tuple[np.ndarray, np.ndarray]:
        """All taken intervals, sorted: starts and stops."""
        return _merge(self._main, self._recent)

    def tokens_in(self, first: int, stop: int) -> int:
        """How many positions of [first, stop) are taken."""
        starts, stops = self.intervals()
        return int(np.maximum(np.minimum(stops, stop) - np.maximum(starts, first), 0).sum())


def _merge(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    if not len(b[0]):
        return a
    start, stop = np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]])
    order = np.argsort(start, kind="stable")
    return start[order], stop[order]


def _meets(taken: tuple[np.ndarray, np.ndarray], start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    if not len(taken[0]):
        return np.zeros(len(start), dtype=bool)
    last = np.searchsorted(taken[0], stop, side="left") - 1  # the last taken interval that begins before this one ends
    return (last >= 0) & (taken[1][last] > start)


def greedy(start: np.ndarray, stop: np.ndarray, priority: np.ndarray) -> np.ndarray:
    """What taking the intervals one by one, smallest priority first, would take, bool (n,); starts are sorted.

    An interval that nobody still in the race beats is taken, those that overlap it are out; repeated until no two
    rivals are left. This gives exactly the sequential result (Blelloch, Fineman and Shun 2012), in about log n rounds.
    """
    after = np.searchsorted(start, stop, side="left")  # intervals i + 1 .. after[i] - 1 begin inside interval i
    index = np.arange(len(start))
    rivals = np.maximum(after - index - 1, 0)
    left = np.repeat(index, rivals)
    right = left + 1 + np.arange(len(left)) - np.repeat(np.cumsum(rivals) - rivals, rivals)
    taken = np.ones(len(start), dtype=bool)
    while len(left):
        first_wins = priority[left] < priority[right]
        beaten = np.zeros(len(start), dtype=bool)
        beaten[np.where(first_wins, right, left)] = True
        out = np.concatenate([right[~beaten[left]], left[~beaten[right]]])  # rivals of those that nobody beats
        taken[out] = False
        both = taken[left] & taken[right]
        left, right = left[both], right[both]
    return taken
