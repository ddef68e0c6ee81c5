"""Where token runs stand in rows: many runs and many rows in, every occurrence out.

All windows of one length are hashed at once (a polynomial modulo 2^64 of mixed tokens; Karp and Rabin 1987), most are
ruled out by a bitmap, and what is left is compared token by token. NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from pretrain_exp.plan.hashing import mix

_BASE = 0xD1342543DE82EF95  # odd, so that it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)
_BITS = 20
_BLOCK = 1 << 16  # tokens hashed at once: what is at work fits the processor's cache


class RunSearch:
    """The search for many runs: those of one length share a pass; a longer run than 32 tokens is sought by its head."""

    def __init__(self, runs: Sequence[np.ndarray]) -> None:
        self.runs = [np.ascontiguousarray(run, dtype=np.uint32) for run in runs]
        by_length: dict[int, list[int]] = {}
        for i, run in enumerate(self.runs):
            by_length.setdefault(min(len(run), 32), []).append(i)
        self.passes = [_Pass(length, which, self.runs) for length, which in sorted(by_length.items())]

    def __call__(self, rows: np.ndarray, slots: np.ndarray) -> dict[str, np.ndarray]:
        """Columns run, slot, column of every occurrence in rows uint32 (k, S) of slots (k,), by slot and column."""
        step = max(1, _BLOCK // max(rows.shape[1], 1))
        found = [
            (low + row, column, run)
            for low in range(0, len(rows), step)
            for one in self.passes
            for run, row, column in one.find(rows[low : low + step])
        ]
        table = np.array(sorted(set(found)), dtype=np.int64).reshape(-1, 3)
        return {"run": table[:, 2], "slot": slots[table[:, 0]], "column": table[:, 1]}


class _Pass:
    """All runs whose first `length` tokens are sought together."""

    def __init__(self, length: int, which: list[int], runs: list[np.ndarray]) -> None:
        self.length, self.runs = length, runs
        heads = np.stack([runs[i][:length] for i in which])
        self.hashes = window_hashes(heads, length)[:, 0]
        order = np.argsort(self.hashes, kind="stable")
        self.hashes, self.which = self.hashes[order], np.array(which)[order]
        self.bitmap = np.zeros(1 << _BITS, dtype=bool)
        self.bitmap[self.hashes >> np.uint64(64 - _BITS)] = True

    def find(self, rows: np.ndarray) -> list[tuple[int, int, int]]:
        """(run, row, column) of every occurrence."""
        if rows.shape[1] < self.length or not len(rows):
            return []
        hashes = window_hashes(rows, self.length)
        row, column = np.nonzero(self.bitmap[hashes >> np.uint64(64 - _BITS)])
        value = hashes[row, column]
        low, high = (np.searchsorted(self.hashes, value, side=side) for side in ("left", "right"))
        out = []
        for i in np.flatnonzero(high > low).tolist():
            text = rows[row[i]]
            for run in self.which[low[i] : high[i]].tolist():
                stop = column[i] + len(self.runs[run])
                if stop <= len(text) and np.array_equal(text[column[i] : stop], self.runs[run]):
                    out.append((run, int(row[i]), int(column[i])))
        return out


def window_hashes(rows: np.ndarray, length: int) -> np.ndarray:
    """A 64-bit hash of every `length` tokens in a row: (k, S) -> uint64 (k, S - length + 1).

    sum_j mix(token_j) * B^j over the window, brought to the power of its first token; all modulo 2^64.
    """
    mixed = mix(rows.reshape(-1).astype(np.uint64), 0).reshape(rows.shape)
    mixed *= _powers(_BASE, rows.shape[1])
    sums = np.zeros((rows.shape[0], rows.shape[1] + 1), dtype=np.uint64)
    np.cumsum(mixed, axis=1, out=sums[:, 1:])
    windows = sums[:, length:] - sums[:, :-length]
    windows *= _powers(_INVERSE, windows.shape[1])
    return mix(windows.reshape(-1), 1).reshape(windows.shape)  # high bits of a product of few terms are no hash yet


@lru_cache(maxsize=8)
def _powers(base: int, count: int) -> np.ndarray:
    """base^0 .. base^(count-1) modulo 2^64."""
    return np.cumprod(np.concatenate([[np.uint64(1)], np.full(max(count - 1, 0), base, np.uint64)]))[:count]
