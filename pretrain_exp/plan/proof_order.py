"""Data order and positions once more, for the proof: from their definition, with no code in common with data/.

In: the JSON of a data order (`kind: shuffled`) and of the phases. Out: the tokens that given slots read before any
edit, many at once; and where each position of the run lies.
The permutation is the one that the top of data/permutation.py defines, here over arrays: keys by SplitMix64, a Feistel
network over Z_a x Z_b, cycle walking.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np

from pretrain_exp.errors import UserError

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class PlainSteps:
    """Steps 0 to `stop` one by one, from rows of [first step, batch size, sequence length]; arrays int64 (stop,)."""

    def __init__(self, rows: list[list[int]], stop: int) -> None:
        edges = [*(row[0] for row in rows[1:]), stop]
        steps = [max(0, min(edge, stop) - row[0]) for row, edge in zip(rows, edges, strict=True)]
        self.size = np.repeat(np.array([row[1] for row in rows], dtype=np.int64), steps)
        self.length = np.repeat(np.array([row[2] for row in rows], dtype=np.int64), steps)
        self.slot = np.cumsum(self.size) - self.size  # the first of each step
        tokens = self.size * self.length
        self.position = np.cumsum(tokens) - tokens  # the first of each step

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The step, row and column of each position; a step of `stop` or more counts as the last."""
        step = np.searchsorted(self.position, positions, side="right") - 1
        inside = positions - self.position[step]
        return step, inside // self.length[step], inside % self.length[step]

    def start(self, slot: int) -> int:
        """The position of the slot's first token."""
        step = int(np.searchsorted(self.slot, slot, side="right")) - 1
        return int(self.position[step] + (slot - self.slot[step]) * self.length[step])


class PlainOrder:
    """Reads rows of a stream by slot, from the files that the JSON names."""

    def __init__(self, order: dict[str, Any]) -> None:
        if order.get("kind") != "shuffled":
            raise UserError(
                "the proof cannot evaluate this kind of data order",
                value=order.get("kind"),
                fix="known kinds: shuffled",
            )
        self.sequence_length: int = order["sequence_length"]
        self.seed: int | None = order["seed"]
        files = order["files"]["files"]
        self._files = [_flat(file) for file in files]
        self._edges = np.cumsum([0] + [file["num_tokens"] for file in files])
        self.num_sequences = int(self._edges[-1]) // self.sequence_length

    def rows(self, slots: np.ndarray) -> np.ndarray:
        """The tokens of the slots: int64 (n,) -> uint32 (n, sequence_length)."""
        epoch = slots // self.num_sequences
        sequence = slots - epoch * self.num_sequences
        if self.seed is not None:
            for each in set(epoch.tolist()):
                mine = epoch == each
                sequence[mine] = permuted(sequence[mine], self.num_sequences, self.seed, each)
        token = sequence[:, None] * self.sequence_length + np.arange(self.sequence_length)
        which = np.searchsorted(self._edges, token, side="right") - 1
        out = np.empty(token.shape, dtype=np.uint32)
        for i in set(which.ravel().tolist()):
            here = which == i
            out[here] = self._files[i][token[here] - self._edges[i]]
        return out


def permuted(index: np.ndarray, n: int, seed: int, epoch: int) -> np.ndarray:
    """The images of `index` under the permutation of [0, n) of this seed and epoch; int64 (k,) -> int64 (k,)."""
    a = next(a for a in (isqrt(n), isqrt(n) + 1) if a * a >= n)
    b = (n + a - 1) // a
    key = _splitmix(_splitmix(seed + _GOLDEN) + (epoch + 1) * _GOLDEN)
    keys = [_splitmix(key + i * _GOLDEN) for i in range(1, 17 if n < 1024 else 9)]
    value = index.astype(np.uint64)
    todo = np.ones(len(value), dtype=bool)
    while todo.any():
        high, low = np.divmod(value[todo], np.uint64(b))
        for i, word in enumerate(keys):
            if i % 2 == 0:
                high = (high + _scramble(low, word)) % np.uint64(a)
            else:
                low = (low + _scramble(high, word)) % np.uint64(b)
        value[todo] = high * np.uint64(b) + low
        todo &= value >= np.uint64(n)
    return value.astype(np.int64)


def _splitmix(z: int) -> int:
    z &= _WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
    return z ^ (z >> 31)


def _scramble(values: np.ndarray, key: int) -> np.ndarray:
    mixed = (values ^ np.uint64(key)) * np.uint64(0xFF51AFD7ED558CCD)
    mixed ^= mixed >> np.uint64(32)
    return (mixed * np.uint64(0xC4CEB9FE1A85EC53)) >> np.uint64(16)


def _flat(file: dict[str, Any]) -> np.ndarray:
    dtype = np.dtype(file["dtype"]).newbyteorder("<")
    if not file["num_tokens"]:
        return np.zeros(0, dtype=dtype)
    return np.memmap(file["path"], dtype, "r", file["offset_bytes"], (file["num_tokens"],))
