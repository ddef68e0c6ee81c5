"""Whether scales agree, in a report: where the model varies, and nowhere else."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from studies import simulated_study

from pretrain_exp.analysis.analyse import Analysis, analyse
from pretrain_exp.analysis.study import StudyData
from pretrain_exp.report.agreement_table import agreement_table
from pretrain_exp.report.terminal import print_report
from pretrain_exp.report.write import write_report

TITLE = "Do scales agree?"
SMALL = {"seeds": (0, 1), "items": 60, "doses": (0, 1, 16), "curve_steps": 0, "perplexity": False}
VARIANTS = {
    "one variant": ("",),
    "another thing": ("lr=1", "lr=2"),
    "the model": ("model=tiny_64", "model=tiny_256"),
}


def simulated(members: tuple[str, ...]) -> tuple[StudyData, Analysis]:
    study = simulated_study(members=members, sweep="condition", **SMALL)
    return study, analyse(study, resamples=20)


@pytest.mark.parametrize("name", VARIANTS)
def test_only_where_the_model_varies(name: str, tmp_path: Path) -> None:
    study, analysis = simulated(VARIANTS[name])
    there = name == "the model"
    assert (agreement_table(analysis.agreements, analysis.design.scores) is not None) == there
    out = io.StringIO()
    print_report(study, Console(file=out, width=160), analysis)
    assert (TITLE in out.getvalue()) == there
    written = write_report(study, tmp_path / "report", analysis)
    assert (TITLE in written.html.read_text(encoding="utf-8")) == there
    files = {path.name for path in written.folder.glob("agreement.*")}
    assert files == ({"agreement.csv", "agreement.json"} if there else set())
    if there:
        with (written.folder / "agreement.csv").open(encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        assert len(rows) == len(json.loads((written.folder / "agreement.json").read_text()))
        assert {row["seed"] for row in rows} == {"", "0", "1"}
        assert {row["n"] for row in rows} == {"3"}
        assert {row["metric"] for row in rows} == {"acc", "gold_ce", "margin"}


def test_a_row_says_n_and_what_single_seeds_give() -> None:
    _, analysis = simulated(VARIANTS["the model"])
    table = agreement_table(analysis.agreements, analysis.design.scores)
    assert table is not None
    assert [column.label for column in table.columns] == [
        "Scales", "Metric", "Conditions", "Spearman", "Pairs", "Equal in both", "Same order",
    ]  # fmt: skip
    assert [row[1].text for row in table.rows] == ["accuracy", "cross-entropy of the right answer"]
    for row in table.rows:
        assert row[0].text == "model=tiny_64 / model=tiny_256"
        assert row[2].text == "3"
        assert row[3].note.startswith("single seeds: ")
        assert row[6].note.endswith(" %")
