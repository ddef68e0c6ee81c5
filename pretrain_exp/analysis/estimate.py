"""One row of the result: an estimate with its n, interval, method and p. Rows in, a table out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pyarrow as pa

from pretrain_exp.analysis.multiplicity import benjamini_hochberg

# what is compared with what
CONTRASTS = {
    "treated_vs_control": "treated − control, on the same items",
    "placebo_vs_control": "placebo − control, on the same items",
    "treated_vs_placebo": "treated − placebo, on the same items",
    "dose_vs_holdout": "items at this dose − holdout items, in the treated arm",
    "difference_in_differences": "(dose − holdout) in treated − the same in control",
    "member_vs_member": "effect of one variant − effect of another",
    "slope": "log-odds of a right answer per unit of log(1 + dose)",
    "r50": "dose at which the fitted accuracy is one half",
    "trend": "Cochran-Armitage trend over log(1 + dose), z",
}
ALL = "all domains"  # the task of a row over texts of every domain
# what the interval speaks about: one run (other items), all seeds (other runs), or runs thrown together (descriptive)
SCOPES = ("seeds", "run", "pooled", "bootstrap")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Differences are in the units of the metric (accuracy: 0.1 is ten points). NaN where something cannot be said.

    scope:     "run" (one seed; the interval is over items), "seeds" (t over per-seed effects: conclude from this one),
               "pooled" and "bootstrap" (descriptive only).
    n:         what `counted` says (pairs of scores, for a paired contrast) in each seed, added over seeds.
    counted:   "items", or "facts" where a score is the mean over the probes of a fact.
    value, reference: mean scores of the two sides, where there are two.
    b, c:      discordant items: right only in the first, only in the second (binary metrics, paired).
    """

    contrast: str
    evaluation: str = ""
    task: str = ""
    metric: str = ""
    panel: str = ""
    insertion: str = ""
    group: str = ""
    dose: int | None = None
    scope: str
    seed: int | None = None
    seeds: int = 1
    step: int | None = None
    n: int
    counted: str = "items"
    estimate: float
    low: float = float("nan")
    high: float = float("nan")
    level: float = 0.95
    method: str = ""
    p: float = float("nan")
    p_method: str = ""
    p_mid: float = float("nan")
    p_adjusted: float = float("nan")
    value: float = float("nan")
    reference: float = float("nan")
    b: int | None = None
    c: int | None = None
    resampling_seed: int | None = None
    flag: str = ""

    @property
    def name(self) -> str:
        """What is estimated, in one line."""
        where = [self.insertion, self.group, "" if self.dose is None else f"dose {self.dose}"]
        parts = [self.panel, f"{self.evaluation}/{self.task}/{self.metric}", *where, CONTRASTS[self.contrast]]
        return " · ".join(part for part in parts if part)

    def family(self) -> tuple[Any, ...]:
        """Rows that are corrected together: one question asked of every metric and group.

        What was not planted is asked apart from what was, each evaluation by itself, and all domains apart from each.
        """
        aside = () if self.insertion else (self.evaluation, self.task == ALL)
        return self.contrast, self.panel, self.scope, self.seed, aside


def adjust(rows: Sequence[Estimate]) -> list[Estimate]:
    """Benjamini-Hochberg over (metric x item group) within each contrast, scope and seed."""
    families: dict[tuple[Any, ...], list[int]] = {}
    for index, row in enumerate(rows):
        families.setdefault(row.family(), []).append(index)
    adjusted = list(rows)
    for members in families.values():
        for index, p in zip(members, benjamini_hochberg([rows[i].p for i in members]), strict=True):
            adjusted[index] = replace(rows[index], p_adjusted=float(p))
    return adjusted


def to_table(rows: Sequence[Estimate]) -> pa.Table:
    """Every row with all its fields, and its name first; NaN becomes null."""
    types = {"int": pa.int64(), "int | None": pa.int64(), "float": pa.float64(), "str": pa.string()}
    schema = pa.schema([("name", pa.string()), *((f.name, types[str(f.type)]) for f in fields(Estimate))])
    return pa.Table.from_pylist([to_json(row) for row in rows], schema=schema)


def to_json(row: Estimate) -> dict[str, Any]:
    values = {"name": row.name, **asdict(row)}
    return {key: None if isinstance(value, float) and value != value else value for key, value in values.items()}
