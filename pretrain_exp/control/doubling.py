"""Doubling and halving: Algorithm 1 of "Train Once, Answer All" (arXiv:2509.23383).

After s of S updates, with v the mean probability of the targets and p(s) the target at s:

    v > 1.05 p(s)   half as many texts as in the segment before
    v < 0.95 p(s)   twice as many
    else            as many

The number changes by at most `max_change` and stays in [minimum, maximum]. The first segment gets `start` texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pretrain_exp.control.base import Decision, Following, Seen
from pretrain_exp.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Doubling(Following):
    """upper, lower: the band around p(s), as factors of it. max_change: texts, or {step: texts} from these steps on."""

    upper: float = 1.05
    lower: float = 0.95
    max_change: int | dict[int, int] = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lower <= self.upper:
            raise UserError("is above `upper`", key="lower", value=self.lower, fix="swap the two")
        for key in ("minimum", "start"):
            if getattr(self, key) < 1:
                raise UserError("must be at least 1: nothing can be doubled", key=key, value=getattr(self, key))
        changes = self.max_change.values() if isinstance(self.max_change, Mapping) else [self.max_change]
        if any(change < 1 for change in changes):
            raise UserError("must be at least 1", key="max_change", value=self.max_change)

    def decide(self, seen: Seen) -> Decision:
        assert seen.value is not None, "a controller that needs probes is given some"
        before = int(seen.state.get("count", self.start))
        target, count = self.target_at(seen.step, seen.total), before
        if seen.step > 0:
            if seen.value > self.upper * target:
                count = before // 2
            elif seen.value < self.lower * target:
                count = before * 2
        change = self._max_change(seen.step)
        if change is not None:
            count = min(max(count, before - change), before + change)
        count = self.clamped(count)
        return Decision({"count": count}, count=count, target=target)

    def _max_change(self, step: int) -> int | None:
        """None: before the first step that names a limit."""
        if not isinstance(self.max_change, Mapping):
            return self.max_change
        reached = [first for first in self.max_change if first <= step]
        return self.max_change[max(reached)] if reached else None
