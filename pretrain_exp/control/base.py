"""What a controller is: what it is shown of the model in, what is to be planted in the next segment out.

    Seen (probes, their mean, the model, its own state)  --decide-->  Decision (how much, or which texts; new state)

A controller of one's own derives from `Controller` and is named by `_target_`; its fields are its configuration. It may
keep nothing between two calls but `state`, which is stored with the segment: each call may be in another process, on
another machine. ScriptController calls a program instead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pretrain_exp.control.probes import Probed
from pretrain_exp.errors import UserError


@dataclass(frozen=True)
class Seen:
    """What a controller is shown before a segment.

    step: updates done since the loop began; total: updates from there to its end; value: mean probability of the
    targets, None without probes; state: what its last decision left, {} at first; model: a Hugging Face folder that is
    gone afterwards; pool: number of texts at hand; seed: of this segment alone, for whatever is to be drawn.
    """

    step: int
    total: int
    value: float | None
    probes: tuple[Probed, ...]
    state: Mapping[str, Any]
    model: Path
    pool: int
    seed: int


@dataclass(frozen=True)
class Decision:
    """What is planted in the next segment: the next `count` texts of the pool, taken cyclically, and then `texts`.

    state: JSON values, shown to the next decision; numbers: what is worth a curve, by name; target: what `value` is
    held against, where the controller follows one.
    """

    state: Mapping[str, Any]
    count: int = 0
    texts: tuple[str, ...] = ()
    target: float | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


class Controller(ABC):
    """Plans one segment after the other. Deterministic: the same `Seen` gives the same `Decision`."""

    version: ClassVar[int] = 1
    """Of what it decides. Part of the loop's name: raised when the same fields and probes would give something else."""
    needs_probes: ClassVar[bool] = False

    @abstractmethod
    def decide(self, seen: Seen) -> Decision:
        """Called once before each segment."""

    def target_at(self, step: int, total: int) -> float | None:
        """What the mean probability should be after `step` of `total` updates; None where there is no such number."""
        return None

    def most(self) -> int | None:
        """The largest number of texts that it can ask of one segment; None: not known."""
        return None

    def files(self) -> list[tuple[str, str]]:
        """(field, path) of the files that must exist; their content is part of the loop's name."""
        return []


@dataclass(frozen=True, kw_only=True)
class Following(Controller):
    """A controller that follows a target with a number of texts in [minimum, maximum].

    target: mean probability at the end. rise: linear, target * s / S after s of S updates; constant: the target from
    the beginning on. start: texts of the first segment, before which there is nothing to react to.
    """

    target: float
    rise: Literal["linear", "constant"] = "linear"
    start: int = 1
    minimum: int = 1
    maximum: int = 8192

    needs_probes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.target <= 1:
            raise UserError("is a probability above 0", key="target", value=self.target)
        if not 0 <= self.minimum <= self.start <= self.maximum:
            fix = "let 0 <= minimum <= start <= maximum"
            raise UserError("lies outside minimum and maximum", key="start", value=self.start, fix=fix)

    def target_at(self, step: int, total: int) -> float:
        return self.target if self.rise == "constant" else self.target * step / total

    def most(self) -> int:
        return self.maximum

    def clamped(self, count: float) -> int:
        """The nearest number of texts that is allowed."""
        return int(min(max(round(count), self.minimum), self.maximum))
