"""The items of all insertions in one table: what a plan holds of them, and where their tokens lie in its pool.

[Edits] in; canonical order, lengths, digests, the pool of the tokens that are planted, and the Arrow table out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from pretrain_exp.errors import UserError
from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.edits import EditItem, Edits
from pretrain_exp.plan.ledger import ITEMS_SCHEMA

NO_POOL = np.zeros(0, dtype=np.uint32)


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
    """The items of all insertions in a row; first: where those of each insertion begin; offset: in the pool, or -1."""

    items: list[tuple[str, EditItem]]
    first: list[int]
    digest: list[str]
    offset: np.ndarray
    pool: np.ndarray

    @classmethod
    def of(cls, ordered: list[Edits], pool: np.ndarray = NO_POOL, known: dict[str, int] | None = None) -> ItemTable:
        """pool, known: tokens that are there already, and the offsets of runs in them by digest (32 hex digits)."""
        items = [(request.insertion, item) for request in ordered for item in request.items]
        first = np.cumsum([0] + [len(request.items) for request in ordered]).tolist()[: len(ordered)]
        used = np.zeros(len(items), dtype=bool)
        for request, begin in zip(ordered, first, strict=True):
            if request.kind == "tokens":
                used[begin + request.item] = True
        digest = [row_digest(item.tokens).hex() for _, item in items]
        known = dict(known or {})
        offset = np.full(len(items), -1, dtype=np.int64)
        parts, size = [pool], len(pool)
        for i in np.flatnonzero(used):  # holdouts and probes stay out of what the workers see
            if digest[i] not in known:
                known[digest[i]] = size
                parts.append(np.asarray(items[i][1].tokens, dtype=np.uint32))
                size += len(parts[-1])
            offset[i] = known[digest[i]]
        return cls(items, first, digest, offset, np.concatenate(parts))

    def to_arrow(self) -> pa.Table:
        """The items in the schema of items.parquet."""
        lengths = np.array([len(item.tokens) for _, item in self.items], dtype=np.int64)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        flat = np.concatenate([NO_POOL] + [np.asarray(item.tokens, np.uint32) for _, item in self.items])
        columns = {
            "insertion": pa.array([name for name, _ in self.items], pa.string()),
            "item": pa.array([item.id for _, item in self.items], pa.string()),
            "tokens": pa.ListArray.from_arrays(offsets, pa.array(flat)),
        }
        for name in ("group", "dose", "text", "payload", "probe"):
            columns[name] = pa.array([getattr(item, name) for _, item in self.items], ITEMS_SCHEMA.field(name).type)
        return pa.table([columns[name] for name in ITEMS_SCHEMA.names], ITEMS_SCHEMA.names).cast(ITEMS_SCHEMA)
