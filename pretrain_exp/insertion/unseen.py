"""Whole sequences of a run replaced by sequences of the data that it does not read otherwise: the edits of three kinds.

    places (positions, or spans to draw them from) + names and groups
        -> items, one a sequence: the first of each group, by hash, with tokens, to be scored; the others without
        -> holdouts: unseen sequences that are scored and never read
        -> base rows; which unseen sequence each item is, compile.py draws

What is scored keeps its tokens in the plan; the rest is planted by reference, so a plan of millions of sequences stays
small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import InsertionContext, ranked
from pretrain_exp.plan.edits import EditItem, Edits, OnFull
from pretrain_exp.plan.unseen import unread_spans

HOLDOUT = "holdout"
_NONE = np.zeros(0, dtype=np.uint32)


@dataclass(frozen=True)
class Place:
    """A sequence to be replaced. name: of the item, in its insertion; span: it is drawn from, or position: it has."""

    name: str
    group: str
    position: int | None = None
    span: tuple[int, int] = (0, 0)


def check_counts(score: int | None, holdout: int) -> None:
    """UserError where `score` or `holdout` are no numbers of sequences."""
    for name, value in (("score", score), ("holdout", holdout)):
        if value is not None and value < 0:
            raise UserError("must be a number of sequences, 0 or more", key=name, value=value)


def replace_sequences(
    context: InsertionContext, places: Sequence[Place], score: int | None, holdout: int, on_full: OnFull = "error"
) -> Edits:
    """The edits that read an unseen sequence at every place, one copy each, and hold some out.

    score: sequences of each group whose tokens are kept to be scored (None: all); holdout: unseen sequences scored and
    never read. All places have a position, or none; on_full is for those that are drawn. UserError where the data
    beyond the run do not suffice.
    """
    size, n = context.sequence_length, len(places)
    needed = (n + holdout) * size
    (span,) = unread_spans(
        context.phases, context.window, context.data.num_sequences, needed, f"insertion {context.name}", "_target_"
    )
    ids = [f"{context.name}/{place.name}" for place in places]  # as ids of contents are, of no two insertions
    scored = scored_names(context, [(name, each.group) for name, each in zip(ids, places, strict=True)], score)
    held = [EditItem(f"{context.name}/{HOLDOUT}{i}", _NONE, group=HOLDOUT) for i in range(holdout)]
    explicit = bool(places) and places[0].position is not None
    rows = np.arange(n, dtype=np.int32)

    def fill_in(request: Edits, _positions: np.ndarray, slots: np.ndarray | None) -> list[EditItem]:
        assert slots is not None
        return [
            replace(item, tokens=context.data.read(slot)) if item.id in scored or item.group == HOLDOUT else item
            for item, slot in zip(request.items, slots.tolist(), strict=True)
        ]

    return Edits(
        insertion=context.name,
        items=[EditItem(name, _NONE, group=each.group, dose=1) for name, each in zip(ids, places, strict=True)] + held,
        item=rows,
        copy=np.zeros_like(rows),
        mode="explicit" if explicit else "random",
        spans=None if explicit else np.array([place.span for place in places], dtype=np.int64).reshape(-1, 2),
        position=np.array([place.position for place in places], dtype=np.int64) if explicit else None,
        on_full=on_full,
        kind="base",
        length=np.full(n, size, dtype=np.int64),
        unseen=span,
        fill_in=fill_in,
    )


def scored_names(context: InsertionContext, items: Sequence[tuple[str, str]], score: int | None) -> set[str]:
    """The names of the items that keep their tokens: `score` of each group, by hash. items: names and groups."""
    if score is None:
        return {name for name, _ in items}
    groups: dict[str, list[str]] = {}
    for name, group in items:
        groups.setdefault(group, []).append(name)
    return {names[i] for names in groups.values() for i in ranked(names, context, "score")[:score]}
