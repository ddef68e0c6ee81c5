"""Closed loops in a report: target, achieved and planted over the steps, in the page, the pictures and the terminal."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from rich.console import Console
from studies import simulated_study

from pretrain_exp.analysis.study import StudyData
from pretrain_exp.report.control_figures import control_pictures, control_tables
from pretrain_exp.report.terminal import print_report
from pretrain_exp.report.write import write_report


def boundaries(member: str = "", seed: int = 0, insertion: str = "loop", **given: Any) -> list[dict[str, Any]]:
    """The rows of a loop of two segments; the last one is its end."""
    place = {"member": member, "seed": seed, "insertion": insertion}
    seen = [(0, 0.0, 1e-11, 4), (50, 0.04, 0.03, 8), (100, 0.08, 0.07, None)]
    return [
        {**place, "step": step, "target": target, "achieved": achieved, "texts": texts, "copies": texts,
         "tokens": texts and 10 * texts, "plan": "p", "state": "s", **given}
        for step, target, achieved, texts in seen
    ]  # fmt: skip


CASES = {
    "none": ([], [], []),
    "one": (boundaries(), ["closed_loop"], []),
    "two seeds": (boundaries() + boundaries(seed=1), ["closed_loop"], ["Seed"]),
    "two loops": (boundaries() + boundaries(insertion="b"), ["closed_loop-loop", "closed_loop-b"], ["Insertion"]),
    "variants": (boundaries("a=1") + boundaries("a=2"), ["closed_loop-a=1", "closed_loop-a=2"], ["Variant"]),
    "nothing probed": (boundaries(target=None, achieved=None), ["closed_loop"], []),
    "nothing planted": (boundaries(texts=None, copies=None, tokens=None), ["closed_loop"], []),
}


@pytest.mark.parametrize("name", CASES)
def test_a_picture_a_loop_and_one_table(name: str) -> None:
    rows, pictures, columns = CASES[name]
    drawn = list(control_pictures(rows))
    assert [(picture.name, picture.section) for picture in drawn] == [(each, "control") for each in pictures]
    assert sum(len(picture.data) for picture in drawn) == len(rows)
    assert {len(picture.heights) for picture in drawn} <= {1 if name == "nothing probed" else 2}
    for picture in drawn:
        picture.draw(list(Figure().subplots(len(picture.heights), squeeze=False)[:, 0]))
    tables = control_tables(rows)
    assert [column.label for table in tables for column in table.columns][: len(columns)] == columns
    assert [len(table.rows) for table in tables] == ([len(rows)] if rows else [])


@pytest.fixture(scope="module")
def plain() -> StudyData:
    return simulated_study(seeds=(0,), items=20, curve_steps=0, perplexity=False)


def test_the_report_shows_it_everywhere(plain: StudyData, tmp_path: Path) -> None:
    study = dataclasses.replace(plain, control=boundaries())
    paths = write_report(study, tmp_path / "report")
    page = paths.html.read_text()
    assert '<a href="#control">Closed loops</a>' in page
    assert "1e−11" in page
    assert (paths.figures / "closed_loop.svg").is_file()
    with open(paths.folder / "control.csv", newline="") as file:
        found = [(row["step"], row["achieved"], row["texts"]) for row in csv.DictReader(file)]
    assert found == [("0", "1e-11", "4"), ("50", "0.03", "8"), ("100", "0.07", "")]
    console = Console(width=120, record=True, file=io.StringIO())
    print_report(study, console, paths.analysis)
    assert "Target against achieved" in console.export_text()


def test_a_study_without_a_loop_has_nothing_of_it(plain: StudyData, tmp_path: Path) -> None:
    paths = write_report(plain, tmp_path / "report")
    assert "Closed loops" not in paths.html.read_text()
    assert not (paths.folder / "control.csv").exists()
