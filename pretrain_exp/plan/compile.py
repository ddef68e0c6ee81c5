"""Compiles a plan: what the insertions ask for in, a plan folder (overlay, ledger, items, audit) out.

    [Edits] -> place -> rows (position, item, copy) --+--> pieces, one a sequence --> overlay
                                                      +--> ledger, items, audit

Insertions are taken by name and items by id, so that the order of a configuration or of a file changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pretrain_exp.data.phases import Phases
from pretrain_exp.errors import UserError
from pretrain_exp.plan.audit import audit_plan
from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.edits import EditItem, Edits, Window
from pretrain_exp.plan.folder import SCHEMA, Plan, write_plan
from pretrain_exp.plan.ledger import ITEMS_SCHEMA, LEDGER_SCHEMA, base_digest, codes, planted, strings
from pretrain_exp.plan.overlay_writer import Ops
from pretrain_exp.plan.placement import place


def compile_plan(edits: Sequence[Edits], phases: Phases, window: Window, seed: int, arm: str, root: Path | str) -> Plan:
    """Places, audits and writes a plan to root/<fingerprint>; one that is already there is opened.

    window: the steps of the run; seed: `seed.placement`; arm: the name that the ledger carries. UserError where the
    edits do not fit (placement.py), where two insertions share a name, or where two items of one share an id.
    """
    ordered = _canonical(edits)
    placement = place(ordered, phases, window, seed)
    table = _ItemTable.of(ordered)
    position = np.concatenate([*placement.positions, np.zeros(0, np.int64)])
    item = np.concatenate([request.item + first for request, first in zip(ordered, table.first, strict=True)] + _NONE)
    copy = np.concatenate([request.copy for request in ordered] + _NONE)
    by_position = np.argsort(position, kind="stable")
    position, item, copy = position[by_position], item[by_position], copy[by_position]
    pieces = split_at_sequences(position, table.length[item], phases)
    ops = Ops.tokens(pieces.slot, pieces.column, pieces.length, table.offset[item[pieces.row]] + pieces.offset)
    ledger = pa.concat_tables([_planted_rows(table, arm, position, item, copy, phases), _skipped_rows(ordered, arm)])
    items = table.to_arrow()
    audit = audit_plan(ledger, items, phases, window, ordered, placement.rounds, placement.packed)
    return write_plan(Path(root), _header(phases, window, seed, arm), items, ledger, ops, table.pool, audit)


def placebo_plan(plan: Plan, num_sequences: int, root: Path | str, arm: str = "placebo") -> Plan:
    """The same spans as `plan`, filled with text of the stream that the run does not read: what planting alone does.

    num_sequences: sequences of one epoch of the data order. Each item stands for one span of unread text, drawn by
    hash from the epoch that the window lies in: from the slots after the window or, where they hold too little, from
    those before it. Its copies repeat it, so doses are the items'. UserError where the epoch has no such room, or the
    window reaches into another epoch. An edit over several sequences becomes a ledger row for each.
    """
    phases, window = plan.phases, plan.window
    ledger = planted(plan.ledger())
    position, length = ledger["position"].to_numpy(), ledger["length"].to_numpy().astype(np.int64)
    pieces = split_at_sequences(position, length, phases)
    rows = ledger.take(pa.array(pieces.row))
    source_slot, source_column = _sources(rows, pieces, num_sequences, phases, window, plan.seed)
    ops = Ops.base(pieces.slot, pieces.column, pieces.length, source_slot, source_column)
    step, row = phases.step_row(pieces.slot)
    digests = [base_digest(*pair) for pair in zip(source_slot.tolist(), source_column.tolist(), strict=True)]
    changed: dict[str, Any] = {
        "arm": pa.array([arm] * rows.num_rows, pa.string()),
        "position": position[pieces.row] + pieces.offset,
        "step": step,
        "row": row,
        "column": pieces.column,
        "length": pieces.length,
        "digest": pa.array(digests, pa.string()),
        "source_slot": source_slot,
        "source_column": source_column,
    }
    table = pa.table([changed.get(name, rows[name]) for name in LEDGER_SCHEMA.names], LEDGER_SCHEMA.names)
    table = table.cast(LEDGER_SCHEMA)
    items = plan.items()
    audit = audit_plan(table, items, phases, window)
    return write_plan(Path(root), _header(phases, window, plan.seed, arm), items, table, ops, _NO_POOL, audit)


_NONE = [np.zeros(0, dtype=np.int32)]
_NO_POOL = np.zeros(0, dtype=np.uint32)


def _header(phases: Phases, window: Window, seed: int, arm: str) -> dict[str, Any]:
    longest = max(row[2] for row in phases.to_json())
    shape = {"sequence_length": longest, "phases": phases.to_json(), "window": [window.first_step, window.last_step]}
    return {"schema": SCHEMA, **shape, "seed": seed, "arm": arm}


def _canonical(edits: Sequence[Edits]) -> list[Edits]:
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
class _ItemTable:
    """The items of all insertions in a row; first: where those of each insertion begin; offset: in the pool, or -1."""

    items: list[tuple[str, EditItem]]
    first: list[int]
    length: np.ndarray
    digest: list[str]
    offset: np.ndarray
    pool: np.ndarray

    @classmethod
    def of(cls, ordered: list[Edits]) -> _ItemTable:
        items = [(request.insertion, item) for request in ordered for item in request.items]
        first = np.cumsum([0] + [len(request.items) for request in ordered]).tolist()[: len(ordered)]
        used = np.zeros(len(items), dtype=bool)
        for request, begin in zip(ordered, first, strict=True):
            used[begin + request.item] = True
        digest = [row_digest(item.tokens).hex() for _, item in items]
        known: dict[str, int] = {}
        offset = np.full(len(items), -1, dtype=np.int64)
        parts, size = [_NO_POOL], 0
        for i in np.flatnonzero(used):  # holdouts stay out of what the workers see
            if digest[i] not in known:
                known[digest[i]] = size
                parts.append(np.asarray(items[i][1].tokens, dtype=np.uint32))
                size += len(parts[-1])
            offset[i] = known[digest[i]]
        length = np.array([len(item.tokens) for _, item in items], dtype=np.int64)
        return cls(items, first, length, digest, offset, np.concatenate(parts))

    def to_arrow(self) -> pa.Table:
        lengths = np.array([len(item.tokens) for _, item in self.items], dtype=np.int64)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        flat = np.concatenate([_NO_POOL] + [np.asarray(item.tokens, np.uint32) for _, item in self.items])
        columns = [
            pa.array([name for name, _ in self.items], pa.string()),
            *(
                pa.array([getattr(item, field) for _, item in self.items], kind)
                for field, kind in (
                    ("id", pa.string()),
                    ("group", pa.string()),
                    ("dose", pa.int32()),
                    ("text", pa.string()),
                )
            ),
            pa.ListArray.from_arrays(offsets, pa.array(flat)),
            pa.array([item.payload for _, item in self.items], pa.string()),
        ]
        return pa.table(columns, ITEMS_SCHEMA.names).cast(ITEMS_SCHEMA)


def _planted_rows(
    table: _ItemTable, arm: str, position: np.ndarray, item: np.ndarray, copy: np.ndarray, phases: Phases
) -> pa.Table:
    slot, column = phases.locate(position)
    step, row = phases.step_row(slot)
    n = len(position)
    none, minus = np.zeros(n, dtype=np.int32), np.full(n, -1, dtype=np.int32)
    columns = {
        "insertion": strings([name for name, _ in table.items], item),
        "arm": strings([arm], none),
        "item": strings([entry.id for _, entry in table.items], item),
        "group": strings([entry.group for _, entry in table.items], item),
        "copy": copy,
        "dose": np.array([entry.dose for _, entry in table.items], dtype=np.int32)[item],
        "position": position,
        "step": step,
        "row": row,
        "column": column,
        "length": table.length[item],
        "digest": strings(table.digest, item),
        "status": strings(["planted"], none),
        "source_slot": minus,
        "source_column": minus,
    }
    return pa.table(columns).cast(LEDGER_SCHEMA)


def _skipped_rows(ordered: list[Edits], arm: str) -> pa.Table:
    rows = []
    for request in ordered:
        known = {item.id: item for item in request.items}
        for skipped in sorted(request.skipped, key=lambda skipped: (skipped.item, skipped.copy)):
            item = known[skipped.item]
            where = dict.fromkeys(("position", "step", "row", "column", "source_slot", "source_column"), -1)
            rows.append(
                {"insertion": request.insertion, "arm": arm, "item": item.id, "group": item.group, "copy": skipped.copy}
                | {"dose": item.dose, "length": skipped.length, "digest": "", "status": "skipped"}
                | where
            )
    return pa.Table.from_pylist(rows, LEDGER_SCHEMA)


@dataclass(frozen=True)
class Pieces:
    """Edits cut where sequences end. row: which edit; offset: tokens of it that lie in earlier pieces; (m,) each."""

    row: np.ndarray
    slot: np.ndarray
    column: np.ndarray
    length: np.ndarray
    offset: np.ndarray


def split_at_sequences(position: np.ndarray, length: np.ndarray, phases: Phases) -> Pieces:
    """The pieces of edits at global positions, one for each sequence that an edit touches, ordered by edit."""
    row = np.arange(len(position))
    offset = np.zeros(len(position), dtype=np.int64)
    parts: list[np.ndarray] = []
    while len(row) or not parts:
        at = position[row] + offset
        slot, column = phases.locate(at)
        room = phases.position(slot + 1, np.zeros_like(slot)) - at
        part = np.minimum(length[row] - offset, room)
        parts.append(np.stack([row, slot, column, part, offset]))
        offset = offset + part
        row, offset = row[offset < length[row]], offset[offset < length[row]]
    found = np.concatenate(parts, axis=1)
    if len(parts) > 1:
        found = found[:, np.lexsort((found[4], found[0]))]
    return Pieces(*found)


def _unread_span(phases: Phases, window: Window, num_sequences: int, needed: int) -> tuple[int, int]:
    """Positions of the window's epoch that the window does not read and that hold `needed` tokens."""
    start, stop = phases.first_slot(window.first_step), phases.first_slot(window.last_step)
    epoch = start // num_sequences
    begin, end = epoch * num_sequences, (epoch + 1) * num_sequences
    reads = f"a placebo needs text that the run does not read; it reads slots {start:,} to {stop:,}"
    fix = "train fewer steps, give more data, or set arms.placebo=false"
    if stop > end:
        fix = (
            f"let the run begin and end in one epoch, a multiple of {num_sequences:,} slots; or set arms.placebo=false"
        )
        raise UserError(
            f"{reads}, which lie in {(stop - 1) // num_sequences - epoch + 1} epochs of {num_sequences:,} sequences",
            key="arms.placebo",
            fix=fix,
        )
    edges = phases.position(np.array([begin, start, stop, end]), np.zeros(4, dtype=np.int64)).tolist()
    after, before = (edges[2], edges[3]), (edges[0], edges[1])
    for low, high in (after, before):
        if high - low >= max(needed, 1):
            return low, high
    raise UserError(
        f"{reads} of epoch {epoch}, which leaves {after[1] - after[0]:,} tokens after it and {before[1] - before[0]:,} "
        f"before it; the placebo needs {needed:,}",
        key="arms.placebo",
        fix=fix,
    )


def _sources(
    rows: pa.Table, pieces: Pieces, num_sequences: int, phases: Phases, window: Window, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where the text for each piece comes from: slot and column. Copies of one item share it."""
    insertion, names = codes(rows["insertion"])
    item, ids = codes(rows["item"])
    keys = np.stack([insertion, item, pieces.offset, pieces.length])
    distinct, which = np.unique(keys, axis=1, return_inverse=True)
    unread = _unread_span(phases, window, num_sequences, int(distinct[3].sum()))
    # an id of its own for each piece; lengths matter, so tokens of that length stand in
    units = [
        EditItem(f"{names[a]}/{ids[b]}/{offset}+{length}", np.zeros(length, dtype=np.uint32), dose=1)
        for a, b, offset, length in distinct.T.tolist()
    ]
    n = np.arange(len(units), dtype=np.int32)
    ask = Edits("placebo", units, n, np.zeros_like(n), "random", unread, on_full="pack")
    found = place([ask], phases, window, seed).positions[0]
    slot, column = phases.locate(found[which.reshape(-1)])
    return slot, column
