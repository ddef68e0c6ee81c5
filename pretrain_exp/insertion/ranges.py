"""Parts of a run: what a configuration says in, the positions [first, stop) out.

range: {start: 0.2, end: 0.4, unit: share}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator

from pretrain_exp.data.phases import Phases
from pretrain_exp.errors import UserError

if TYPE_CHECKING:
    from pretrain_exp.insertion.base import InsertionContext


@dataclass(frozen=True, kw_only=True)
class Range:
    """Part of a run. unit: `tokens` and `steps` count from the start of training, `share` is of this run, 0 to 1."""

    start: float
    end: float
    unit: Literal["tokens", "steps", "share"] = "tokens"


def _no_list(given: Any) -> Any:
    """A list of two bounds is a range without its unit: ValueError that shows what was meant."""
    if isinstance(given, list | tuple) and len(given) == 2:
        unit = "share" if all(isinstance(bound, int | float) and bound <= 1 for bound in given) else "steps"
        raise ValueError(f"is written {{start: {given[0]}, end: {given[1]}, unit: {unit}}}")
    return given


RangeField = Annotated[Range, BeforeValidator(_no_list)]


def check_range(given: Range | Mapping[str, Any]) -> Range:
    """A range that can be one in some run; UserError under `range` for any other."""
    found = Range(**given) if isinstance(given, Mapping) else given
    if not (isfinite(found.start) and isfinite(found.end)):
        raise UserError("bounds must be numbers", key="range", value=asdict(found), fix="write {start, end, unit}")
    if not found.start < found.end:
        raise UserError("the range must end after it starts", key="range", value=asdict(found), fix="swap or widen it")
    for value in (found.start, found.end):
        if found.unit != "share" and (value < 0 or value != int(value)):
            problem = f"bounds in {found.unit} must be whole numbers of 0 or more"
            raise UserError(problem, key="range", value=value, fix="round it, or use unit: share")
    return found


def span_of(given: Range | None, context: InsertionContext) -> tuple[int, int]:
    """The positions [first, stop) of a range, None: of the run. UserError where it leaves the run or is empty."""
    phases, window = context.phases, context.window
    first, stop = phases.position_of_step(window.first_step), phases.position_of_step(window.last_step)
    if given is None:
        return first, stop
    low, high = (_to_position(value, given.unit, phases, first, stop) for value in (given.start, given.end))
    if low < first or high > stop:
        raise UserError(
            f"the range, positions {low:,} to {high:,}, leaves the run, which reads {first:,} to {stop:,} "
            f"(steps {window.first_step:,} to {window.last_step:,})",
            key="range",
            value=asdict(given),
            fix=_way_in(given),
        )
    if low == high:
        raise UserError("the range holds no token", key="range", value=asdict(given), fix="widen it")
    return low, high


def _way_in(given: Range) -> str:
    if given.unit != "share":
        return "choose bounds inside the run, or unit: share"
    ways = f": {{start: {given.start / 100:g}, end: {given.end / 100:g}, unit: share}}"
    return f"shares go from 0 to 1{ways if given.start >= 0 and 2 <= given.end <= 100 else ''}"


def _to_position(value: float, unit: str, phases: Phases, first: int, stop: int) -> int:
    if unit == "share":
        return first + round(value * (stop - first))
    return int(value) if unit == "tokens" else phases.position_of_step(int(value))
