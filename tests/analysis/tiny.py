"""Studies small enough to check by hand: scores by arm and seed, doses by item in, a StudyData out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pretrain_exp.analysis.design import Design
from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.scores import read_doses, read_scores
from pretrain_exp.analysis.study import ITEMS, RESULTS, StudyData

Run = tuple[str, str, int]  # member, arm, seed
PROOF = {"member": "", "seed": 0, "arm": "treated", "rows_checked": 9, "mismatches": 0, "missing": 0, "duplicate": 0}


def results(
    scores: Mapping[Run, Sequence[float]],
    metric: str = "acc",
    step: int = 100,
    evaluation: str = "multiple_choice",
    task: str = "planted",
) -> pa.Table:
    """Item i of a run is called "i<i>"."""
    rows = [
        (evaluation, task, f"i{index}", metric, float(value), arm, seed, step, member)
        for (member, arm, seed), values in scores.items()
        for index, value in enumerate(values)
    ]
    return pa.table(
        [pa.array(column, f.type) for column, f in zip(zip(*rows, strict=True), RESULTS, strict=True)], RESULTS
    )


def items(
    doses: Mapping[tuple[str, int], Sequence[int]], groups: Sequence[str] | None = None, insertion: str = "plant"
) -> pa.Table:
    """doses: (member, seed) -> dose of item 0, 1, ..."""
    rows = [
        (member, seed, insertion, f"i{index}", groups[index] if groups else "", dose, f"text {index}")
        for (member, seed), of_items in doses.items()
        for index, dose in enumerate(of_items)
    ]
    return _table(rows, ITEMS)


def _table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema)


def study(scores: pa.Table, planned: pa.Table | None = None, **fields: Any) -> StudyData:
    given: dict[str, Any] = {"proofs": [{**PROOF, "ok": True}], "title": "t", "question": "q"}
    return StudyData(results=scores, items=planned, **(given | fields))


def design(data: StudyData, resamples: int = 0) -> Design:
    scores = read_scores(data.results)
    return Design(scores, read_doses(data.items, scores.items), resamples=resamples)


def one(rows: list[Estimate], **where: object) -> Estimate:
    """The only row of which this holds."""
    found = [row for row in rows if all(getattr(row, key) == value for key, value in where.items())]
    assert len(found) == 1, found
    return found[0]
