"""Text of the stream that a run does not read: where it lies, and a sequence of its own for every item that asks.

    epoch    |---- before ----|==== the window ====|---- after: unread ----|
                                                       ^ item a   ^ item b      one sequence an item, drawn by hash

Drawn like places (placement.py), with one occupancy for all insertions: no two items stand for the same sequence, and
adding an insertion moves the sequences of another only where both drew the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pretrain_exp.data.phases import Phases
from pretrain_exp.errors import UserError
from pretrain_exp.plan.edits import EditItem, Edits, Window
from pretrain_exp.plan.placement import place


def unread_span(
    phases: Phases, window: Window, num_sequences: int, needed: int, who: str, key: str, before: bool = False,
    way_out: str = "",
) -> tuple[int, int]:  # fmt: skip
    """Positions of the window's epoch that the window does not read and that hold `needed` tokens.

    Those after it; where they hold too little and `before` is set, those before it. num_sequences: of one epoch.
    UserError under `key`, in the name of `who`, where there are none, or the window reaches into another epoch.
    """
    start, stop = phases.first_slot(window.first_step), phases.first_slot(window.last_step)
    epoch = start // num_sequences
    begin, end = epoch * num_sequences, (epoch + 1) * num_sequences
    reads = f"{who} needs text that the run does not read; it reads slots {start:,} to {stop:,}"
    if stop > end:
        raise UserError(
            f"{reads}, which lie in {(stop - 1) // num_sequences - epoch + 1} epochs of {num_sequences:,} sequences",
            key=key,
            fix=f"let the run begin and end in one epoch, a multiple of {num_sequences:,} slots{way_out}",
        )
    edges = phases.position(np.array([begin, start, stop, end]), np.zeros(4, dtype=np.int64)).tolist()
    after, earlier = (edges[2], edges[3]), (edges[0], edges[1])
    for low, high in (after, earlier) if before else (after,):
        if high - low >= max(needed, 1):
            return low, high
    beside = f" and {earlier[1] - earlier[0]:,} before it" if before else ""
    raise UserError(
        f"{reads} of epoch {epoch}, which leaves {after[1] - after[0]:,} tokens after it{beside}; {who} needs "
        f"{needed:,}",
        key=key,
        fix=f"train fewer steps or give more data{way_out}",
    )


def unseen_slots(
    requests: Sequence[Edits], phases: Phases, window: Window, seed: int, used: np.ndarray
) -> list[np.ndarray | None]:
    """For each request that asks for unseen sequences the slot of each of its items, int64 (items,), -1 for a probe.

    None for a request that asks for none.

    used: slots that are taken already. UserError where there are too few.
    """
    asks = [_ask(request, phases) if request.unseen is not None else None for request in requests]
    avoid = np.unique(np.concatenate([used, *(request.avoid for request in requests)])).astype(np.int64)
    zero = np.zeros_like(avoid)
    taken = phases.position(avoid, zero), phases.position(avoid + 1, zero)
    placement = place([ask for ask in asks if ask is not None], phases, window, seed, taken=taken)
    found = iter(placement.positions)
    out: list[np.ndarray | None] = []
    for request, ask in zip(requests, asks, strict=True):
        slots = None if ask is None else np.full(len(request.items), -1, dtype=np.int64)
        if slots is not None:
            slots[[not item.probe for item in request.items]] = phases.locate(next(found))[0]
        out.append(slots)
    return out


def _ask(request: Edits, phases: Phases) -> Edits:
    """What placement.py is to place: every item once, each as long as a sequence."""
    assert request.unseen is not None
    first, _ = phases.locate(np.array([request.unseen[0]]))
    zero = np.zeros(1, dtype=np.int64)
    size = int(phases.position(first + 1, zero)[0] - phases.position(first, zero)[0])
    whole = np.zeros(size, dtype=np.uint32)
    items = [EditItem(f"{item.id}/unseen", whole, dose=1) for item in request.items if not item.probe]
    n = np.arange(len(items), dtype=np.int32)
    return Edits(request.insertion, items, n, np.zeros_like(n), "random", request.unseen, on_full="pack")
