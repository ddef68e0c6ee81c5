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
from pretrain_exp.plan.search import RunSearch

_CHUNK_TOKENS = 1 << 20


def absence(requests: Sequence[Edits], ops: Ops, pool: np.ndarray, order: DataOrder | None) -> list[dict[str, str]]:
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
        hits += list(zip(owner[found["run"]].tolist(), found["slot"].tolist(), found["column"].tolist(), strict=True))
    out = []
    for i, request in enumerate(asking):
        mine = [(slot, column) for which, slot, column in hits if which == i]
        if mine:
            text = f"{len(mine):,} of the runs that {request.insertion} removes are planted again, the first in slot "
            text += f"{mine[0][0]:,} at column {mine[0][1]:,}"
            out.append({"level": "error", "check": "absence", "message": text})
        else:
            text = f"{request.insertion}: none of its {len(request.absent):,} runs stands in any of the {len(slots):,} "
            text += "sequences that the plan changes"
            out.append({"level": "note", "check": "absence", "message": text})
    return out


def with_findings(audit: dict[str, Any], findings: list[dict[str, str]]) -> dict[str, Any]:
    """The audit with more findings; not ok where one of them is an error."""
    return audit | {
        "findings": [*audit["findings"], *findings],
        "ok": audit["ok"] and all(finding["level"] != "error" for finding in findings),
    }


def _edited(slots: np.ndarray, ops: Ops, pool: np.ndarray, order: DataOrder) -> Iterator[tuple[np.ndarray, np.ndarray]]:
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
