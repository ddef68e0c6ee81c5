"""Writes a report: StudyData in, a folder out that holds the page, its figures and the numbers behind them.

report.html          self-contained
figures/             <name>.png, <name>.svg, <name>.csv of each picture
tables/              <name>.csv of what only some studies have: membership, forgetting, planted facts, ...
results.parquet      the item table, joined to insertion, item group and dose
effects.csv, .json   every estimate, one row each
power.json           the spread of each outcome, for the plans of later studies
dependence.csv, .json, noise_floor.csv, .json   where the study has such: the matrix, what runs without edits differ by
agreement.csv, .json where the model varies: whether its scales agree
control.csv          where closed loops were: target, achieved and planted, a row a boundary
summary.json         answer, headline, remarks
tracked.json         the findings as single numbers under stable names, for W&B and TensorBoard
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pretrain_exp.analysis.analyse import Analysis, analyse
from pretrain_exp.analysis.estimate import to_json, to_table
from pretrain_exp.analysis.study import StudyData
from pretrain_exp.control.table import write_control
from pretrain_exp.report.control_figures import control_pictures
from pretrain_exp.report.dependence_figure import dependence_pictures
from pretrain_exp.report.dose_figures import dose_pictures
from pretrain_exp.report.finding_figures import finding_pictures
from pretrain_exp.report.floor_figure import floor_pictures
from pretrain_exp.report.folder import replaced
from pretrain_exp.report.html import render
from pretrain_exp.report.pictures import save
from pretrain_exp.report.tracked import tracked
from pretrain_exp.report.training_figures import training_pictures

SCHEMA = 1


@dataclass(frozen=True)
class ReportPaths:
    """What was written, and the analysis that it shows."""

    folder: Path
    html: Path
    figures: Path
    results: Path
    effects_csv: Path
    effects_json: Path
    summary: Path
    analysis: Analysis


def write_report(study: StudyData, folder: Path, analysis: Analysis | None = None) -> ReportPaths:
    """Analyses (unless that is done already) and writes. `folder` is the report's own: an earlier one is replaced.

    Everything is written to a folder beside it, which then takes its place; what stood there is deleted after that.
    Raises UserError when `folder` holds something that is not a report.
    """
    folder = folder.absolute()
    with replaced(folder) as fresh:
        analysis = analysis or analyse(study)
        _write(study, analysis, fresh)
    return ReportPaths(
        folder, folder / "report.html", folder / "figures", folder / "results.parquet", folder / "effects.csv",
        folder / "effects.json", folder / "summary.json", analysis,
    )  # fmt: skip


def _write(study: StudyData, analysis: Analysis, folder: Path) -> None:
    figures = folder / "figures"
    figures.mkdir()
    pictures = (
        *dose_pictures(analysis), *finding_pictures(analysis), *control_pictures(study.control),
        *dependence_pictures(analysis.matrices, analysis.design.scores),
        *floor_pictures(analysis.floors, analysis.design.scores),
        *training_pictures(study, analysis.design.panels),
    )  # fmt: skip
    saved = [save(picture, figures) for picture in pictures]
    (folder / "report.html").write_text(render(study, analysis, saved), encoding="utf-8")
    pq.write_table(joined(study), folder / "results.parquet", compression="zstd")
    pa.csv.write_csv(to_table(analysis.estimates), folder / "effects.csv")
    for name, table in analysis.findings.tables().items():
        (folder / "tables").mkdir(exist_ok=True)
        pa.csv.write_csv(table, folder / "tables" / f"{name}.csv")
    _write_json(folder / "effects.json", [to_json(row) for row in analysis.estimates])
    _write_json(folder / "power.json", [finite(asdict(row)) for row in analysis.power])
    for name, rows in (("dependence", [row for matrix in analysis.matrices for row in matrix.rows()]),
                       ("noise_floor", [floor.row() for floor in analysis.floors]),
                       ("agreement", [asdict(row) for row in analysis.agreements])):  # fmt: skip
        if rows:
            pa.csv.write_csv(pa.Table.from_pylist(rows), folder / f"{name}.csv")
            _write_json(folder / f"{name}.json", [finite(row) for row in rows])
    if study.control:
        write_control(study.control, folder / "control.csv")
    _write_json(folder / "tracked.json", tracked(analysis))
    _write_json(folder / "summary.json", summary(study, analysis))


def joined(study: StudyData) -> pa.Table:
    """Results with insertion, group and dose of the plan of the same member and seed; null where an item is in none.

    An item of two insertions has a row for each. A control that serves several plans is joined to the plan of its own
    member and seed only; the analysis joins it to each.
    """
    plan = study.items.select(["member", "seed", "item", "insertion", "group", "dose"])
    table = study.results.join(plan, keys=["member", "seed", "item"], join_type="left outer", use_threads=False)
    order = ["evaluation", "task", "metric", "member", "arm", "seed", "step", "insertion", "item"]
    return table.sort_by([(name, "ascending") for name in order])


def summary(study: StudyData, analysis: Analysis) -> dict[str, Any]:
    """What a list of studies shows of one."""
    return {
        "schema": SCHEMA,
        "title": study.title,
        "question": study.question,
        "answers": analysis.answers,
        "headline": None if analysis.headline is None else to_json(analysis.headline),
        "remarks": [asdict(remark) for remark in analysis.remarks],
        "command": study.command,
        "fingerprints": dict(study.fingerprints),
        "versions": dict(study.versions),
        "cost": dict(study.cost),
        "varies": {name: list(values) for name, values in study.varies.items()},
    }


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with null where a number is none, which JSON cannot say."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
