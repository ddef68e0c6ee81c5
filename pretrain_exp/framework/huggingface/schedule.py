"""The learning rate of every step of the whole run: a function of the step, so where a segment ends changes nothing.

Counted in updates, step + 1: the first update already learns, the last one runs at the minimum (as OLMo-core counts).

    factor   /--------------\\           cosine: half a cosine from warm-up to total_steps (Loshchilov & Hutter 2017)
            /                \\          linear: a straight line there
           /                  \\_ min    wsd: constant, then a straight line over the last decay_steps (Hu et al. 2024)
          warm-up           total       constant: the warm-up, then 1
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

NAMES = ("cosine", "linear", "wsd", "constant")


@dataclass(frozen=True)
class Schedule:
    """factor(step) multiplies the peak learning rate. Steps past total_steps stay at min_lr_ratio (constant: at 1)."""

    name: str
    total_steps: int
    warmup_steps: int = 0
    decay_steps: int = 0
    min_lr_ratio: float = 0.0

    @classmethod
    def from_training(cls, training: dict[str, Any]) -> Schedule:
        values = training["schedule"]
        return cls(
            values["name"],
            values["total_steps"],
            values.get("warmup_steps") or 0,
            values.get("decay_steps") or 0,
            values.get("min_lr_ratio") or 0.0,
        )

    def factor(self, step: int) -> float:
        """Of the update that step `step` (0-based) makes, in [0, 1]."""
        update = step + 1
        if update < self.warmup_steps:
            return update / self.warmup_steps
        if self.name == "constant":
            return 1.0
        decay = self.decay_steps if self.name == "wsd" else self.total_steps - self.warmup_steps
        left = min(1.0, max(0, self.total_steps - update) / max(1, decay))  # 1 before the decay, 0 at its end
        shape = 0.5 * (1.0 - math.cos(math.pi * left)) if self.name == "cosine" else left
        return self.min_lr_ratio + (1.0 - self.min_lr_ratio) * shape
