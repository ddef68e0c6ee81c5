"""batches: whole batches replaced by unseen data at given steps; their loss over the steps is a forgetting curve.

In: a list of steps. Out: edits, one a row of each such batch: a sequence from later in the data order, read once. A
state saved every few steps around them, scored by `planted_texts`, shows how the loss of a batch falls when it is read
and comes back afterwards (paper of Train Once, Answer All, experiment 8).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pretrain_exp.insertion.base import InsertionContext, keyed
from pretrain_exp.insertion.steps import Every, check_steps, steps_of
from pretrain_exp.insertion.unseen import Place, check_counts, replace_sequences
from pretrain_exp.plan.edits import Edits


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Replaces whole batches; see conf/insertion/batches.yaml."""

    steps: list[int] | Every
    score: int | None = 16
    holdout: int = 16

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", check_steps(self.steps))
        check_counts(self.score, self.holdout)

    def files(self) -> list[tuple[str, str]]:
        """(field, path) of the files that must exist."""
        return []

    def describe(self) -> str:
        """What is read, for the question of a report."""
        return "a batch once"

    @keyed
    def edits(self, context: InsertionContext) -> Edits:
        """The edits of all batches. UserErrors carry the full key, insertion.<name>.<field>."""
        places = []
        for step in steps_of(self.steps, context):
            slots = np.array(context.phases.slots(step), dtype=np.int64)
            for row, position in enumerate(context.phases.position(slots, np.zeros_like(slots)).tolist()):
                places.append(Place(f"step{step}/row{row}", f"step {step}", position))
        return replace_sequences(context, places, self.score, self.holdout)
