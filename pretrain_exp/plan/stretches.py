"""Stretches: the places of a span where an edit may begin, counted exactly and without listing them.

A span of positions is cut into runs of equally long sequences; an edit crosses neither the end of a sequence nor that
of the span.

    span        |-----|---------|---------|---------|---|          a partial first and last sequence count as well
    stretches   1 x 5   3 x 9                         1 x 3        (start, count, size) each

In: a span and the phases. Out: how many starts a length has, the i-th of them, and the inverse. Vectorised over edits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pretrain_exp.data.phases import Phases


@dataclass(frozen=True)
class Stretches:
    """start: first position; count: sequences; size: tokens of each. Each int64 (k,), ascending; k is mostly 1."""

    start: np.ndarray
    count: np.ndarray
    size: np.ndarray

    @property
    def tokens(self) -> int:
        """Tokens of the span."""
        return int((self.count * self.size).sum())

    @property
    def longest(self) -> int:
        """The longest edit that has a place here; 0 in an empty span."""
        return int(self.size.max(initial=0))

    def starts(self, lengths: np.ndarray) -> np.ndarray:
        """How many valid starts each length has, int64 (n,)."""
        return self._starts_by_stretch(lengths).sum(axis=0)

    def position(self, index: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The index-th valid start of each length, 0 <= index < starts(length), as a position, int64 (n,)."""
        out = np.empty(len(index), dtype=np.int64)
        rest = index.astype(np.int64)
        unset = np.ones(len(index), dtype=bool)
        for i, available in enumerate(self._starts_by_stretch(lengths)):
            here = unset & (rest < available)
            if here.all():  # the whole of a large run lies in one stretch
                return self._in_stretch(i, rest, lengths)
            out[here] = self._in_stretch(i, rest[here], lengths[here])
            unset &= ~here
            rest -= available
        return out

    def _in_stretch(self, i: int, index: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        sequence, column = np.divmod(index, self.size[i] - lengths + 1)
        sequence *= self.size[i]
        sequence += column
        sequence += self.start[i]
        return sequence

    def index(self, positions: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The inverse of `position`."""
        which = np.searchsorted(self.start, positions, side="right") - 1
        available = self._starts_by_stretch(lengths)
        before = np.cumsum(available, axis=0) - available
        size = self.size[which]
        sequence, column = np.divmod(positions - self.start[which], size)
        return before[which, np.arange(len(positions))] + sequence * (size - lengths + 1) + column

    def sequences(self) -> tuple[np.ndarray, np.ndarray]:
        """First position and end of every (partial) sequence of the span, int64 (m,) each."""
        starts = [
            start + size * np.arange(count)
            for start, count, size in zip(self.start, self.count, self.size, strict=True)
        ]
        first = np.concatenate(starts) if starts else np.zeros(0, dtype=np.int64)
        return first, first + np.repeat(self.size, self.count)

    def _starts_by_stretch(self, lengths: np.ndarray) -> np.ndarray:
        return self.count[:, None] * np.maximum(self.size[:, None] - lengths[None, :] + 1, 0)


def stretches(span: tuple[int, int], phases: Phases) -> Stretches:
    """The stretches of the positions [first, stop)."""
    rows: list[tuple[int, int, int]] = []
    edges = [phases.position_of_step(phase.first_step) for phase in phases.phases] + [span[1]]
    for phase, begin, end in zip(phases.phases, edges, edges[1:], strict=False):
        low, high = max(span[0], begin), min(span[1], end)
        if low < high:
            rows += _cut(low, high, phases, phase.sequence_length)
    merged: list[tuple[int, int, int]] = []
    for start, count, size in rows:
        previous = merged[-1] if merged else None
        if previous and previous[2] == size and previous[0] + previous[1] * size == start:
            merged[-1] = (previous[0], previous[1] + count, size)  # a batch ramp does not change the sequences
        else:
            merged.append((start, count, size))
    table = np.array(merged, dtype=np.int64).reshape(-1, 3)
    return Stretches(table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy())


def _cut(low: int, high: int, phases: Phases, size: int) -> list[tuple[int, int, int]]:
    """A span inside one phase: partial first sequence, whole sequences, partial last sequence."""
    slots, columns = phases.locate(np.array([low, high - 1]))
    first, last = int(slots[0]), int(slots[1])
    head, tail = int(columns[0]), int(columns[1]) + 1
    if first == last:
        return [(low, 1, high - low)]
    rows = []
    if head:
        rows.append((low, 1, size - head))
        first += 1
    whole = last - first + (tail == size)
    if whole:
        rows.append((int(phases.position(np.array([first]), np.array([0]))[0]), whole, size))
    if tail < size:
        rows.append((high - tail, 1, tail))
    return rows
