"""What only some studies have: membership, forgetting, planted facts, codes of learning, watermarks.

A study and its design in, rows of each kind out, empty where its data are not there. `tables` gives each kind as one
Arrow table under a name of its own, which is the name of its CSV file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from pretrain_exp.analysis.codes import CodeRecurrence, CodeShare, codes, recurrences
from pretrain_exp.analysis.design import Design
from pretrain_exp.analysis.fading import Fade, FadedPoint, Scant, fading
from pretrain_exp.analysis.knowledge import KnowledgeTable, knowledge_tables
from pretrain_exp.analysis.separations import Separated, separations
from pretrain_exp.analysis.study import StudyData
from pretrain_exp.analysis.watermarks import Watermarked, watermarks


@dataclass(frozen=True)
class Findings:
    """Rows of each kind; see the rooms that they come from. scant: what has too few states for a curve of fading."""

    separations: list[Separated]
    faded: list[FadedPoint]
    fades: list[Fade]
    codes: list[CodeShare]
    recurrences: list[CodeRecurrence]
    watermarks: list[Watermarked]
    knowledge: list[KnowledgeTable]
    scant: Scant

    def tables(self) -> dict[str, pa.Table]:
        """Name -> table, of the kinds that have rows."""
        found: dict[str, Sequence[Any]] = {
            "membership": self.separations,
            "forgetting": self.faded,
            "forgetting_curves": self.fades,
            "learned_codes": self.codes,
            "learned_recurrence": self.recurrences,
            "watermark": self.watermarks,
        }
        out = {name: rows_to_table(rows) for name, rows in found.items() if rows}
        return out | {f"knowledge_{each.name}": each.to_arrow() for each in self.knowledge if each.rows}


def find(study: StudyData, design: Design) -> Findings:
    """Everything that the study has data for."""
    faded, fades, scant = fading(study, design)
    return Findings(
        separations(design), faded, fades, codes(design), recurrences(design), watermarks(design),
        knowledge_tables(study.results, study.ledger, level=design.level), scant,
    )  # fmt: skip


def rows_to_table(rows: Sequence[Any]) -> pa.Table:
    """Dataclasses of one kind, one column a field; NaN becomes null."""
    columns = {field.name: [getattr(row, field.name) for row in rows] for field in fields(rows[0])}
    return pa.table({name: pa.array([None if v != v else v for v in values]) for name, values in columns.items()})
