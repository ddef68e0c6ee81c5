"""What must not be read any more is not: every sequence that a plan changes, searched after its edits.

Insertions that take text away have searched all that the run reads before any edit, and their edits cover what they
found. What is left is that an edit, their own or another's, brings it back; these are the sequences read here. What a
closed loop may plant later is searched text by text, and each layer that it lays on the plan by its sequences: a plan
keeps what must be absent from it (absent.parquet), and so does every layer on top.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pretrain_exp.data.order import DataOrder
from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.edits import EditItem, Edits
from pretrain_exp.plan.items import runs_of
from pretrain_exp.plan.overlay import BASE, NOISE, TOKENS
from pretrain_exp.plan.overlay_writer import Ops
from pretrain_exp.plan.pool import Pool
from pretrain_exp.plan.search import RunSearch

FILE = "absent.parquet"
_CHUNK_TOKENS = 1 << 20
_SCHEMA = pa.schema([("insertion", pa.string()), ("tokens", pa.list_(pa.uint32()))])


@dataclass(frozen=True)
class Absent:
    """Token runs that must not be read, uint32, each with the insertion that takes it away; by insertion."""

    insertion: tuple[str, ...] = ()
    runs: tuple[np.ndarray, ...] = ()

    @classmethod
    def stored(cls, folder: Path) -> Absent:
        """Those of a plan folder; none where there is no file."""
        path = folder / FILE
        if not path.is_file():
            return cls()
        table = pq.read_table(path).cast(_SCHEMA)
        return cls(tuple(table["insertion"].to_pylist()), tuple(runs_of(table)))

    def __len__(self) -> int:
        return len(self.runs)

    def and_of(self, requests: Sequence[Edits]) -> Absent:
        """These and those that the requests ask for."""
        more = [(request.insertion, run) for request in requests for run in request.absent]
        return Absent(self.insertion + tuple(name for name, _ in more), self.runs + tuple(run for _, run in more))

    def digest(self, requests: Sequence[Edits]) -> str:
        """32 hex digits of them and of the texts to come that they are sought in."""
        found = blake2b("\n".join(self.insertion).encode(), digest_size=16)
        texts = [item.tokens for request in requests for item in request.to_come]
        for run in (*self.runs, *texts):
            found.update(row_digest(run))
        return found.hexdigest()

    def write(self, folder: Path) -> None:
        pq.write_table(pa.table([pa.array(self.insertion), pa.array(self.runs)], schema=_SCHEMA), folder / FILE)


def absence(
    absent: Absent, requests: Sequence[Edits], ops: Ops, slots: np.ndarray, pool: np.ndarray | Pool,
    order: DataOrder | None,
) -> list[dict[str, str]]:  # fmt: skip
    """Findings for the audit: errors for each insertion whose absent runs come back, else a note with the numbers.

    ops: of the whole plan; slots: those that the requests change, ascending. ValueError where something must be absent
    and no data order is given.
    """
    if not absent.runs:
        return []
    if order is None:
        raise ValueError("what must be absent can only be looked for in the data")
    search = RunSearch(absent.runs)
    hits = []
    for rows, some in _edited(slots, ops, pool, order):
        found = search(rows, some)
        hits += list(zip(found["run"].tolist(), found["slot"].tolist(), found["column"].tolist(), strict=True))
    held = [(run, request, item) for request in requests for run, item in standing(search, request.to_come)]
    texts = sum(len(request.to_come) for request in requests)
    out = []
    for name in dict.fromkeys(absent.insertion):
        of_it = {i for i, owner in enumerate(absent.insertion) if owner == name}
        mine, coming = [hit for hit in hits if hit[0] in of_it], [hit for hit in held if hit[0] in of_it]
        if mine:
            run, slot, column = mine[0]
            text = f"{len(mine):,} of the runs that {name} removes are planted again, the first in slot "
            text += f"{slot:,} at column {column:,}; {_way_out(requests, name, search.runs[run])}"
            out.append({"level": "error", "check": "absence", "message": text})
        if coming:
            _, request, item = coming[0]
            text = f"{len(coming):,} of the runs that {name} removes stand in texts that {request.insertion} may plant "
            text += f"later; {_take_out(request, item, name)}"
            out.append({"level": "error", "check": "absence", "message": text})
        if not mine and not coming:
            text = f"{name}: none of its {len(of_it):,} runs stands in any of the {len(slots):,} sequences that are "
            text += "changed here" + (f", nor in any of the {texts:,} texts that may be planted later" if texts else "")
            out.append({"level": "note", "check": "absence", "message": text})
    return out


def standing(search: RunSearch, items: Sequence[EditItem]) -> Iterator[tuple[int, EditItem]]:
    """(run, item) for every place where a run stands whole in the tokens of an item; the items are read in a row."""
    low = 0
    while low < len(items):
        high, size = low, 0
        while high < len(items) and size < _CHUNK_TOKENS:
            size += len(items[high].tokens)
            high += 1
        some = items[low:high]
        edges = np.cumsum([0] + [len(item.tokens) for item in some])
        row = np.concatenate([np.asarray(item.tokens, dtype=np.uint32) for item in some])
        found = search(row[None], np.zeros(1, dtype=np.int64))
        which = np.searchsorted(edges, found["column"], side="right") - 1
        for run, column, i in zip(found["run"].tolist(), found["column"].tolist(), which.tolist(), strict=True):
            if column + len(search.runs[run]) <= edges[i + 1]:
                yield run, some[i]
        low = high


def _way_out(requests: Sequence[Edits], removal: str, run: np.ndarray) -> str:
    """Who plants a run, and what can be done."""
    search = RunSearch([run])
    for request in requests:
        planted = [request.items[i] for i in np.unique(request.item).tolist()] if request.kind == "tokens" else []
        for _, item in standing(search, planted):
            return _take_out(request, item, removal)
    return "it arises where an edit meets the text around it: another seed.placement puts the edit elsewhere"


def _take_out(request: Edits, item: EditItem, removal: str) -> str:
    which = f"item {item.id} of insertion.{request.insertion}"
    return f"{which} holds it: take it out there, or out of what insertion.{removal} removes"


def with_findings(audit: dict[str, Any], findings: list[dict[str, str]]) -> dict[str, Any]:
    """The audit with more findings; not ok where one of them is an error."""
    return audit | {
        "findings": [*audit["findings"], *findings],
        "ok": audit["ok"] and all(finding["level"] != "error" for finding in findings),
    }


def changed(ops: Ops) -> np.ndarray:
    """The slots whose tokens these operations change, ascending; noise leaves them."""
    return np.unique(ops.slot[ops.kind != NOISE])


def _edited(
    slots: np.ndarray, ops: Ops, pool: np.ndarray | Pool, order: DataOrder
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of these slots as they are read, chunk by chunk: (k, S) and their slots."""
    by_slot = np.argsort(ops.slot, kind="stable")
    first = np.searchsorted(ops.slot[by_slot], slots, side="left")
    stop = np.searchsorted(ops.slot[by_slot], slots, side="right")
    size = max(1, _CHUNK_TOKENS // order.sequence_length)
    for low in range(0, len(slots), size):
        some = slots[low : low + size]
        rows = np.empty((len(some), order.sequence_length), dtype=np.uint32)
        for k, slot in enumerate(some.tolist()):
            rows[k] = order.read(slot)
            for i in by_slot[first[low + k] : stop[low + k]].tolist():
                column, length, ref = int(ops.column[i]), int(ops.length[i]), int(ops.ref[i])
                if ops.kind[i] == TOKENS:
                    rows[k, column : column + length] = pool[ref : ref + length]
                elif ops.kind[i] == BASE:
                    source = int(ops.source_column[i])
                    rows[k, column : column + length] = order.read(ref)[source : source + length]
        yield rows, some
