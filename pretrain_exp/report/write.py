"""Writes a report: StudyData in, a folder out that holds the page, its figures and the numbers behind them.

report.html          self-contained
figures/             <name>.png, <name>.svg, <name>.csv of each picture
results.parquet      the item table, joined to insertion, item group and dose
effects.csv, .json   every estimate, one row each
summary.json         answer, headline, remarks
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pretrain_exp.analysis.analyse import Analysis, analyse
from pretrain_exp.analysis.estimate import to_json, to_table
from pretrain_exp.analysis.study import StudyData
from pretrain_exp.errors import UserError
from pretrain_exp.report.dose_figures import dose_pictures
from pretrain_exp.report.html import render
from pretrain_exp.report.pictures import save
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
    if folder.exists() and not (folder / "summary.json").is_file() and any(folder.iterdir()):
        raise UserError(
            "a report replaces its folder, and this one holds something else",
            value=str(folder),
            fix="name another folder",
        )
    analysis = analysis or analyse(study)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        _write(study, analysis, fresh)
        _swap(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return ReportPaths(
        folder, folder / "report.html", folder / "figures", folder / "results.parquet", folder / "effects.csv",
        folder / "effects.json", folder / "summary.json", analysis,
    )  # fmt: skip


def _swap(fresh: Path, folder: Path) -> None:
    """`fresh` takes the place of `folder`."""
    if not folder.exists():
        os.rename(fresh, folder)
        return
    old = folder.with_name(f"{fresh.name}.old")
    os.rename(folder, old)
    os.rename(fresh, folder)
    shutil.rmtree(old)


def _write(study: StudyData, analysis: Analysis, folder: Path) -> None:
    figures = folder / "figures"
    figures.mkdir()
    saved = [save(picture, figures) for picture in (*dose_pictures(analysis), *training_pictures(study))]
    (folder / "report.html").write_text(render(study, analysis, saved), encoding="utf-8")
    pq.write_table(joined(study), folder / "results.parquet", compression="zstd")
    pa.csv.write_csv(to_table(analysis.estimates), folder / "effects.csv")
    _write_json(folder / "effects.json", [to_json(row) for row in analysis.estimates])
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


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
