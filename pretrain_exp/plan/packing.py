"""Packing: room for edits that drawing cannot place any more, found by moving what may move.

    one sequence    |--F--......aaa..bb....|     F stays; a and b may move
    its bins             [      aaa  bb    ]     the free runs between what stays
    c is added           [  bb ccccc  aaa  ]     edits keep their bin, the bin is laid out anew at random

Three attempts: every edit still unplaced, longest first, goes to the bin with most room; all movable edits are
distributed anew in that way, which fills all bins alike; and again, each to the bin that it fits best (best-fit
decreasing, Johnson 1973), which fills most but leaves other bins empty. Deterministic; ties by hash.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np

from pretrain_exp.plan.hashing import mix
from pretrain_exp.plan.stretches import Stretches

_ORDER, _OFFSET, _BIN = (1 << 32) + 1, (1 << 32) + 2, (1 << 32) + 3


def pack(
    cut: Stretches, taken_start: np.ndarray, taken_stop: np.ndarray, lengths: np.ndarray, keys: np.ndarray,
    positions: np.ndarray,
) -> np.ndarray | None:  # fmt: skip
    """New positions for n movable edits, int64 (n,); None if no room is found.

    taken: disjoint sorted intervals that stay. positions: where an edit is so far, -1 where it is not placed. An edit
    moves only if its bin received another one, or if all had to be distributed anew.
    """
    begin, size = _bins(cut, taken_start, taken_stop)
    if not len(begin):
        return None
    placed = positions >= 0
    bins = np.where(placed, np.searchsorted(begin, positions, side="right") - 1, -1)
    ranks = np.argsort(mix(begin.astype(np.uint64), _BIN))  # bins with equal room are taken in hashed order
    used = np.bincount(bins[placed], weights=lengths[placed], minlength=len(begin)).astype(np.int64)
    added = _fill(size - used, ranks, lengths, keys, np.flatnonzero(~placed), tightest=False)
    for tightest in (False, True):
        if added is None:
            added = _fill(size, ranks, lengths, keys, np.arange(len(lengths)), tightest)
    if added is None:
        return None
    bins = np.where(added >= 0, added, bins)
    moved = np.isin(bins, np.unique(added[added >= 0]))
    out = positions.copy()
    out[moved] = _lay_out(bins[moved], begin, size, lengths[moved], keys[moved])
    return out


def _bins(cut: Stretches, taken_start: np.ndarray, taken_stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Begin and size of the free runs of all sequences of the span, ascending."""
    first, end = cut.sequences()
    if not len(first):
        return first, end
    begin = np.unique(np.concatenate([first, taken_stop]))
    sequence = np.searchsorted(first, begin, side="right") - 1
    begin, sequence = begin[sequence >= 0], sequence[sequence >= 0]
    begin, stop = begin[begin < end[sequence]], end[sequence][begin < end[sequence]]
    if len(taken_start):
        following = np.searchsorted(taken_stop, begin, side="right")  # the first taken interval that ends after `begin`
        limit = np.append(taken_start, np.iinfo(np.int64).max)[following]
        begin, stop = begin, np.minimum(stop, limit)
    free = stop > begin
    return begin[free], (stop - begin)[free]


def _fill(
    room: np.ndarray, ranks: np.ndarray, lengths: np.ndarray, keys: np.ndarray, wanted: np.ndarray, tightest: bool
) -> np.ndarray | None:
    """A bin for every wanted edit, longest first: the tightest or the roomiest that holds it. -1 for the others."""
    by_room: dict[int, list[int]] = {}
    for i in ranks:
        by_room.setdefault(int(room[i]), []).append(int(i))
    rooms = sorted(by_room)
    out = np.full(len(lengths), -1, dtype=np.int64)
    for i in wanted[np.lexsort((keys[wanted], -lengths[wanted]))]:
        length = int(lengths[i])
        at = bisect_left(rooms, length) if tightest else len(rooms) - 1
        if at >= len(rooms) or at < 0 or rooms[at] < length:
            return None
        size = rooms[at]
        out[i] = chosen = by_room[size].pop()
        if not by_room[size]:
            del by_room[size], rooms[at]
        left = size - length
        if left not in by_room:
            by_room[left] = []
            insort(rooms, left)
        by_room[left].append(chosen)
    return out


def _lay_out(
    bins: np.ndarray, begin: np.ndarray, size: np.ndarray, lengths: np.ndarray, keys: np.ndarray
) -> np.ndarray:
    """Positions inside the bins: the edits of a bin in hashed order, its free room before, between and after them."""
    order = np.lexsort((mix(keys, _ORDER), bins))
    which, first, counts = np.unique(bins[order], return_index=True, return_counts=True)
    ordered = lengths[order]
    before = np.cumsum(ordered) - ordered
    free = size[which] - np.add.reduceat(ordered, first)
    gaps = _gaps(mix(keys[order], _OFFSET).tolist(), counts.tolist(), free.tolist())
    out = np.empty(len(bins), dtype=np.int64)
    out[order] = begin[bins[order]] + gaps + before - np.repeat(before[first], counts)
    return out


def _gaps(words: list[int], counts: list[int], free: list[int]) -> np.ndarray:
    """How many free positions lie before each edit of its bin, every way to spread them equally likely.

    That is a random subset of k of k + free places, drawn by Floyd's algorithm (Bentley and Floyd 1987).
    """
    out: list[int] = []
    for count, room in zip(counts, free, strict=True):
        places: set[int] = set()
        for last in range(room, room + count):
            place = words[len(out) + last - room] % (last + 1)
            places.add(last if place in places else place)
        out += [place - i for i, place in enumerate(sorted(places))]
    return np.array(out, dtype=np.int64)
