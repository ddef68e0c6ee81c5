"""Writes an overlay: a table of operations and a pool of tokens in, the folder that overlay.py maps out.

The folder appears whole or not at all: it is filled under another name beside its place and then renamed. A window of
slots of an overlay is an overlay as well, that does the same there and holds nothing else.
"""

from __future__ import annotations

import shutil
import struct
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.overlay import BASE, COLUMNS, NOISE, SCHEMA, TOKENS, Overlay
from pretrain_exp.plan.pool import Pool, write_pool
from pretrain_exp.store.publish import beside, publish
from pretrain_exp.store.states import write_json

_MAX_BUCKETS = 1 << 24


@dataclass(frozen=True)
class Ops:
    """Operations as columns, n each, in any order; what the kinds take from them is in the table of overlay.py.

    slot, ref: int64; column, length, source_column: int32; kind: uint8; sigma: float32.
    """

    slot: np.ndarray
    column: np.ndarray
    length: np.ndarray
    kind: np.ndarray
    ref: np.ndarray
    source_column: np.ndarray
    sigma: np.ndarray

    @classmethod
    def tokens(cls, slot: np.ndarray, column: np.ndarray, length: np.ndarray, ref: np.ndarray) -> Ops:
        """Operations that plant `length` tokens of the pool from offset `ref` on."""
        n = len(slot)
        return cls(slot, column, length, np.full(n, TOKENS, np.uint8), ref, np.full(n, -1, np.int32), _zeros(n))

    @classmethod
    def base(
        cls, slot: np.ndarray, column: np.ndarray, length: np.ndarray, source: np.ndarray, source_column: np.ndarray
    ) -> Ops:
        """Operations that put tokens of slot `source`, from `source_column` on, in the place of others."""
        n = len(slot)
        return cls(slot, column, length, np.full(n, BASE, np.uint8), source, source_column, _zeros(n))

    @classmethod
    def noise(cls, slot: np.ndarray, column: np.ndarray, length: np.ndarray, sigma: np.ndarray) -> Ops:
        """Operations that add noise of scale `sigma` to the embeddings of a span."""
        n = len(slot)
        return cls(slot, column, length, np.full(n, NOISE, np.uint8), np.full(n, -1), np.full(n, -1, np.int32), sigma)

    @classmethod
    def none(cls) -> Ops:
        """No operation."""
        empty = np.zeros(0, dtype=np.int64)
        return cls.tokens(empty, empty, empty, empty)

    @classmethod
    def concatenate(cls, parts: list[Ops]) -> Ops:
        """All operations of several tables."""
        names = cls.__dataclass_fields__
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def __len__(self) -> int:
        return len(self.slot)


def write_overlay(folder: Path | str, ops: Ops, pool: np.ndarray | Pool, sequence_length: int, seed: int = 0) -> None:
    """Writes the overlay to `folder`, which must not exist yet (FileExistsError).

    pool: tokens, in one array or in runs; sequence_length: tokens of the longest sequence of the run; seed: what noise
    is keyed by.
    ValueError where an operation leaves its slot or the pool, is empty, or overlaps another that changes tokens.
    """
    folder = Path(folder)
    order = np.lexsort((ops.kind, ops.column, ops.slot))
    kept = {name: dtype for name, dtype in COLUMNS.items() if name != "digest"}
    columns = {name: getattr(ops, name)[order].astype(dtype, copy=False) for name, dtype in kept.items()}
    _check(columns, len(pool), sequence_length)
    columns["digest"] = _digests(columns, pool, seed)
    first, shift, buckets = _buckets(columns["slot"])
    if folder.exists():
        raise FileExistsError(f"{folder} exists: an overlay is never written twice")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = beside(folder)
    staging.mkdir()
    try:
        for name, array in {**columns, "buckets": buckets}.items():
            np.save(staging / f"{name}.npy", array, allow_pickle=False)
        write_pool(pool, staging / "pool.npy")
        meta = {"schema": SCHEMA, "sequence_length": sequence_length, "seed": seed, "operations": len(order)}
        write_json(staging / "meta.json", {**meta, "first_slot": first, "shift": shift})
        publish(staging, folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def write_window(folder: Path | str, overlay: Overlay, first: int, stop: int) -> None:
    """Writes what an overlay does in the slots [first, stop) as an overlay of its own; FileExistsError as above."""
    low, high = np.searchsorted(overlay.arrays["slot"], [first, stop])
    ops = Ops(**{name: overlay.arrays[name][low:high] for name in COLUMNS if name != "digest"})
    write_overlay(folder, *compacted(ops, overlay.arrays["pool"]), overlay.sequence_length, overlay.seed)


def compacted(ops: Ops, pool: np.ndarray) -> tuple[Ops, Pool]:
    """The operations, and of the pool (tokens, uint32) no more than they refer to; runs that overlap stay one."""
    tokens = ops.kind == TOKENS
    first, stop = ops.ref[tokens], ops.ref[tokens] + ops.length[tokens]
    order = np.argsort(first, kind="stable")
    first_in_order, reached = first[order], np.maximum.accumulate(stop[order])
    new = np.ones(len(order), dtype=bool)
    new[1:] = first_in_order[1:] > reached[:-1]
    begins = np.flatnonzero(new)
    start, end = first_in_order[begins], reached[np.append(begins, len(order))[1:] - 1]
    place = np.cumsum(end - start) - (end - start)  # of each run in the pool that is left
    run = np.searchsorted(start, first, side="right") - 1
    ref = np.array(ops.ref)
    ref[tokens] = first - start[run] + place[run]
    return replace(ops, ref=ref), Pool([pool[a:b] for a, b in zip(start.tolist(), end.tolist(), strict=True)])


def _check(columns: dict[str, np.ndarray], pool_size: int, sequence_length: int) -> None:
    slot, column, length, kind = (columns[name] for name in ("slot", "column", "length", "kind"))
    if not len(slot):
        return
    stop = column.astype(np.int64) + length
    if slot[0] < 0 or column.min() < 0 or length.min() < 1 or stop.max() > sequence_length:
        raise ValueError(
            f"operations must lie inside their slots of {sequence_length} tokens: first slot {slot[0]}, "
            f"columns {column.min()} to {stop.max()}, shortest {length.min()}"
        )
    planted = kind == TOKENS
    ref = columns["ref"]
    if planted.any() and (ref[planted].min() < 0 or (ref + length)[planted].max() > pool_size):
        raise ValueError(f"operations refer to tokens outside the pool of {pool_size}")
    changes = kind != NOISE
    same_slot = slot[changes][1:] == slot[changes][:-1]
    overlaps = np.flatnonzero(same_slot & (stop[changes][:-1] > column[changes][1:]))
    if len(overlaps):
        i = int(overlaps[0])
        raise ValueError(
            f"{len(overlaps)} operations overlap another, the first in slot {slot[changes][i]} "
            f"at column {column[changes][i + 1]}"
        )


def _digests(columns: dict[str, np.ndarray], pool: np.ndarray | Pool, seed: int) -> np.ndarray:
    """What each operation does, as 16 bytes: of the tokens planted, the reference, or the noise's seed and scale."""
    kind, ref, length = columns["kind"], columns["ref"], columns["length"]
    rows = np.empty(len(kind), dtype=[("kind", "u1"), ("ref", "<i8"), ("extra", "<i8")])
    rows["kind"], rows["ref"], rows["extra"] = kind, ref, length
    rows["extra"][kind == BASE] = columns["source_column"][kind == BASE]
    rows["ref"][kind == NOISE] = 0
    rows["extra"][kind == NOISE] = columns["sigma"][kind == NOISE].view("<i4")
    # equal operations are hashed once: 10 k items planted a million times cost 10 k hashes
    distinct, which = _distinct(rows)
    values = bytearray()
    for each, at, extra in zip(*(distinct[name].tolist() for name in ("kind", "ref", "extra")), strict=True):
        if each == TOKENS:
            values += row_digest(pool[at : at + extra])
        else:
            name, first = (b"base", at) if each == BASE else (b"noise", seed)
            values += blake2b(name + struct.pack("<qq", first, extra), digest_size=16).digest()
    return np.frombuffer(bytes(values), dtype="V16")[which]


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows and, for each row, the index of its own among them."""
    order = np.lexsort((rows["extra"], rows["ref"], rows["kind"]))
    ordered = rows[order]
    new = np.ones(len(rows), dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    which = np.empty(len(rows), dtype=np.int64)
    which[order] = np.cumsum(new) - 1
    return ordered[new], which


def _buckets(slot: np.ndarray) -> tuple[int, int, np.ndarray]:
    """First slot, shift, and where each bucket of 2^shift slots begins; about one bucket an operation."""
    if not len(slot):
        return 0, 0, np.zeros(1, dtype="<u4")
    first, span = int(slot[0]), int(slot[-1] - slot[0]) + 1
    shift = 0
    while (span >> shift) > min(2 * len(slot), _MAX_BUCKETS):
        shift += 1
    count = ((span - 1) >> shift) + 1
    edges = first + (np.arange(count + 1, dtype=np.int64) << shift)
    return first, shift, np.searchsorted(slot, edges).astype("<u4")


def _zeros(n: int) -> np.ndarray:
    return np.zeros(n, dtype=np.float32)
