"""The overlay: what a run changes in its training data, as a folder of flat arrays that every rank maps and shares.

    overlay/  meta.json   slot.npy column.npy length.npy kind.npy ref.npy source_column.npy sigma.npy digest.npy
              pool.npy (each item's tokens once, whatever its copies)   buckets.npy (where a slot's operations begin)

In: a slot and the tokens that the data order gives for it. Out: those tokens themselves where nothing is planted (half
a microsecond), else an edited copy. Operations are sorted by (slot, column) and lie inside one slot each:

    kind    what the span becomes                    ref                     source_column
    tokens  pool[ref : ref + length]                 offset in the pool      -
    base    read(ref)[source_column : + length]      another slot            column there
    noise   tokens unchanged, embeddings + noise     -                       -              (sigma)

NumPy only: workers of any environment import this. overlay_writer.py writes the folder.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import numpy as np

from pretrain_exp.errors import UserError

SCHEMA = 1
TOKENS, BASE, NOISE = 0, 1, 2
COLUMNS: dict[str, np.dtype] = {
    "slot": np.dtype("<i8"),
    "column": np.dtype("<i4"),
    "length": np.dtype("<i4"),
    "kind": np.dtype("u1"),
    "ref": np.dtype("<i8"),
    "source_column": np.dtype("<i4"),
    "sigma": np.dtype("<f4"),
    "digest": np.dtype("V16"),
}
_PREFIX_DTYPE = np.dtype([("slot", "<i8"), ("column", "<i4"), ("length", "<i4"), ("kind", "u1"), ("digest", "V16")])
_PREFIX_CHUNK = 1 << 16  # operations hashed at once: 2 MB


class Overlay:
    """An opened overlay folder. Read-only and cheap to open; `len` is its number of operations."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.meta = _read_meta(self.folder)
        self.sequence_length: int = self.meta["sequence_length"]
        self.seed: int = self.meta["seed"]
        # ndarray views: indexing np.memmap itself costs a microsecond more
        self.arrays = {name: self._map(name) for name in (*COLUMNS, "pool", "buckets")}
        self._pool = self.arrays["pool"]
        # memoryviews hand out Python ints without NumPy scalars in between
        self._slot, self._column, self._length, self._kind, self._ref, self._source, self._buckets = (
            memoryview(self.arrays[name].data)
            for name in ("slot", "column", "length", "kind", "ref", "source_column", "buckets")
        )
        self._count = len(self._slot)
        self._hashed: dict[int, str] = {}  # prefix digests by number of operations
        self._first, self._shift, self._num_buckets = (
            self.meta["first_slot"],
            self.meta["shift"],
            len(self._buckets) - 1,
        )

    @classmethod
    def open(cls, folder: Path | str) -> Overlay:
        """Maps the folder. UserError where there is none or where it was written by another schema."""
        return cls(folder)

    def __reduce__(self) -> tuple[type[Overlay], tuple[Path]]:
        return (Overlay, (self.folder,))  # a loader process of its own opens the files anew

    def __len__(self) -> int:
        return self._count

    def _map(self, name: str) -> np.ndarray:
        array = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return array.view(np.ndarray)

    def _find(self, slot: int) -> int:
        """Index of the first operation of the slot, -1 where it has none."""
        bucket = (slot - self._first) >> self._shift
        if bucket < 0 or bucket >= self._num_buckets:
            return -1
        low, high = self._buckets[bucket], self._buckets[bucket + 1]
        if low == high:
            return -1
        i = bisect_left(self._slot, slot, low, high)
        return i if i < high and self._slot[i] == slot else -1

    def touches_any(self, first: int, stop: int) -> bool:
        """Whether any operation lies in slots [first, stop)."""
        at = bisect_left(self._slot, first)
        return at < len(self._slot) and self._slot[at] < stop

    def touches(self, slot: int) -> bool:
        """Whether any operation, noise included, lies in the slot."""
        return self._find(slot) >= 0

    def apply(self, slot: int, tokens: np.ndarray, read: Callable[[int], np.ndarray] | None = None) -> np.ndarray:
        """The tokens of the slot as the run reads them: `tokens` itself if nothing is planted there, else a copy.

        tokens: integers (S,), at least 32 bits wide. read: the data order's `read`, needed by `base` operations.
        ValueError where the tokens are too few or too narrow, or where a `base` operation has no `read`.
        """
        bucket = (slot - self._first) >> self._shift
        if bucket < 0 or bucket >= self._num_buckets:
            return tokens
        low, high = self._buckets[bucket], self._buckets[bucket + 1]
        if low == high:
            return tokens
        slots = self._slot
        i = bisect_left(slots, slot, low, high)
        if i == high or slots[i] != slot:
            return tokens
        if tokens.itemsize < 4:
            raise ValueError(f"slot {slot}: planted tokens need 32 bits, the row has {tokens.dtype}")
        edited = tokens.copy()
        size = tokens.shape[0]
        while i < high and slots[i] == slot:
            kind, ref, length, column = self._kind[i], self._ref[i], self._length[i], self._column[i]
            if column + length > size:
                raise ValueError(f"slot {slot}: an edit ends at column {column + length}, the row has {size} tokens")
            if kind == TOKENS:
                edited[column : column + length] = self._pool[ref : ref + length]
            elif kind == BASE:
                if read is None:
                    raise ValueError(f"slot {slot} takes tokens from slot {ref}: `read` is needed")
                source = self._source[i]
                edited[column : column + length] = read(ref)[source : source + length]
            i += 1
        return edited

    def noise(self, slot: int) -> list[tuple[int, int, float]]:
        """(column, length, sigma) of every span of the slot whose embeddings get noise; see `noise_values`."""
        i, found = self._find(slot), []
        while 0 <= i < self._count and self._slot[i] == slot:
            if self._kind[i] == NOISE:
                found.append((self._column[i], self._length[i], float(self.arrays["sigma"][i])))
            i += 1
        return found

    def first_slot(self) -> int | None:
        """The first slot that is touched; None in an empty overlay."""
        return self._slot[0] if self._count else None

    def last_slot(self) -> int | None:
        """The last slot that is touched; None in an empty overlay."""
        return self._slot[self._count - 1] if self._count else None

    def prefix_digest(self, slot: int) -> str:
        """32 hex digits over all operations before `slot`: what they do and where, never how the files hold it.

        Equal for two overlays that do the same before `slot`, whatever follows and whatever else their pools hold. The
        empty string where there is none, which is what a run without a plan has.
        """
        stop = bisect_left(self._slot, slot)
        if stop == 0:
            return ""
        if stop not in self._hashed:
            digest = blake2b(digest_size=16)
            for low in range(0, stop, _PREFIX_CHUNK):
                high = min(low + _PREFIX_CHUNK, stop)
                block = np.empty(high - low, dtype=_PREFIX_DTYPE)
                for name in _PREFIX_DTYPE.names or ():
                    block[name] = self.arrays[name][low:high]
                digest.update(block.data)
            self._hashed[stop] = digest.hexdigest()
        return self._hashed[stop]


def noise_values(seed: int, slot: int, column: int, length: int, dim: int) -> np.ndarray:
    """Standard normal noise for the embeddings of one span, float32 (length, dim), regenerable by anyone anywhere.

    Generator: Philox4x64-10 (Salmon et al. 2011) whose 128-bit key is blake2b-128 of (seed, slot, column) as
    little-endian int64; its raw words, in pairs, through Box and Muller (1958). Raw words are the same in every NumPy,
    unlike the streams of `Generator`. Multiply by the operation's sigma.
    """
    key = blake2b(np.array([seed, slot, column], dtype="<i8").data, digest_size=16).digest()
    philox = np.random.Philox(key=np.frombuffer(key, dtype="<u8").astype(np.uint64))
    pairs = (length * dim + 1) // 2
    raw = np.asarray(philox.random_raw(2 * pairs)).reshape(2, pairs) >> np.uint64(11)
    radius = np.sqrt(-2.0 * np.log((raw[0] + 1.0) * 2.0**-53))
    angle = raw[1] * (2.0 * np.pi * 2.0**-53)
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return normal[: length * dim].astype(np.float32).reshape(length, dim)


def _read_meta(folder: Path) -> dict:
    try:
        meta = json.loads((folder / "meta.json").read_text())
    except FileNotFoundError:
        raise UserError(
            "there is no overlay in this folder", value=str(folder), fix="compile the plan again: pretrain-exp plan"
        ) from None
    if meta.get("schema") != SCHEMA:
        raise UserError(
            f"the overlay has schema {meta.get('schema')}, this version reads schema {SCHEMA}",
            value=str(folder),
            fix="install the same version of pretrain-exp for planning and for the worker, or compile the plan again",
        )
    return meta
