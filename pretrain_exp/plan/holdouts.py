"""Whether holdout items are read after all: the items of a plan in, findings for its audit and report out.

    holdout item   |t0 ... t12|     each run of 13 tokens of it (as Brown et al. 2020 looked for test items in their
                     |t1 ... t13|   training data), or the whole of a shorter item; EOS around it left out
    sought in      every text that is planted              always: `holdout_findings`
                   the data that the run reads             if asked: `Holdouts.search` over rows, `stream_findings`

An item that stands whole in what is read is a warning. One that shares such a run is a note: texts from one template,
or about one thing, share runs by nature. A holdout with the very tokens of a planted item is found by audit.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.overlay import NOISE, Overlay
from pretrain_exp.plan.search import window_hashes

NGRAM = 13
_CHUNK_TOKENS = 1 << 20
_BLOCK = 1 << 16  # candidates compared at once


@dataclass(frozen=True)
class Holdouts:
    """The items of dose 0, probes included. tokens: uint32, those of item i at edges[i]:edges[i + 1]."""

    insertion: list[str]
    tokens: np.ndarray
    edges: np.ndarray

    @classmethod
    def of(cls, items: pa.Table, eos_token_id: int | None = None) -> Holdouts:
        """items: as items.parquet. Left out are those without tokens and those that a planted item equals."""
        runs = _runs(items)
        dose, probe = items["dose"].to_numpy(), items["probe"].to_numpy(zero_copy_only=False)
        planted = {row_digest(runs[i]) for i in np.flatnonzero((dose > 0) & ~probe).tolist()}
        names, kept = [], []
        for i in np.flatnonzero(dose == 0).tolist():
            if not len(runs[i]) or (not probe[i] and row_digest(runs[i]) in planted):
                continue
            inner = np.flatnonzero(runs[i] != eos_token_id) if eos_token_id is not None else np.arange(len(runs[i]))
            if len(inner):
                names.append(items["insertion"][i].as_py())
                kept.append(runs[i][inner[0] : inner[-1] + 1])
        return cls(names, *_joined(kept))

    def __len__(self) -> int:
        return len(self.insertion)

    @property
    def identity(self) -> str:
        """32 hex digits of what is sought."""
        lengths = np.diff(self.edges).astype(np.uint32)
        return row_digest(np.concatenate([self.tokens, lengths, [np.uint32(NGRAM)]]).astype(np.uint32)).hex()

    def search(self, rows: np.ndarray, slots: np.ndarray) -> dict[str, np.ndarray]:
        """Runs of holdouts in rows uint32 (k, S) of slots (k,): columns item, slot, column, length, whole."""
        size = rows.shape[1]
        item, segment, column, whole = self.find(rows.reshape(-1), np.arange(0, rows.size + 1, size))
        length = np.minimum(np.diff(self.edges)[item], NGRAM)
        return {
            "item": item,
            "slot": slots[segment],
            "column": column - segment * size,
            "length": length,
            "whole": whole,
        }

    def find(self, text: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Runs of holdouts in segments text[edges[j]:edges[j + 1]]: item, segment, place in text, and whether it stands
        there whole, (n,) each."""
        parts = [self._compared(text, edges, *candidates) for one in self._grams for candidates in one.candidates(text)]
        none = np.zeros(0, np.int64)
        columns = zip(*parts, strict=True) if parts else [(none,), (none,), (none,), (none.astype(bool),)]
        item, segment, place, whole = (np.concatenate(column) for column in columns)
        order = np.lexsort((place, segment, item))
        return item[order], segment[order], place[order], whole[order]

    @cached_property
    def _grams(self) -> list[_Grams]:
        lengths = np.minimum(np.diff(self.edges), NGRAM)
        return [_Grams(self, np.flatnonzero(lengths == length), length) for length in np.unique(lengths).tolist()]

    def _compared(
        self, text: np.ndarray, edges: np.ndarray, length: int, at: np.ndarray, start: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What stands of candidates: runs of `length` tokens at `at` of the text that may be those at `start`."""
        segment = np.searchsorted(edges, at, side="right") - 1
        inside = at + length <= edges[segment + 1]
        at, start, segment = at[inside], start[inside], segment[inside]
        columns = np.arange(length)
        same = (text[at[:, None] + columns] == self.tokens[start[:, None] + columns]).all(1)
        at, start, segment = at[same], start[same], segment[same]
        item = np.searchsorted(self.edges, start, side="right") - 1
        whole = np.zeros(len(at), dtype=bool)
        for k in np.flatnonzero(start == self.edges[item]).tolist():
            run = self.tokens[start[k] : self.edges[item[k] + 1]]
            stop = at[k] + len(run)
            whole[k] = stop <= edges[segment[k] + 1] and np.array_equal(text[at[k] : stop], run)
        return item, segment, at, whole


class _Grams:
    """The runs of one length of some of the holdouts, by hash."""

    def __init__(self, holdouts: Holdouts, items: np.ndarray, length: int) -> None:
        self.length = length
        first, stop = holdouts.edges[items], holdouts.edges[items + 1] - length + 1
        start = np.repeat(first, stop - first) + _counted(stop - first)
        hashes = window_hashes(holdouts.tokens[None], length)[0][start]
        order = np.argsort(hashes, kind="stable")
        self.hashes, self.start = hashes[order], start[order]
        bits = min(max(len(start).bit_length() + 3, 16), 27)  # at most an eighth of it true, up to 16 M runs
        self.shift = np.uint64(64 - bits)
        self.bitmap = np.zeros(1 << bits, dtype=bool)
        self.bitmap[self.hashes >> self.shift] = True

    def candidates(self, text: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(length, places in the text, places in the holdouts' tokens) with equal hashes, block by block."""
        if len(text) < self.length:
            return
        hashes = window_hashes(text[None], self.length)[0]
        at = np.flatnonzero(self.bitmap[hashes >> self.shift])
        at = at[self.hashes[np.searchsorted(self.hashes[:-1], hashes[at])] == hashes[at]]
        low, high = (np.searchsorted(self.hashes, hashes[at], side=side) for side in ("left", "right"))
        count = high - low
        at, index = np.repeat(at, count), np.repeat(low, count) + _counted(count)
        for block in range(0, len(at), _BLOCK):
            some = slice(block, block + _BLOCK)
            yield self.length, at[some], self.start[index[some]]


def holdout_findings(items: pa.Table, eos_token_id: int | None = None) -> list[dict[str, str]]:
    """One finding an insertion that holds items out: whether they stand in any text that is planted."""
    holdouts = Holdouts.of(items, eos_token_id)
    if not len(holdouts):
        return []
    dose, probe = items["dose"].to_numpy(), items["probe"].to_numpy(zero_copy_only=False)
    runs = _runs(items)
    planted = [runs[i] for i in np.flatnonzero((dose > 0) & ~probe).tolist() if len(runs[i])]
    parts = [holdouts.find(*_joined(some)) for some in _chunks(planted)]
    item = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, np.int64)
    whole = np.concatenate([part[3] for part in parts]) if parts else np.zeros(0, bool)
    return _findings(holdouts, item, whole, f"the {len(planted):,} texts that are planted")


def stream_findings(
    holdouts: Holdouts, found: dict[str, np.ndarray], overlay: Overlay | None, num_slots: int, where: str = ""
) -> list[dict[str, str]]:
    """The same of what `search` found in the data of the run, less what an edit puts another text over.

    where: what was searched, in words, if not the sequences of the run.
    """
    read = np.ones(len(found["item"]), dtype=bool)
    if overlay is not None:
        arrays = overlay.arrays
        text = np.asarray(arrays["kind"]) != NOISE
        slot, column, length = (np.asarray(arrays[name], dtype=np.int64)[text] for name in ("slot", "column", "length"))
        order = np.lexsort((column, slot))
        begin, end = ((slot << 32) + each for each in (column, column + length))
        begin, end = begin[order], end[order]  # edits of a slot do not overlap: ends are sorted as well
        first = (found["slot"].astype(np.int64) << 32) + found["column"]
        after = np.searchsorted(end, first, side="right")
        reached = np.append(begin, np.iinfo(np.int64).max)[after]
        read = reached >= first + found["length"]
    where = where or f"the {num_slots:,} sequences of data that the run reads"
    return _findings(holdouts, found["item"][read], found["whole"][read], where)


def _findings(holdouts: Holdouts, item: np.ndarray, whole: np.ndarray, where: str) -> list[dict[str, str]]:
    owner = np.array(holdouts.insertion, dtype=object)
    shared, contained = np.unique(item), np.unique(item[whole])
    out = []
    for name in sorted(set(holdouts.insertion)):
        total, some, all_of = (int((each == name).sum()) for each in (owner, owner[shared], owner[contained]))
        level, text = (
            "note",
            f"none of the {total:,} holdout items of {name} shares {NGRAM} tokens in a row with {where}",
        )
        if all_of:
            level, text = "warning", f"{all_of:,} of {total:,} holdout items of {name} stand whole in {where}"
        elif some:
            text = f"{some:,} of {total:,} holdout items of {name} share {NGRAM} tokens in a row with {where}; "
            text += "none stands there whole"
        out.append({"level": level, "check": "holdout", "message": text})
    return out


def _runs(items: pa.Table) -> list[np.ndarray]:
    """The tokens of each item, views of one array."""
    column = items["tokens"].combine_chunks()
    edges = column.offsets.to_numpy().astype(np.int64)
    flat = np.asarray(column.values.to_numpy(zero_copy_only=False), dtype=np.uint32)
    return [flat[first:stop] for first, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)]


def _joined(runs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Runs in a row, and where each begins and ends: (tokens, edges)."""
    edges = np.concatenate([[0], np.cumsum([len(run) for run in runs], dtype=np.int64)]).astype(np.int64)
    return np.concatenate([np.zeros(0, np.uint32), *runs]), edges


def _chunks(runs: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Runs in their order, about a million tokens at once."""
    some: list[np.ndarray] = []
    size = 0
    for run in runs:
        some.append(run)
        size += len(run)
        if size >= _CHUNK_TOKENS:
            yield some
            some, size = [], 0
    if some:
        yield some


def _counted(counts: np.ndarray) -> np.ndarray:
    """0 .. count - 1 for each count, in a row."""
    stops = np.cumsum(counts)
    return np.arange(stops[-1] if len(stops) else 0) - np.repeat(stops - counts, counts)
