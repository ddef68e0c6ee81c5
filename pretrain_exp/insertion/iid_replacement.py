"""iid_replacement: sequences replaced by unseen ones of the same distribution, as many in each window of time.

    range    |------ window 0 ------|------ window 1 ------|------ window 2 ------|     windows: 3
                 x      x                x  x                   x          x            sequences: 2

Nothing about the data changes but which of it is read: what is scored is how well a sequence is known by when it was
read, against unseen ones that never were (`planted_texts`). Conditions are insertions of their own names.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import InsertionContext, keyed
from pretrain_exp.insertion.ranges import RangeField, check_range, span_of
from pretrain_exp.insertion.unseen import Place, check_counts, replace_sequences
from pretrain_exp.plan.edits import Edits, OnFull


@dataclass(frozen=True, kw_only=True)
class IidReplacement:
    """Replaces random sequences by unseen ones; see conf/insertion/iid_replacement.yaml."""

    sequences: int
    windows: int = 10
    range: RangeField | None = None
    score: int | None = 64
    holdout: int = 64
    on_full: OnFull = "error"

    def __post_init__(self) -> None:
        if self.range is not None:
            object.__setattr__(self, "range", check_range(self.range))
        for name, value in (("sequences", self.sequences), ("windows", self.windows)):
            if value < 1:
                raise UserError("must be 1 or more", key=name, value=value)
        check_counts(self.score, self.holdout)

    def files(self) -> list[tuple[str, str]]:
        """(field, path) of the files that must exist."""
        return []

    def describe(self) -> str:
        """What is read, for the question of a report."""
        return "an unseen sequence once"

    @keyed
    def edits(self, context: InsertionContext) -> Edits:
        """The edits of all windows. UserErrors carry the full key, insertion.<name>.<field>."""
        places = [
            Place(f"window{i}/{k}", f"window {i}", span=span)
            for i, span in enumerate(self._windows(context))
            for k in range(self.sequences)
        ]
        return replace_sequences(context, places, self.score, self.holdout, self.on_full)

    def _windows(self, context: InsertionContext) -> list[tuple[int, int]]:
        """The positions of each window, cut where sequences begin. UserError where one holds too few sequences."""
        slots, columns = context.phases.locate(np.array(span_of(self.range, context), dtype=np.int64))
        begin, end = int(slots[0] + (columns[0] > 0)), int(slots[1])  # whole sequences of the range
        edges = [begin + (end - begin) * i // self.windows for i in range(self.windows + 1)]
        smallest = min(high - low for low, high in pairwise(edges))
        if smallest < self.sequences:
            problem = f"the smallest of {self.windows} windows has {smallest:,} sequences, of which {self.sequences:,} "
            fix = "replace fewer, take fewer windows, or train longer"
            raise UserError(problem + "are to be replaced", key="sequences", value=self.sequences, fix=fix)
        starts = context.phases.position(np.array(edges), np.zeros(len(edges), dtype=np.int64))
        return list(pairwise(starts.tolist()))
