"""What must not be read any more is not: every sequence that a plan changes, searched after its edits.

Insertions that take text away have searched all that the run reads before any edit, and their edits cover what they
found. What is left is that an edit, their own or another's, brings it back; these are the sequences read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pretrain_exp.data.order import DataOrder
from pretrain_exp.plan.edits import Edits
from pretrain_exp.plan.overlay import BASE, NOISE, TOKENS
from pretrain_exp.plan.overlay_writer import Ops
from pretrain_exp.plan.pool import Pool
from pretrain_exp.plan.search import RunSearch

_CHUNK_TOKENS = 1 << 20


def absence(
    requests: Sequence[Edits], ops: Ops, pool: np.ndarray | Pool, order: DataOrder | None
) -> list[dict[str, str]]:
    """Findings for the audit: an error for each insertion whose absent runs come back, else a note with the numbers.

    ValueError where something must be absent and no data order is given.
    """
    asking = [request for request in requests if request.absent]
    if not asking:
        return []
    if order is None:
        raise ValueError("what must be absent can only be looked for in the data")
    search = RunSearch([run for request in asking for run in request.absent])
    owner = np.repeat(np.arange(len(asking)), [len(request.absent) for request in asking])
    slots, hits = np.unique(ops.slot[ops.kind != NOISE]), []  # noise leaves the tokens
    for rows, some in _edited(slots, ops, pool, order):
        found = search(rows, some)
        hits += list(zip(found["run"].tolist(), found["slot"].tolist(), found["column"].tolist(), strict=True))
    out = []
    for i, request in enumerate(asking):
        mine = [hit for hit in hits if owner[hit[0]] == i]
        if mine:
            run, slot, column = mine[0]
            text = f"{len(mine):,} of the runs that {request.insertion} removes are planted again, the first in slot "
            text += f"{slot:,} at column {column:,}; {_way_out(requests, request, search.runs[run])}"
            out.append({"level": "error", "check": "absence", "message": text})
        else:
            text = f"{request.insertion}: none of its {len(request.absent):,} runs stands in any of the {len(slots):,} "
            text += "sequences that the plan changes"
            out.append({"level": "note", "check": "absence", "message": text})
    return out


def _way_out(requests: Sequence[Edits], removal: Edits, run: np.ndarray) -> str:
    """Who plants a run, and what can be done."""
    one, slot = RunSearch([run]), np.zeros(1, dtype=np.int64)
    for request in requests:
        for i in np.unique(request.item).tolist() if request.kind == "tokens" else ():
            tokens = np.asarray(request.items[i].tokens)
            if len(tokens) >= len(run) and len(one(tokens[None], slot)["run"]):
                which = f"item {request.items[i].id} of insertion.{request.insertion}"
                return f"{which} holds it: take it out there, or out of what insertion.{removal.insertion} removes"
    return "it arises where an edit meets the text around it: another seed.placement puts the edit elsewhere"


def with_findings(audit: dict[str, Any], findings: list[dict[str, str]]) -> dict[str, Any]:
    """The audit with more findings; not ok where one of them is an error."""
    return audit | {
        "findings": [*audit["findings"], *findings],
        "ok": audit["ok"] and all(finding["level"] != "error" for finding in findings),
    }


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
