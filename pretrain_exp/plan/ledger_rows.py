"""The rows of a compiled plan: placed edits and their items in, operations and rows of the ledger out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pretrain_exp.data.phases import Phases
from pretrain_exp.plan.edits import Edits
from pretrain_exp.plan.item_table import ItemTable
from pretrain_exp.plan.ledger import LEDGER_SCHEMA, base_digest, noise_digest, strings
from pretrain_exp.plan.overlay import BASE, TOKENS
from pretrain_exp.plan.overlay_writer import Ops
from pretrain_exp.plan.pieces import split_at_sequences

KINDS = ("tokens", "base", "noise")  # as overlay.py numbers them
_DTYPES: dict[str, np.dtype] = {
    "position": np.dtype(np.int64),
    "length": np.dtype(np.int32),
    "item": np.dtype(np.int32),
    "copy": np.dtype(np.int32),
    "kind": np.dtype(np.int8),
    "source_slot": np.dtype(np.int64),
    "source_column": np.dtype(np.int32),
    "sigma": np.dtype(np.float32),
}


@dataclass(frozen=True)
class PlantedRows:
    """All edits of a plan by position, columns (n,); item: index into the table of items, kind: into KINDS."""

    position: np.ndarray
    length: np.ndarray
    item: np.ndarray
    copy: np.ndarray
    kind: np.ndarray
    source_slot: np.ndarray  # -1 where the kind has none
    source_column: np.ndarray
    sigma: np.ndarray

    @classmethod
    def of(cls, table: ItemTable, ordered: list[Edits], positions: list[np.ndarray]) -> PlantedRows:
        parts: dict[str, list[np.ndarray]] = {name: [np.zeros(0, dtype)] for name, dtype in _DTYPES.items()}
        for request, first, places in zip(ordered, table.first, positions, strict=True):
            n = len(request)
            source = np.full((n, 2), -1) if request.source is None else np.asarray(request.source, np.int64)
            sigma = np.zeros(n, np.float32) if request.sigma is None else np.asarray(request.sigma, np.float32)
            kind = np.full(n, KINDS.index(request.kind), dtype=np.int8)
            columns = (places, request.lengths, request.item + first, request.copy, kind, *source.T, sigma)
            for name, column in zip(parts, columns, strict=True):
                parts[name].append(column.astype(_DTYPES[name]))
        order = np.argsort(np.concatenate(parts["position"]), kind="stable")
        return cls(**{name: np.concatenate(parts.pop(name))[order] for name in _DTYPES})

    def operations(self, table: ItemTable, phases: Phases) -> Ops:
        """One operation for each sequence that a row touches. ValueError where a base row leaves its sequence."""
        pieces = split_at_sequences(self.position, self.length, phases)
        row, kind = pieces.row, self.kind[pieces.row]
        if np.bincount(row[kind == BASE]).max(initial=0) > 1:
            raise ValueError("a span of another slot is put in the place of more than one sequence")
        ref = np.where(kind == TOKENS, table.offset[self.item[row]] + pieces.offset, self.source_slot[row])
        return Ops(
            pieces.slot,
            pieces.column.astype(np.int32),
            pieces.length.astype(np.int32),
            kind.astype(np.uint8),
            ref,
            self.source_column[row],
            self.sigma[row],
        )

    def to_ledger(self, table: ItemTable, arm: str, seed: int, phases: Phases) -> pa.Table:
        """The rows in the schema of ledger.parquet."""
        slot, column = phases.locate(self.position)
        step, row = phases.step_row(slot)
        n = len(self.position)
        columns = _item_columns(table, self.item, arm) | {
            "copy": self.copy,
            "position": self.position,
            "step": step,
            "row": row,
            "column": column,
            "length": self.length,
            "digest": self._digests(table, slot, column, seed),
            "status": strings(["planted"], np.zeros(n, dtype=np.int32)),
            "source_slot": self.source_slot,
            "source_column": self.source_column,
            "kind": strings(KINDS, self.kind),
            "sigma": self.sigma,
        }
        return pa.table([columns[name] for name in LEDGER_SCHEMA.names], LEDGER_SCHEMA.names).cast(LEDGER_SCHEMA)

    def _digests(self, table: ItemTable, slot: np.ndarray, column: np.ndarray, seed: int) -> pa.Array:
        """Those of tokens are made once an item; those of references and noise differ from row to row."""
        code, values = self.item.copy(), []
        others = np.flatnonzero(self.kind != TOKENS)
        code[others] = len(table.items) + np.arange(len(others))
        for i in others.tolist():
            if self.kind[i] == BASE:
                values.append(base_digest(int(self.source_slot[i]), int(self.source_column[i])))
            else:
                where = (int(slot[i]), int(column[i]), int(self.length[i]))
                values.append(noise_digest(seed, where, float(self.sigma[i])))
        return strings(pa.concat_arrays([table.hex_digests(), pa.array(values, pa.string())]), code)


def hook_rows(table: ItemTable, ordered: list[Edits], arm: str, phases: Phases) -> pa.Table:
    """A row for each step of each training hook: copy k of its item acts at its k-th step."""
    parts = [LEDGER_SCHEMA.empty_table()]
    for request, first in zip(ordered, table.first, strict=True):
        index = {item.id: first + i for i, item in enumerate(request.items)}
        for hook in request.hooks:
            n = len(hook.steps)
            none, minus = np.zeros(n, dtype=np.int32), np.full(n, -1, dtype=np.int32)
            columns = _item_columns(table, np.full(n, index[hook.item], dtype=np.int32), arm) | {
                "copy": np.arange(n, dtype=np.int32) + hook.first_copy,
                "position": np.array([phases.position_of_step(step) for step in hook.steps], dtype=np.int64),
                "step": np.array(hook.steps, dtype=np.int32),
                "row": minus,
                "column": minus,
                "length": none,
                "digest": pa.array([noise_digest(hook.seed, (step,), hook.sigma) for step in hook.steps], pa.string()),
                "status": strings(["hook"], none),
                "source_slot": minus,
                "source_column": minus,
                "kind": strings([hook.kind], none),
                "sigma": np.full(n, hook.sigma, dtype=np.float32),
            }
            parts.append(pa.table([columns[name] for name in LEDGER_SCHEMA.names], LEDGER_SCHEMA.names))
    return pa.concat_tables([part.cast(LEDGER_SCHEMA) for part in parts])


def skipped_rows(ordered: list[Edits], arm: str) -> pa.Table:
    """A row for each copy that a declared policy left out."""
    rows = []
    where = dict.fromkeys(("position", "step", "row", "column", "source_slot", "source_column"), -1)
    for request in ordered:
        known = {item.id: item for item in request.items}
        for skipped in sorted(request.skipped, key=lambda skipped: (skipped.item, skipped.copy)):
            item = known[skipped.item]
            rows.append(
                {"insertion": request.insertion, "arm": arm, "item": item.id, "group": item.group, "copy": skipped.copy}
                | {"dose": item.dose, "length": skipped.length, "digest": "", "status": "skipped"}
                | {"kind": request.kind, "sigma": 0.0}
                | where
            )
    return pa.Table.from_pylist(rows, LEDGER_SCHEMA)


def _item_columns(table: ItemTable, item: np.ndarray, arm: str) -> dict[str, pa.Array | np.ndarray]:
    """What the ledger repeats of the items and the plan."""
    return {
        "insertion": strings(table.insertions, table.insertion_of(item)),
        "arm": strings([arm], np.zeros(len(item), dtype=np.int32)),
        "item": strings([entry.id for entry in table.items], item),
        "group": strings([entry.group for entry in table.items], item),
        "dose": np.array([entry.dose for entry in table.items], dtype=np.int32)[item],
    }
