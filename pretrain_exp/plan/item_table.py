"""The items of all insertions in one table: what a plan holds of them, and where their tokens lie in its pool.

[Edits] in; canonical order, digests, the pool of the tokens that are planted, and the items in batches out. Tokens stay
in the items: the pool and the batches refer to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from pretrain_exp.errors import UserError
from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.edits import EditItem, Edits
from pretrain_exp.plan.items import Items, batch_bounds
from pretrain_exp.plan.ledger import ITEMS_SCHEMA, strings
from pretrain_exp.plan.pool import Pool

Known = tuple[np.ndarray, np.ndarray]  # digests V16 (m,) and offsets int64 (m,)
NO_POOL = np.zeros(0, dtype=np.uint32)
NO_RUNS: Known = (np.zeros(0, dtype="V16"), np.zeros(0, dtype=np.int64))


def canonical(edits: Sequence[Edits]) -> list[Edits]:
    """Insertions by name, the items of each by id; empty ones stay, since holdouts need no edits."""
    names = Counter(request.insertion for request in edits)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise UserError(
            f"{names[twice[0]]} insertions are called {twice[0]}", key="insertion", fix="give each a name of its own"
        )
    return [_by_id(request) for request in sorted(edits, key=lambda request: request.insertion)]


def _by_id(request: Edits) -> Edits:
    ids = [item.id for item in request.items]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    for a, b in pairwise(order):
        if ids[a] == ids[b]:
            problem = f"two items of insertion {request.insertion} share an id"
            raise UserError(
                problem, key=f"insertion.{request.insertion}", value=ids[a], fix="merge them, and add up doses"
            )
    new = np.empty(len(ids), dtype=np.int32)
    new[order] = np.arange(len(ids), dtype=np.int32)
    return replace(request, items=[request.items[i] for i in order], item=new[request.item])


@dataclass(frozen=True)
class ItemTable:
    """The items of all insertions in a row. first: where those of each insertion begin.

    digest: of the tokens of each, V16 (n,); offset: where they lie in the pool, int64 (n,), -1 where they do not.
    """

    insertions: list[str]
    first: list[int]
    items: list[EditItem]
    digest: np.ndarray
    offset: np.ndarray
    pool: Pool

    @classmethod
    def of(cls, ordered: list[Edits], pool: np.ndarray = NO_POOL, known: Known = NO_RUNS) -> ItemTable:
        """pool, known: tokens that are there already, and digests and offsets of runs in them."""
        items = [item for request in ordered for item in request.items]
        first = np.cumsum([0] + [len(request.items) for request in ordered]).tolist()[: len(ordered)]
        used = np.zeros(len(items), dtype=bool)
        for request, begin in zip(ordered, first, strict=True):
            if request.kind == "tokens":
                used[begin + request.item] = True
        which = np.flatnonzero(used)  # holdouts and probes stay out of what the workers see
        digests = bytearray()
        for item in items:
            digests += row_digest(item.tokens)
        digest = np.frombuffer(bytes(digests), dtype="V16")
        runs = [items[i].tokens for i in which.tolist()]
        places, added = _places(digest[which], np.array([len(run) for run in runs], np.int64), len(pool), known)
        offset = np.full(len(items), -1, dtype=np.int64)
        offset[which] = places
        pooled = Pool([pool, *(runs[i] for i in added.tolist())])
        return cls([request.insertion for request in ordered], first, items, digest, offset, pooled)

    def insertion_of(self, item: np.ndarray) -> np.ndarray:
        """Index of the insertion of each item."""
        return np.searchsorted(np.array(self.first, dtype=np.int64), item, side="right") - 1

    def hex_digests(self) -> pa.Array:
        """The digests as 32 hex digits each."""
        edges = np.arange(len(self.items) + 1, dtype=np.int32) * 32
        return pa.StringArray.from_buffers(
            len(self.items), pa.py_buffer(edges), pa.py_buffer(self.digest.tobytes().hex().encode())
        )

    def to_items(self) -> Items:
        """The items as items.parquet holds them."""
        return Items(len(self.items), self._read)

    def _read(self, names: Sequence[str]) -> Iterator[pa.Table]:
        lengths = np.array([len(item.tokens) for item in self.items], dtype=np.int64)
        for first, stop in batch_bounds(lengths):
            some = self.items[first:stop]
            columns = [self._column(name, first, some, lengths[first:stop]) for name in names]
            yield pa.table(columns, list(names))

    def _column(self, name: str, first: int, some: list[EditItem], lengths: np.ndarray) -> pa.Array:
        if name == "insertion":
            return strings(self.insertions, self.insertion_of(np.arange(first, first + len(some))))
        if name == "tokens":
            edges = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
            flat = np.concatenate([NO_POOL, *(np.asarray(item.tokens, np.uint32) for item in some)])
            return pa.ListArray.from_arrays(pa.array(edges), pa.array(flat))
        attribute = "id" if name == "item" else name
        return pa.array([getattr(item, attribute) for item in some], ITEMS_SCHEMA.field(name).type)


def _places(digest: np.ndarray, lengths: np.ndarray, size: int, known: Known) -> tuple[np.ndarray, np.ndarray]:
    """Where each run lies in the pool, int64 (n,), and the runs that go to its end, in their order; equal ones once."""
    there = len(known[0])
    digests, offsets = np.concatenate([known[0], digest]), np.concatenate([known[1], np.zeros(len(digest), np.int64)])
    words = digests.view("<u8").reshape(-1, 2)
    order = np.lexsort((words[:, 1], words[:, 0]))  # stable: equal ones in their order
    new = np.ones(len(order), dtype=bool)
    new[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
    leader = np.empty(len(order), dtype=np.int64)
    leader[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    added = np.flatnonzero(leader == np.arange(len(order)))
    added = added[added >= there] - there
    offsets[there + added] = size + np.cumsum(lengths[added]) - lengths[added]
    return offsets[leader][there:], added
