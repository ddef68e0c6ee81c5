"""When each item was last read, and what happened since: ledger and training curves in, distances out.

of_facts     the same table with facts for the texts and probes that belong to them
last_reads   (unit, insertion) -> item or fact -> the last step that read it
Clock        of one run: tokens read before a step; what the optimizer's decay leaves of a weight from it on
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pretrain_exp.analysis.contrasts import Vector
from pretrain_exp.analysis.scores import Unit
from pretrain_exp.analysis.study import StudyData
from pretrain_exp.items.facts import fact_of
from pretrain_exp.tracking.metrics import LEARNING_RATE, TOKENS


def of_facts(table: pa.Table) -> pa.Table:
    """Items or ledger with `item` the fact that it belongs to, and `dose` how often the whole fact was planted.

    A row of no fact stays. In a table of items the dose of a fact is the largest of its items, which its probes have.
    """
    names = table["item"].to_pylist()
    facts = [fact_of(name) for name in names]
    if facts == names:
        return table
    doses = table["dose"].to_pylist()
    keys = list(zip(*(table[name].to_pylist() for name in ("member", "seed", "insertion")), facts, strict=True))
    most: dict[tuple[object, ...], int] = defaultdict(int)
    if "status" in table.column_names:
        for key in keys:
            most[key] += 1
    else:
        for key, dose in zip(keys, doses, strict=True):
            most[key] = max(most[key], dose)
    given = [most[k] if f != n else d for k, f, n, d in zip(keys, facts, names, doses, strict=True)]
    for name, values, kind in (("item", facts, pa.string()), ("dose", given, pa.int64())):
        table = table.set_column(table.column_names.index(name), name, pa.array(values, kind))
    return table


def last_reads(study: StudyData) -> dict[tuple[Unit, str], dict[str, int]]:
    """(unit, insertion) -> item (and the fact that it belongs to) -> the last step that read it."""
    planted = study.ledger.filter(pc.equal(study.ledger["status"], "planted"))
    found: dict[tuple[Unit, str], dict[str, int]] = defaultdict(dict)
    columns = [planted[name].to_pylist() for name in ("member", "seed", "insertion", "item", "step")]
    for member, seed, insertion, item, step in zip(*columns, strict=True):
        reads = found[Unit(member, seed), insertion]
        for name in {item, fact_of(item)}:
            reads[name] = max(step, reads.get(name, -1))
    return found


@dataclass(frozen=True)
class Clock:
    """Of one treated run: tokens(step) read before it, and left(first, state) of a weight; None if not logged."""

    tokens: Callable[[Vector], Vector] | None
    left: Callable[[Vector, int], Vector] | None

    @classmethod
    def of(cls, study: StudyData, unit: Unit) -> Clock:
        curves = study.curves
        mine = pc.and_(pc.equal(curves["member"], unit.member), pc.equal(curves["seed"], unit.seed))
        run = curves.filter(pc.and_(mine, pc.equal(curves["arm"], "treated")))
        decay = study.weight_decay.get(unit.member)
        rate = None if decay is None else _curve(run, LEARNING_RATE)
        tokens = _curve(run, TOKENS)
        return cls(
            None if tokens is None else _tokens_before(*tokens),
            None if rate is None or decay is None else _left(*rate, decay),
        )


def _curve(run: pa.Table, metric: str) -> tuple[Vector, Vector] | None:
    chosen = run.filter(pc.equal(run["metric"], metric)).sort_by("step")
    if len(chosen) < 2:
        return None
    return chosen["step"].to_numpy().astype(float), chosen["value"].to_numpy()


def _tokens_before(steps: Vector, tokens: Vector) -> Callable[[Vector], Vector]:
    """Tokens read before a step, from those logged after some steps; straight on beyond them."""
    ends = np.concatenate([[steps[0] - 1], steps])  # after step s = before step s + 1
    first = tokens[0] - (tokens[1] - tokens[0]) / (steps[1] - steps[0])
    values = np.concatenate([[first], tokens])
    return lambda at: np.interp(np.asarray(at, float) - 1, ends, values)


def _left(steps: Vector, rates: Vector, decay: float) -> Callable[[Vector, int], Vector]:
    """Share of a weight that decay alone leaves at a state, from each of these steps on: prod(1 - lr decay) (AdamW)."""

    def left(first: Vector, state: int) -> Vector:
        begin = int(min(first))
        every = np.interp(np.arange(begin, state), steps, rates)
        logs = np.log1p(-every * decay)
        rest = np.concatenate([np.cumsum(logs[::-1])[::-1], [0.0]])  # of all steps from this one on
        return np.exp(rest[np.asarray(first, np.int64) - begin])

    return left
