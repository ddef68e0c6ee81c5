"""All that a report is made of: what was asked, scored, planted, read and spent, as one value.

    results  long   evaluation, task, item, metric, value, arm, seed, step, member
    items           member, seed, insertion, item, group, dose, text      dose 0 = holdout
    ledger          member, seed + the plan's ledger (insertion, item, dose, step, length, status, ...)
    curves   long   member, arm, seed, step, metric, value

`member` labels a variant of a sweep over something other than the seed ("repetitions=4"), "" when there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

ARMS = ("treated", "control", "placebo")
ONLY = "only_"  # before the name of an insertion: the arm that reads the edits of it alone

RESULTS = pa.schema(
    [
        ("evaluation", pa.string()),
        ("task", pa.string()),
        ("item", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("step", pa.int64()),
        ("member", pa.string()),
    ]
)
ITEMS = pa.schema(
    [
        ("member", pa.string()),
        ("seed", pa.int64()),
        ("insertion", pa.string()),
        ("item", pa.string()),
        ("group", pa.string()),
        ("dose", pa.int64()),
        ("text", pa.string()),
    ]
)
LEDGER = pa.schema(
    [
        ("member", pa.string()),
        ("seed", pa.int64()),
        ("insertion", pa.string()),
        ("item", pa.string()),
        ("dose", pa.int64()),
        ("step", pa.int64()),
        ("length", pa.int64()),
        ("status", pa.string()),
    ]
)
CURVES = pa.schema(
    [
        ("member", pa.string()),
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("step", pa.int64()),
        ("metric", pa.string()),
        ("value", pa.float64()),
    ]
)


@dataclass(frozen=True)
class StudyData:
    """The input of the analysis and of the report.

    results, items, ledger, curves: as above; further columns are kept and not looked at; None is an empty table.
    proofs:   {member, seed, arm, rows_checked, mismatches, missing, duplicate, ok}; a count is a number, a list, or a
              number under num_<name>; ledger_errors, if any, are sentences.
    audits:   {member, seed, arm, ok, findings, searched}; a finding is a string or a mapping; searched: whether holdout
              items were sought in the data of the run too.
    examples: {member, seed, insertion, item, dose, step, row, column, before, planted, after}: texts around an edit.
    varies:   seed name ("placement", "order", "init") -> its values over the study.
    cost:     {seconds, tokens, states trained, ...}: shown as given.
    weight_decay: variant -> that of its optimizer, where it is one number.
    status:   what went wrong on the way (an evaluation that failed), one sentence each.
    notes:    what evaluations said of their scores (what was not scored, and why), one sentence each.
    measured_by: insertion -> names of the evaluations that are made for its kind.
    control: what closed loops were to reach, reached and planted, a row a loop and boundary (control/table.py).
    """

    title: str
    question: str
    results: pa.Table
    items: pa.Table = field(default_factory=ITEMS.empty_table)
    ledger: pa.Table = field(default_factory=LEDGER.empty_table)
    curves: pa.Table = field(default_factory=CURVES.empty_table)
    command: str = ""
    versions: Mapping[str, Any] = field(default_factory=dict)
    fingerprints: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    proofs: Sequence[Mapping[str, Any]] = ()
    audits: Sequence[Mapping[str, Any]] = ()
    examples: Sequence[Mapping[str, Any]] = ()
    varies: Mapping[str, Sequence[int]] = field(default_factory=dict)
    weight_decay: Mapping[str, float] = field(default_factory=dict)
    status: Sequence[str] = ()
    notes: Sequence[str] = ()
    measured_by: Mapping[str, Sequence[str]] = field(default_factory=dict)
    control: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        for name, schema in (("results", RESULTS), ("items", ITEMS), ("ledger", LEDGER), ("curves", CURVES)):
            table = getattr(self, name)
            object.__setattr__(self, name, schema.empty_table() if table is None else _conform(name, table, schema))
        arms = set(self.results["arm"].unique().to_pylist()) - set(ARMS)
        arms = {arm for arm in arms if not arm.startswith(ONLY)}
        if arms:
            raise ValueError(f"results: unknown arms {sorted(arms)}, known are {list(ARMS)} and {ONLY}<insertion>")


def _conform(name: str, table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the named columns in their types, others after them as they are."""
    missing = [column for column in schema.names if column not in table.column_names]
    if missing:
        raise ValueError(f"{name}: columns {missing} are missing, there are {table.column_names}")
    columns = {column: table[column].cast(schema.field(column).type) for column in schema.names}
    columns |= {column: table[column] for column in table.column_names if column not in columns}
    for column in schema.names:
        if column != "value" and columns[column].null_count:
            raise ValueError(f"{name}: {columns[column].null_count} of {len(table)} rows have no {column}")
    return pa.table(columns)
