"""When items were learned, of checkpoints that `pretrain-exp evaluate` scored: the table of scores in, codes out.

    items.parquet of one run at several steps --> learned.parquet      a code an item: learned at 1000, never, ...
                  several such runs           --> recurrence.parquet   how often another run gives the same code

A run is an arm of a member and seed of a study, or checkpoints whose names differ in their step alone. Codes recur
among runs that repeat each other: the controls of one study, and the runs of no study, which the command put together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pretrain_exp.analysis.learned import describe, learned_at, recurrence
from pretrain_exp.analysis.metrics import SIZES

SERIES, RUN = ("evaluation", "task", "metric"), ("study", "arm", "member", "seed")
REPEATED = ("control", None)  # arms whose runs repeat each other
_NAMES = [(name, pa.string()) for name in (*SERIES, "study", "arm")]
LEARNED = pa.schema(
    [*_NAMES, ("member", pa.string()), ("seed", pa.int64()), ("item", pa.string()), ("code", pa.string())]
)
_SHARES = ("picked", "again", "earlier", "later", "other", "right")
RECURRENCE = pa.schema(
    [*_NAMES, ("step", pa.int64()), ("runs", pa.int64()), *((name, pa.float64()) for name in _SHARES)]
)


class Answers(NamedTuple):
    """Of one run in one series: steps ascending, items, right or wrong (items, steps), checkpoints by step."""

    series: tuple[str, ...]
    run: tuple[Any, ...]
    steps: list[int]
    items: list[str]
    right: np.ndarray
    checkpoints: tuple[str, ...]


def answers(table: pa.Table) -> list[Answers]:
    """Of all runs that were scored at two steps or more, by every metric that is right or wrong wherever it is."""
    sizes = pc.is_in(table["metric"], pa.array(sorted(SIZES)))
    table = table.filter(pc.and_(pc.invert(sizes), pc.is_valid(table["step"])))
    if not len(table):
        return []
    codes = np.stack([_encoded(table[name])[0] for name in (*SERIES, *RUN)], axis=1)
    _, group = np.unique(codes, axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    found = [_answers(table.take(pa.array(rows))) for rows in groups]
    graded = {each.series for each in found if not np.isin(each.right[~np.isnan(each.right)], (0, 1)).all()}
    return [each for each in found if each.series not in graded and len(each.steps) > 1]


def _answers(table: pa.Table) -> Answers:
    """Of rows of one run and series."""
    first = table.slice(0, 1).to_pylist()[0]
    steps, at = np.unique(table["step"].to_numpy(), return_inverse=True)
    place, items = _encoded(table["item"])
    right = np.full((len(items), len(steps)), np.nan)
    right[place, at] = table["value"].to_numpy()
    identities, checkpoints = table["identity"], np.unique(at, return_index=True)[1].tolist()
    return Answers(
        tuple(first[name] for name in SERIES),
        tuple(first[name] for name in RUN),
        steps.tolist(),
        items,
        right,
        tuple(identities[row].as_py() for row in checkpoints),
    )


def _encoded(column: pa.ChunkedArray) -> tuple[np.ndarray, list[Any]]:
    """A number for each value, and the values."""
    found = column.combine_chunks().dictionary_encode(null_encoding="encode")
    return found.indices.to_numpy(), found.dictionary.to_pylist()


def learned_table(found: list[Answers]) -> pa.Table:
    """A row an item of each run: its code."""
    rows = [
        (*each.series, *each.run, item, describe(int(code)))
        for each in found
        for item, code in zip(each.items, learned_at(each.right, each.steps), strict=True)
    ]
    return _table(LEARNED, rows)


def recurrence_table(found: list[Answers]) -> pa.Table:
    """A row a series and step, of two runs or more at the same steps; a run that several members share is one."""
    groups: dict[tuple[Any, ...], dict[tuple[str, ...], Answers]] = {}
    for each in found:
        study, arm = each.run[:2]
        if arm in REPEATED:
            groups.setdefault((*each.series, study, arm, tuple(each.steps)), {})[each.checkpoints] = each
    return _table(RECURRENCE, [row for key, runs in groups.items() for row in _recurrences(key, list(runs.values()))])


def _recurrences(key: tuple[Any, ...], runs: list[Answers]) -> Iterator[tuple[Any, ...]]:
    shared = sorted(set.intersection(*(set(run.items) for run in runs)))
    if len(runs) < 2 or not shared:
        return
    places = [{item: i for i, item in enumerate(run.items)} for run in runs]
    rows = [run.right[[place[item] for item in shared]] for run, place in zip(runs, places, strict=True)]
    whole = ~np.isnan(np.stack(rows)).any(axis=(0, 2))
    *where, steps = key
    for each in recurrence([right[whole] for right in rows], steps) if whole.any() else []:
        shares = (each.picked, each.again, each.earlier, each.later, each.other, each.accuracy[each.step])
        yield (*where, each.step, len(runs), *shares)


def _table(schema: pa.Schema, rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[] for _ in schema]
    return pa.table([pa.array(column, each.type) for column, each in zip(columns, schema, strict=True)], schema)
