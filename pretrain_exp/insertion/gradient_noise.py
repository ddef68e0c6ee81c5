"""gradient_noise: Gaussian noise on the gradient of every parameter at given steps; a training hook, no edit of data.

In: steps and a scale. Out: a hook, which the plan, the ledger and the state's key hold as they hold edits. The noise
comes after clipping and is the same for any number of ranks and micro-batches (framework/worker/hooks.py). What it does
shows in the losses that other evaluations measure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import InsertionContext, keyed
from pretrain_exp.insertion.steps import Every, check_steps, steps_of
from pretrain_exp.plan.edits import EditItem, Edits, Hook
from pretrain_exp.plan.hashing import key64

_ITEM = "noise"


@dataclass(frozen=True, kw_only=True)
class GradientNoise:
    """Adds noise to gradients; see conf/insertion/gradient_noise.yaml."""

    steps: list[int] | Every
    sigma: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", check_steps(self.steps))
        check_sigma(self.sigma)

    def files(self) -> list[tuple[str, str]]:
        """(field, path) of the files that must exist."""
        return []

    def describe(self) -> str:
        """What happens, for the question of a report."""
        return f"noise of scale {self.sigma:g} on the gradient"

    @keyed
    def edits(self, context: InsertionContext) -> Edits:
        """No edit, one hook. UserErrors carry the full key, insertion.<name>.<field>."""
        steps = steps_of(self.steps, context)
        none = np.zeros(0, dtype=np.int32)
        name = f"{context.name}/{_ITEM}"
        item = EditItem(name, np.zeros(0, dtype=np.uint32), group=f"sigma {self.sigma:g}", dose=len(steps))
        seed = key64(context.seed, context.name, "gradient noise") >> 1
        hook = Hook(name, "gradient_noise", steps, float(self.sigma), seed)
        return Edits(context.name, [item], none, none, mode="explicit", position=none.astype(np.int64), hooks=(hook,))


def check_sigma(sigma: float) -> None:
    """UserError where the scale of a noise is none."""
    if not 0 < sigma < float("inf"):
        raise UserError("the scale of the noise must be above 0", key="sigma", value=sigma)
