"""When in its range a copy is read: a density in, the span of positions in which each row is placed out.

    uniform        |xxxxxxxxxxxxxxxx|   anywhere (no spans: one range for all)
    early, late    |xxxxxxx xx x   .|   weights of 16 equal parts fall, or rise, linearly
    [4, 1, 1, 2]   |xxxx|x|x|xx     |   weights of as many equal parts
    {every: 100}   |x    x    x    x|   in these steps only; the copies of an item follow each other, one a step
    spaced         |x x  x   x     x|   copy k of an item at k^2: every gap is longer than the one before

The part of a row is a hash of (seed, insertion, item, copy), of an item for {every: n}; in its span a row is placed
uniformly (plan/placement.py). So a density is exact whatever else is planted, and nothing that is added or removed
moves another's part. Parts are whole sequences, so they differ by one where a range does not divide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pretrain_exp.errors import UserError
from pretrain_exp.plan.hashing import key64, mix

if TYPE_CHECKING:
    from pretrain_exp.insertion.base import InsertionContext
    from pretrain_exp.plan.edits import EditItem

_PARTS = 16
Span = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Periodic:
    """Steps at equal distances. first: counted from the start of training; None is the first of the range."""

    every: int
    first: int | None = None


Density = Literal["uniform", "early", "late", "spaced"] | list[float] | Periodic


def check_density(given: Density | Mapping[str, Any], mode: str) -> Density:
    """A density that can be one in some run; UserError under `density` for any other."""
    found: Density = Periodic(**given) if isinstance(given, Mapping) else given
    if mode == "explicit" and found != "uniform":
        problem = "explicit positions leave nothing to draw"
        raise UserError(problem, key="density", value=_shown(found), fix="leave it at uniform")
    if isinstance(found, Periodic) and (found.every < 1 or (found.first or 0) < 0):
        fix = "give every: 1 or more, first: 0 or more"
        raise UserError("these are no steps", key="density", value=asdict(found), fix=fix)
    if isinstance(found, list) and (
        len(found) < 2 or not all(0 <= weight < float("inf") for weight in found) or sum(found) <= 0
    ):
        problem, fix = "must be two or more weights of 0 or more, not all 0", "write [4, 2, 1, 1]"
        raise UserError(problem, key="density", value=found, fix=fix)
    return found


def spans_of(
    density: Density, span: Span, context: InsertionContext, items: Sequence[EditItem], rows: np.ndarray
) -> np.ndarray | None:
    """The span of each row, int64 (n, 2); None where all have the whole range.

    span: positions [first, stop) of the range. items: with their doses; rows: int64 (n, 2), index of the item and copy.
    UserError under `density` where the range is too short for it.
    """
    if density == "uniform":
        return None
    if isinstance(density, Periodic):
        windows = _steps(density, span, context)
        begins = np.array([key64(context.seed, context.name, item.id, "period") % len(windows) for item in items])
        return np.array(windows, dtype=np.int64)[(begins[rows[:, 0]] + rows[:, 1]) % len(windows)]
    slots = _whole_sequences(span, context)
    if density == "spaced":
        doses = sorted({item.dose for item in items if item.dose})
        by_dose = {dose: _spaced(dose, slots, context) for dose in doses}
        out = [by_dose[items[i].dose][copy] for i, copy in rows.tolist()]
        return np.array(out, dtype=np.int64).reshape(-1, 2)
    return _weighted(_weights(density, slots), slots, context, items, rows)


def _shown(density: Density) -> Any:
    return asdict(density) if isinstance(density, Periodic) else density


def _weights(density: Any, slots: range) -> list[float]:
    if isinstance(density, list):
        if len(density) > len(slots):
            problem = f"the range has {len(slots):,} whole sequences, fewer than there are weights"
            raise UserError(problem, key="density", value=density, fix="give fewer weights, or widen the range")
        return density
    rising = [float(i + 1) for i in range(min(_PARTS, len(slots)))]
    return rising if density == "late" else rising[::-1]


def _weighted(
    weights: list[float], slots: range, context: InsertionContext, items: Sequence[EditItem], rows: np.ndarray
) -> np.ndarray:
    """A part of the range for each row, drawn with its weight times its sequences."""
    edges = [len(slots) * i // len(weights) for i in range(len(weights) + 1)]
    mass = np.array([weight * (high - low) for weight, (low, high) in zip(weights, pairwise(edges), strict=True)])
    keys = np.array([key64(context.seed, context.name, item.id, "density") for item in items], dtype=np.uint64)
    uniform = (mix(keys[rows[:, 0]], rows[:, 1]) >> np.uint64(11)) * 2.0**-53  # in [0, 1)
    cumulative = np.cumsum(mass) / mass.sum()
    part = np.searchsorted(cumulative, uniform, side="right").clip(max=np.flatnonzero(mass)[-1])
    windows = [_positions(slots.start + low, slots.start + high, context) for low, high in pairwise(edges)]
    return np.array(windows, dtype=np.int64)[part]


def _spaced(dose: int, slots: range, context: InsertionContext) -> list[Span]:
    """Window k begins at k^2 widths: then no gap is shorter than the one before, wherever in its window a copy lies."""
    width = len(slots) // ((dose - 1) ** 2 + 1)
    if not width:
        problem = f"{dose:,} copies at growing distances need {(dose - 1) ** 2 + 1:,} sequences, the range has "
        fix = "plant fewer copies of an item, or widen the range"
        raise UserError(f"{problem}{len(slots):,}", key="density", value="spaced", fix=fix)
    begins = [slots.start + width * copy**2 for copy in range(dose)]
    return [_positions(begin, begin + width, context) for begin in begins]


def _steps(density: Periodic, span: Span, context: InsertionContext) -> list[Span]:
    """The positions of each step that lies in the range with all its tokens."""
    phases, window = context.phases, context.window
    low, high = window.first_step if density.first is None else density.first, window.last_step
    if density.first is None:
        low = next(step for step in range(low, high + 1) if phases.position_of_step(step) >= span[0])
    found = [
        (phases.position_of_step(step), phases.position_of_step(step + 1)) for step in range(low, high, density.every)
    ]
    found = [each for each in found if span[0] <= each[0] and each[1] <= span[1]]
    if not found:
        problem = f"no such step lies in the range, positions {span[0]:,} to {span[1]:,}"
        raise UserError(problem, key="density", value=asdict(density), fix="choose steps of the range")
    return found


def _whole_sequences(span: Span, context: InsertionContext) -> range:
    slots, columns = context.phases.locate(np.array(span, dtype=np.int64))
    found = range(int(slots[0] + (columns[0] > 0)), int(slots[1]))
    if not len(found):
        problem = f"the range, positions {span[0]:,} to {span[1]:,}, holds no whole sequence"
        raise UserError(problem, key="density", fix="widen the range, or density: uniform")
    return found


def _positions(first_slot: int, stop_slot: int, context: InsertionContext) -> Span:
    starts = context.phases.position(np.array([first_slot, stop_slot]), np.zeros(2, dtype=np.int64))
    return int(starts[0]), int(starts[1])
