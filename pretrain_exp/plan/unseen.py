"""Text of the stream that a run does not read: where it lies, and a sequence of its own for every item that asks.

    epoch    |---- before ----|==== the window ====|---- after: unread ----|
                                                       ^ item a   ^ item b      one sequence an item, drawn by hash

Drawn like places (placement.py), with one occupancy for all insertions: no two items stand for the same sequence, and
adding an insertion moves the sequences of another only where both drew the same. Where runs of tokens are to be absent
(removal), what was drawn is read, and whoever drew a sequence that holds one draws again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pretrain_exp.data.order import DataOrder
from pretrain_exp.data.phases import Phases
from pretrain_exp.errors import UserError
from pretrain_exp.plan.edits import EditItem, Edits, Window
from pretrain_exp.plan.placement import place
from pretrain_exp.plan.search import RunSearch

_CHUNK_TOKENS = 1 << 20


def unread_spans(
    phases: Phases, window: Window, num_sequences: int, needed: int, who: str, key: str, before: bool = False,
    way_out: str = "",
) -> list[tuple[int, int]]:  # fmt: skip
    """Spans of the window's epoch that the window does not read and that hold `needed` tokens, one at least.

    That after it and, if `before` is set, that before it. num_sequences: of one epoch.
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
    found = [span for span in (after, earlier)[: 1 + before] if span[1] - span[0] >= max(needed, 1)]
    if found:
        return found
    beside = f" and {earlier[1] - earlier[0]:,} before it" if before else ""
    raise UserError(
        f"{reads} of epoch {epoch}, which leaves {after[1] - after[0]:,} tokens after it{beside}; {who} needs "
        f"{needed:,}",
        key=key,
        fix=f"train fewer steps or give more data{way_out}",
    )


def unseen_slots(
    requests: Sequence[Edits], phases: Phases, window: Window, seed: int, used: np.ndarray,
    order: DataOrder | None = None,
) -> list[np.ndarray | None]:  # fmt: skip
    """For each request that asks for unseen sequences the slot of each of its items, int64 (items,), -1 for a probe.

    None for a request that asks for none. used: slots that are taken already. order: what the slots hold; none that is
    to be read holds a run that some request wants absent. UserError where there are too few.
    """
    absent = RunSearch([run for request in requests for run in request.absent])
    clean, dirty = np.zeros((2, 0), dtype=np.int64)
    while True:
        found = _drawn(requests, phases, window, seed, used, dirty)
        pairs = [(request, slots) for request, slots in zip(requests, found, strict=True) if slots is not None]
        if order is None or not absent.runs or not pairs:
            return found
        read = np.unique(np.concatenate([slots[request.item] for request, slots in pairs]))
        read = np.setdiff1d(read, clean)
        more = _holding(absent, order, read)
        if not len(more):
            return found
        clean, dirty = np.union1d(clean, np.setdiff1d(read, more)), np.union1d(dirty, more)


def _drawn(
    requests: Sequence[Edits], phases: Phases, window: Window, seed: int, used: np.ndarray, dirty: np.ndarray
) -> list[np.ndarray | None]:
    """The slots of all that ask. used: taken already; dirty: hold what must not be read."""
    asks = [_ask(request, phases) if request.unseen is not None else None for request in requests]
    asking = [ask for ask in asks if ask is not None]
    _check_number(asking, phases, used, dirty)
    avoid = np.union1d(used, dirty).astype(np.int64)
    zero = np.zeros_like(avoid)
    taken = phases.position(avoid, zero), phases.position(avoid + 1, zero)
    found = iter(place(asking, phases, window, seed, taken=taken).positions)
    out: list[np.ndarray | None] = []
    for request, ask in zip(requests, asks, strict=True):
        slots = None if ask is None else np.full(len(request.items), -1, dtype=np.int64)
        if slots is not None:
            slots[[not item.probe for item in request.items]] = phases.locate(next(found))[0]
        out.append(slots)
    return out


def _check_number(asks: Sequence[Edits], phases: Phases, used: np.ndarray, dirty: np.ndarray) -> None:
    """UserError where all together ask for more sequences than their span has."""
    for span in sorted({ask.span for ask in asks}):
        mine = [ask for ask in asks if ask.span == span and len(ask)]
        (first, stop), _ = phases.locate(np.array(span))
        there, needed = int(stop - first), sum(len(ask) for ask in mine)
        taken, holding = (int(((slots >= first) & (slots < stop)).sum()) for slots in (used, np.setdiff1d(dirty, used)))
        if needed > there - taken - holding:
            why = f", {taken:,} are taken" if taken else ""
            why += f", {holding:,} hold what is to be removed" if holding else ""
            names = ", ".join(ask.insertion for ask in mine)
            raise UserError(
                f"{needed:,} unseen sequences are needed ({names}); the epoch has {there:,} after the run{why}",
                key=f"insertion.{max(mine, key=len).insertion}",
                fix="give more data, train fewer steps, or replace fewer sequences"
                + (" (of documents that are everywhere, remove fewer or a longer ngram)" if holding else ""),
            )


def _holding(runs: RunSearch, order: DataOrder, slots: np.ndarray) -> np.ndarray:
    """Those of the slots whose data hold one of the runs."""
    size = max(1, _CHUNK_TOKENS // order.sequence_length)
    found = [np.zeros(0, dtype=np.int64)]
    for low in range(0, len(slots), size):
        some = slots[low : low + size]
        found.append(runs(np.stack([order.read(slot) for slot in some.tolist()]), some)["slot"])
    return np.unique(np.concatenate(found))


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
