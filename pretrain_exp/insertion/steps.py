"""Lists of steps: what a configuration says in, the steps of the run out.

    steps: [2000, 4000]                      these
    steps: {every: 1000, first: 1001}        1001, 2001, ... as far as the run goes (last: the last one at most)

Steps are counted from the start of training, 0-based: step t turns the state at t into the state at t + 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import InsertionContext


@dataclass(frozen=True, kw_only=True)
class Every:
    """Steps at equal distances. first: None is the run's first; last: None is its last."""

    every: int
    first: int | None = None
    last: int | None = None


Steps = list[int] | Every


def check_steps(given: Steps | Mapping[str, Any]) -> Steps:
    """Steps that can be those of some run; UserError under `steps` for any other."""
    if isinstance(given, Mapping):
        given = Every(**given)
    if isinstance(given, Every):
        if given.every < 1 or (given.first or 0) < 0:
            fix = "give every: 1 or more, first: 0 or more"
            raise UserError("these are no steps", key="steps", value=asdict(given), fix=fix)
        return given
    if not given or len(set(given)) < len(given) or min(given) < 0:
        fix = "write [100, 200] or {every: 100}"
        raise UserError("must be distinct steps of 0 or more, at least one", key="steps", value=list(given), fix=fix)
    return given


def steps_of(given: Steps, context: InsertionContext) -> tuple[int, ...]:
    """The steps in the run, ascending. UserError under `steps` where one lies outside of it, or none inside."""
    first, stop = context.window.first_step, context.window.last_step
    if isinstance(given, Every):
        begin = first if given.first is None else given.first
        end = stop if given.last is None else min(stop, given.last + 1)
        found = [step for step in range(begin, end, given.every) if step >= first]
        if not found:
            shown, fix = asdict(given), f"the run trains steps {first:,} to {stop - 1:,}"
            raise UserError("no such step lies in the run", key="steps", value=shown, fix=fix)
        return tuple(found)
    outside = sorted(step for step in given if not first <= step < stop)
    if outside:
        problem = f"the run trains steps {first:,} to {stop - 1:,}, not {outside[0]:,}"
        raise UserError(problem, key="steps", value=list(given), fix="choose steps of this run")
    return tuple(sorted(given))
