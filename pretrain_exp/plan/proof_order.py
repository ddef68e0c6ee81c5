"""Data order and positions once more, for the proof: from their definition, with no code in common with data/.

In: the JSON of a data order and of the phases. Out: the tokens that given slots read before any edit, many at once; and
where each position of the run lies.

    shuffled    the stream in sequences of S, permuted anew every epoch: the permutation that the top of
                data/permutation.py defines, here over arrays (SplitMix64 keys, Feistel over Z_a x Z_b, cycle walking)
    olmo2       every file in sequences of S, its remainder left out; all of them shuffled by numpy's PCG64 of
                seed + epoch, epoch from 0; an epoch ends with its last whole batch
    olmo_core   likewise, groups of max_target_sequence_length shuffled and then taken apart, epoch from 1
    window      another order, the slots of one window permuted as in `shuffled`, epoch 0
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np

from pretrain_exp.errors import UserError

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
Starts = Callable[[np.ndarray], np.ndarray]  # slots int64 (n,) -> the stream's offset of their first tokens, int64 (n,)


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

    def cut(self, position: int, length: int) -> list[tuple[int, int, int, int]]:
        """(step, row, column, length) of each part of a span that lies in one sequence."""
        out = []
        while length > 0:
            step, row, column = (int(each[0]) for each in self.locate(np.array([position])))
            part = min(length, int(self.length[step]) - column)
            out.append((step, row, column, part))
            position, length = position + part, length - part
        return out

    def start(self, slot: int) -> int:
        """The position of the slot's first token."""
        step = int(np.searchsorted(self.slot, slot, side="right")) - 1
        return int(self.position[step] + (slot - self.slot[step]) * self.length[step])


class PlainOrder:
    """Reads rows of a stream by slot, from the files that the JSON names."""

    def __init__(self, order: dict[str, Any]) -> None:
        kinds = {"shuffled": _shuffled, "olmo2": _olmo2, "olmo_core": _olmo_core, "window": _window}
        if order.get("kind") not in kinds:
            raise UserError(
                "the proof cannot evaluate this kind of data order",
                value=order.get("kind"),
                fix=f"known kinds: {', '.join(kinds)}",
            )
        self._starts = kinds[order["kind"]](order)
        while order["kind"] == "window":
            order = order["order"]
        self.sequence_length: int = order["sequence_length"]
        self._listed = order["files"]["files"]
        self._files = [_flat(file) for file in self._listed]
        self._come = [_come(file) for file in self._listed]
        self._edges = np.cumsum([0] + [file["num_tokens"] for file in self._listed])

    def rows(self, slots: np.ndarray) -> np.ndarray:
        """The tokens of the slots: int64 (n,) -> uint32 (n, sequence_length). UserError where some have not come."""
        token = self._starts(slots)[:, None] + np.arange(self.sequence_length)
        which = np.searchsorted(self._edges, token, side="right") - 1
        out = np.empty(token.shape, dtype=np.uint32)
        for i in set(which.ravel().tolist()):
            here = which == i
            inside = token[here] - self._edges[i]
            come = self._come[i]
            if come is not None:
                span = np.searchsorted(come[:, 0], inside, side="right") - 1
                if (span < 0).any() or (inside >= come[span, 1]).any():
                    name = self._listed[i]["name"]
                    raise UserError(f"a row that should have been read lies in a part of {name} that has not come")
            out[here] = self._files[i][inside]
        return out


def _shuffled(order: dict[str, Any]) -> Starts:
    length, seed = order["sequence_length"], order["seed"]
    count = sum(file["num_tokens"] for file in order["files"]["files"]) // length

    def starts(slots: np.ndarray) -> np.ndarray:
        epoch, sequence = np.divmod(slots, count)
        if seed is not None:
            for each in set(epoch.tolist()):
                mine = epoch == each
                sequence[mine] = permuted(sequence[mine], count, seed, each)
        return sequence * length

    return starts


def _olmo2(order: dict[str, Any]) -> Starts:
    return _by_file(order, group=1, first_epoch=0)


def _olmo_core(order: dict[str, Any]) -> Starts:
    return _by_file(order, group=order["max_target_sequence_length"] // order["sequence_length"], first_epoch=1)


def _by_file(order: dict[str, Any], group: int, first_epoch: int) -> Starts:
    """Groups of `group` sequences that begin anew in each file, shuffled as a whole."""
    length, seed, batch = order["sequence_length"], order["seed"], order["batch_size"]
    tokens = np.array([file["num_tokens"] for file in order["files"]["files"]], dtype=np.int64)
    groups = tokens // (group * length)
    before, offset = np.cumsum(groups) - groups, np.cumsum(tokens) - tokens
    an_epoch = int(groups.sum()) * group
    an_epoch -= an_epoch % batch

    def starts(slots: np.ndarray) -> np.ndarray:
        epoch, place = slots // an_epoch, slots % an_epoch
        drawn = np.empty_like(slots)
        for each in np.unique(epoch).tolist():
            mine = epoch == each
            drawn[mine] = _numpy_shuffle(int(groups.sum()), seed + first_epoch + each)[place[mine] // group]
        file = np.searchsorted(before, drawn, side="right") - 1  # of equals the last: files without a group hold none
        return offset[file] + ((drawn - before[file]) * group + place % group) * length

    return starts


@lru_cache(maxsize=2)
def _numpy_shuffle(count: int, seed: int) -> np.ndarray:
    """0 ... count - 1, shuffled in 32 bits, as both of OLMo's loaders do; a second epoch may begin in a window."""
    numbers = np.arange(count, dtype=np.uint32)
    np.random.default_rng(seed).shuffle(numbers)  # a generator of PCG64
    return numbers


def _window(order: dict[str, Any]) -> Starts:
    first, last, inner = order["first_slot"], order["last_slot"], PlainOrder(order["order"])._starts

    def starts(slots: np.ndarray) -> np.ndarray:
        slots = slots.copy()
        mine = (slots >= first) & (slots < last)
        slots[mine] = first + permuted(slots[mine] - first, last - first, order["seed"], 0)
        return inner(slots)

    return starts


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


def _come(file: dict[str, Any]) -> np.ndarray | None:
    """Of a file that comes in parts, the spans of tokens that are here, int64 (n, 2), ascending; None: it is whole."""
    if not file.get("coverage") or not Path(file["coverage"]).exists():
        return None
    rows = [row[:2] for row in json.loads(Path(file["coverage"]).read_text())["spans"]]
    spans = np.array(sorted(rows), dtype=np.int64).reshape(-1, 2)
    apart = np.flatnonzero(spans[1:, 0] > spans[:-1, 1])  # blocks beside each other are one span
    if not len(spans):
        return spans
    begins = spans[np.concatenate([[0], apart + 1]), 0] - file["offset_bytes"]
    ends = spans[np.concatenate([apart, [len(spans) - 1]]), 1] - file["offset_bytes"]
    size = np.dtype(file["dtype"]).itemsize
    return np.stack([-(-begins // size), ends // size], axis=1)
