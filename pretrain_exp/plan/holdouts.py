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
import pyarrow.compute as pc

from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.items import Items, runs_of, tokens_of
from pretrain_exp.plan.overlay import NOISE, Overlay
from pretrain_exp.plan.search import window_hashes

NGRAM = 13
_BLOCK = 1 << 16  # windows hashed, and candidates compared, at once


@dataclass(frozen=True)
class Holdouts:
    """The items of dose 0, probes included. tokens: uint32, those of item i at edges[i]:edges[i + 1]."""

    insertion: list[str]
    tokens: np.ndarray
    edges: np.ndarray

    @classmethod
    def of(cls, items: Items, eos_token_id: int | None = None) -> Holdouts:
        """Left out are those without tokens and those that a planted item equals."""
        found: list[tuple[str, bool, np.ndarray]] = []
        for batch in items.batches("insertion", "dose", "probe", "tokens"):
            held = batch.filter(pc.equal(batch["dose"], 0))
            found += zip(held["insertion"].to_pylist(), held["probe"].to_pylist(), runs_of(held), strict=True)
        planted = _planted_among(items, [run for _, probe, run in found if not probe])
        names, kept = [], []
        for name, probe, run in found:
            if not len(run) or (not probe and row_digest(run) in planted):
                continue
            inner = np.flatnonzero(run != eos_token_id) if eos_token_id is not None else np.arange(len(run))
            if len(inner):
                names.append(name)
                kept.append(run[inner[0] : inner[-1] + 1])
        edges = np.cumsum([0] + [len(run) for run in kept], dtype=np.int64)
        return cls(names, np.concatenate([np.zeros(0, np.uint32), *kept]), edges)

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
        mine = np.isin(np.arange(len(holdouts)), items)
        parts = []
        for begin, found in _hashed(holdouts.tokens, length):
            at = begin + np.arange(len(found))
            item = np.searchsorted(holdouts.edges, at, side="right") - 1
            whole = mine[item] & (at + length <= holdouts.edges[item + 1])
            parts.append((found[whole], at[whole].astype(np.uint32)))
        hashes, start = (np.concatenate(column) for column in zip(*parts, strict=True))
        del parts
        order = np.argsort(hashes, kind="stable")
        self.hashes, self.start = hashes[order], start[order]
        bits = min(max(len(start).bit_length() + 3, 16), 27)  # at most an eighth of each true, up to 16 M runs
        self.shift, self.mask = np.uint64(64 - bits), np.uint64((1 << bits) - 1)
        self.high = _bitmap(self.hashes >> self.shift, bits)
        self.low = _bitmap(self.hashes & self.mask, bits)

    def candidates(self, text: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(length, places in the text, places in the holdouts' tokens) with equal hashes, block by block."""
        for begin, hashes in _hashed(text, self.length):
            at = np.flatnonzero(_marked(self.high, hashes >> self.shift))
            hashes = hashes[at]
            both = np.flatnonzero(_marked(self.low, hashes & self.mask))
            at, hashes = at[both], hashes[both]
            low = np.searchsorted(self.hashes[:-1], hashes)
            same = self.hashes[low] == hashes
            at, low, hashes = at[same], low[same], hashes[same]
            count = np.searchsorted(self.hashes, hashes, side="right") - low
            at, index = np.repeat(begin + at, count), np.repeat(low, count) + _counted(count)
            for block in range(0, len(at), _BLOCK):
                some = slice(block, block + _BLOCK)
                yield self.length, at[some], self.start[index[some]].astype(np.int64)


def _bitmap(index: np.ndarray, bits: int) -> np.ndarray:
    """2^bits bits, those at the indices set, eight a byte."""
    found = np.zeros(1 << bits, dtype=bool)
    found[index] = True
    return np.packbits(found, bitorder="little")


def _marked(bitmap: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The bits at the indices, not 0 where set."""
    return (bitmap[index >> np.uint64(3)] >> (index.astype(np.uint8) & np.uint8(7))) & np.uint8(1)


def _hashed(text: np.ndarray, length: int) -> Iterator[tuple[int, np.ndarray]]:
    """Begin and the hashes of all windows of the text, block by block: what is at work fits the processor's cache."""
    for begin in range(0, len(text) - length + 1, _BLOCK):
        yield begin, window_hashes(text[None, begin : begin + _BLOCK + length - 1], length)[0]


def holdout_findings(items: Items, eos_token_id: int | None = None) -> list[dict[str, str]]:
    """One finding an insertion that holds items out: whether they stand in any text that is planted."""
    holdouts = Holdouts.of(items, eos_token_id)
    if not len(holdouts):
        return []
    count, parts = 0, [(np.zeros(0, np.int64), np.zeros(0, bool))]
    for batch in _planted(items):
        tokens, edges = tokens_of(batch)
        count += int((np.diff(edges) > 0).sum())
        item, _, _, whole = holdouts.find(tokens, edges)
        parts.append((item, whole))
    item, whole = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _findings(holdouts, item, whole, f"the {count:,} texts that are planted")


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


def _planted(items: Items) -> Iterator[pa.Table]:
    """The tokens of the items that are planted, in batches."""
    for batch in items.batches("dose", "probe", "tokens"):
        yield batch.filter(pc.and_not(pc.greater(batch["dose"], 0), batch["probe"])).select(["tokens"])


def _planted_among(items: Items, runs: list[np.ndarray]) -> set[bytes]:
    """The digests of those of the runs that a planted item equals."""
    sought, sizes = {row_digest(run) for run in runs}, {len(run) for run in runs}
    found: set[bytes] = set()
    for batch in _planted(items) if runs else ():
        found |= sought & {row_digest(run) for run in runs_of(batch) if len(run) in sizes}
    return found


def _counted(counts: np.ndarray) -> np.ndarray:
    """0 .. count - 1 for each count, in a row."""
    stops = np.cumsum(counts)
    return np.arange(stops[-1] if len(stops) else 0) - np.repeat(stops - counts, counts)
