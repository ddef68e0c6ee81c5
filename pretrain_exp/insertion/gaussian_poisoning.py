"""gaussian_poisoning: noise N(0, sigma^2) on the input embeddings of whole batches, or of random sequences or spans.

    steps: [100, 200]                 every row of these batches
    sequences: 50                     50 random whole sequences of the run (or of `range`)
    sequences: 50, length: 32         50 random spans of 32 tokens, each in one sequence

The tokens stay. The noise of a span is a function of (seed of the plan, slot, column) alone (plan/overlay.py), so it is
the same on every number of ranks and micro-batches, and is made again, never stored, when `gaussian_watermark` asks
whether the model bears its trace. Items are sequences as the data hold them; where another insertion changes the rest
of a sequence of which only a span has noise, the test sees the sequence without that change. (The watermark of Train
Once, Answer All, experiment 6; Pawelczyk et al. 2024, "Machine unlearning fails to remove data poisoning attacks".)
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import InsertionContext, keyed
from pretrain_exp.insertion.gradient_noise import check_sigma
from pretrain_exp.insertion.ranges import RangeField, check_range, span_of
from pretrain_exp.insertion.steps import Every, check_steps, steps_of
from pretrain_exp.insertion.unseen import scored_names
from pretrain_exp.plan.edits import EditItem, Edits, OnFull

KIND = "gaussian_watermark"
_NONE = np.zeros(0, dtype=np.uint32)


@dataclass(frozen=True, kw_only=True)
class GaussianPoisoning:
    """Adds noise to embeddings; see conf/insertion/gaussian_poisoning.yaml."""

    sigma: float = 0.075
    steps: list[int] | Every | None = None
    sequences: int | None = None
    length: int | None = None
    range: RangeField | None = None
    score: int | None = 64
    on_full: OnFull = "error"

    def __post_init__(self) -> None:
        check_sigma(self.sigma)
        if (self.steps is None) == (self.sequences is None):
            problem = "noise goes on whole batches or on random sequences"
            raise UserError(problem, key="steps", value=self.steps, fix="give one of steps and sequences")
        if self.steps is not None:
            object.__setattr__(self, "steps", check_steps(self.steps))
            unused = [name for name in ("length", "range") if getattr(self, name) is not None]
            if unused:
                problem = "whole batches have no such choice"
                raise UserError(problem, key=unused[0], value=getattr(self, unused[0]), fix="leave it null")
            if self.on_full != "error":
                problem = "whole batches lie where they lie: what meets another insertion there is an error"
                raise UserError(problem, key="on_full", value=self.on_full, fix="leave it at error")
        if self.range is not None:
            object.__setattr__(self, "range", check_range(self.range))
        for name in ("sequences", "length", "score"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError("must be 1 or more", key=name, value=value)

    def files(self) -> list[tuple[str, str]]:
        """(field, path) of the files that must exist."""
        return []

    def describe(self) -> str:
        """What happens, for the question of a report."""
        return f"noise of scale {self.sigma:g} on the embeddings of a text"

    @keyed
    def edits(self, context: InsertionContext) -> Edits:
        """The spans that get noise. UserErrors carry the full key, insertion.<name>.<field>."""
        return self._batches(context) if self.steps is not None else self._random(context)

    def _batches(self, context: InsertionContext) -> Edits:
        assert self.steps is not None
        names, groups, positions = [], [], []
        for step in steps_of(self.steps, context):
            slots = np.array(context.phases.slots(step), dtype=np.int64)
            positions.append(context.phases.position(slots, np.zeros_like(slots)))
            names += [f"{context.name}/step{step}/row{row}" for row in range(len(slots))]
            groups += [f"step {step}"] * len(slots)
        asked = self._asked(context, names, groups, context.sequence_length)
        return replace(asked, mode="explicit", position=np.concatenate(positions))

    def _random(self, context: InsertionContext) -> Edits:
        assert self.sequences is not None
        length = context.sequence_length if self.length is None else self.length
        if length > context.sequence_length:
            fix = f"give {context.sequence_length} or fewer"
            raise UserError("a span lies in one sequence", key="length", value=length, fix=fix)
        names = [f"{context.name}/span{i}" for i in range(self.sequences)]
        group = "sequences" if self.length is None else f"spans of {length}"
        asked = self._asked(context, names, [group] * len(names), length)
        return replace(asked, span=span_of(self.range, context), on_full=self.on_full)

    def _asked(self, context: InsertionContext, names: list[str], groups: list[str], length: int) -> Edits:
        n = np.arange(len(names), dtype=np.int32)
        scored = scored_names(context, list(zip(names, groups, strict=True)), self.score)

        def fill_in(request: Edits, positions: np.ndarray, _slots: np.ndarray | None) -> list[EditItem]:
            slots, columns = context.phases.locate(positions)
            items = list(request.items)
            for i, slot, column in zip(request.item.tolist(), slots.tolist(), columns.tolist(), strict=True):
                if items[i].id in scored:
                    fields = {"kind": KIND, "sigma": float(np.float32(self.sigma)), "seed": context.seed}
                    fields |= {"slot": slot, "column": column, "length": length}
                    payload = json.dumps(fields, separators=(",", ":"))
                    items[i] = replace(items[i], tokens=context.data.read(slot), payload=payload)
            return items

        return Edits(
            insertion=context.name,
            items=[EditItem(name, _NONE, group=group, dose=1) for name, group in zip(names, groups, strict=True)],
            item=n,
            copy=np.zeros_like(n),
            kind="noise",
            length=np.full(len(n), length, dtype=np.int64),
            sigma=np.full(len(n), self.sigma, dtype=np.float32),
            fill_in=fill_in,
        )
