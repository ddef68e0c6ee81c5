"""Room for closed loops: what they may plant at most in, a refusal out where it finds no place beside all else.

segment   |ssss|..a...b.|......a.|      whole sequences that others take (s) are no room; of what is left,
                                        others (a, b) and the loops together may fill half, or all where they pack
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pretrain_exp.errors import UserError
from pretrain_exp.plan.edits import Edits
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.ledger import planted
from pretrain_exp.plan.pieces import split_at_sequences

if TYPE_CHECKING:
    from pretrain_exp.insertion.base import Entry, InsertionContext

_COMFORT = 0.5  # fill up to which places are drawn without packing


@dataclass(frozen=True)
class Demand:
    """What a loop may plant. most: texts of its pool in one segment of `every` steps, None where it does not know.

    lengths: tokens that each text of the pool takes, int64 (n,); items: those it becomes, each with the index of the
    first text that it is of, its id and its tokens; pack: whether they may move closer together.
    """

    context: InsertionContext
    every: int
    pack: bool
    most: int | None
    lengths: np.ndarray
    items: tuple[tuple[int, str, int], ...]

    @classmethod
    def of(
        cls, context: InsertionContext, every: int, most: int | None, pool: Sequence[Entry], made: Edits | None
    ) -> Demand:
        """made: the edits that plant the pool once; None for a pool without texts."""
        first: dict[str, int] = {}
        for i, entry in enumerate(pool):
            first.setdefault(entry.id, i)
        items, taken = [], np.zeros(len(pool), dtype=np.int64)
        planted_ones = [] if made is None else [made.items[i] for i in np.unique(made.item).tolist()]
        for name, length in ((item.id, len(item.tokens)) for item in planted_ones):
            text = first[name if name in first else name.rpartition("#")[0]]  # a piece of a text that was split
            taken[text] += length
            items.append((text, name, length))
        lengths = taken[[first[entry.id] for entry in pool]]
        return cls(context, every, made is not None and made.on_full == "pack", most, lengths, tuple(items))

    @property
    def segments(self) -> int:
        window = self.context.window
        return -(-(window.last_step - window.first_step) // self.every)

    def tokens(self, count: int) -> int:
        """Tokens of `count` texts in a row, at most; the pool is taken cyclically."""
        size = len(self.lengths)
        rounds, rest = divmod(count, size) if size else (0, 0)
        edges = np.concatenate([[0], np.cumsum(np.tile(self.lengths, 2))])
        longest = int((edges[rest : rest + size] - edges[:size]).max()) if rest else 0
        return rounds * int(self.lengths.sum()) + longest

    def describe(self) -> str:
        """What the loop may come to at most."""
        if self.most is None:
            return "how many texts its controller may ask for is not known"
        tokens = self.tokens(self.most * self.segments)
        return f"at most {self.most:,} texts a segment, {tokens:,} tokens in all"


@dataclass(frozen=True)
class Room:
    """One segment. tokens: of it; taken: by other insertions; free, filled: tokens of the sequences that are not taken
    whole, and of those the ones that are taken."""

    first_step: int
    last_step: int
    tokens: int
    taken: int
    free: int
    filled: int

    def left(self, pack: bool) -> int:
        """Tokens that can still be planted, each where it is drawn or, packed, wherever there is room."""
        return int((1.0 if pack else _COMFORT) * self.free) - self.filled


def rooms(every: int, context: InsertionContext, plan: Plan | None = None) -> list[Room]:
    """The segments of a run, and what a plan takes of each."""
    phases, window = context.phases, context.window
    position, length = np.zeros((2, 0), dtype=np.int64)
    if plan is not None:
        rows = planted(plan.ledger())
        position, length = (rows[name].to_numpy().astype(np.int64) for name in ("position", "length"))
    pieces = split_at_sequences(position, length, phases)
    slots, which = np.unique(pieces.slot, return_inverse=True)
    taken = np.bincount(which, weights=pieces.length, minlength=len(slots)).astype(np.int64)
    zero = np.zeros_like(slots)
    whole = taken == phases.position(slots + 1, zero) - phases.position(slots, zero)
    found = []
    for step in range(window.first_step, window.last_step, every):
        end = min(step + every, window.last_step)
        low, high = np.searchsorted(slots, [phases.first_slot(step), phases.first_slot(end)])
        tokens, here = phases.position_of_step(end) - phases.position_of_step(step), taken[low:high]
        gone = int(here[whole[low:high]].sum())
        found.append(Room(step, end, tokens, int(here.sum()), tokens - gone, int(here.sum()) - gone))
    return found


def check_room(demands: Sequence[Demand], plan: Plan | None = None) -> None:
    """UserError where the most that the loops of a run may ask for finds no place in a segment beside the plan's edits.

    They share their segments. One that does not know how much it may ask for counts nothing.
    """
    known = [(each.tokens(each.most), each.most, each) for each in demands if each.most is not None]
    if not known:
        return
    asked, most, demand = max(known, key=lambda each: (each[0], each[2].context.name))
    others = sum(tokens for tokens, _, _ in known) - asked
    pack = all(each.pack for each in demands)
    room = min(rooms(demand.every, demand.context, plan), key=lambda room: room.left(pack))
    limit = max(room.left(pack) - others, 0)
    if asked > limit:
        beside = f", of which other insertions take {room.taken + others:,}" if room.taken + others else ""
        fitting = bisect_right(range(most), limit, key=demand.tokens) - 1
        raise UserError(
            f"{most:,} texts are up to {asked:,} tokens; a segment, steps {room.first_step:,} to {room.last_step:,}, "
            f"reads {room.tokens:,}{beside}; {limit:,} more can be planted",
            key=f"insertion.{demand.context.name}.controller.maximum",
            value=most,
            fix=f"at most {fitting:,}, or longer segments" + ("" if pack else ", or on_full: pack"),
        )


def items_to_come(demands: Sequence[Demand]) -> dict[tuple[str, str], int]:
    """The texts of their pools that loops can come to: tokens by insertion and item.

    Nothing of a loop whose controller does not know how much it may ask for.
    """
    return {
        (demand.context.name, name): length
        for demand in demands
        for text, name, length in demand.items
        if text < (demand.most or 0) * demand.segments
    }
