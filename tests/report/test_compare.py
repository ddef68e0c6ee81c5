"""Studies side by side: each keeps its own numbers, rows are joined by what they are about, configurations by key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest
from studies import simulated_study

from pretrain_exp.analysis.analyse import analyse
from pretrain_exp.errors import UserError
from pretrain_exp.report.compare import Compared, comparison_pictures, differing, joined_effects, write_comparison
from pretrain_exp.study.compare import distinct_names

SMALL: dict[str, Any] = {"items": 80, "curve_steps": 0, "perplexity": False}


def compared(name: str, config: dict[str, Any] | None = None, **study: Any) -> Compared:
    data = simulated_study(**(SMALL | study))
    return Compared(name, data, analyse(data, resamples=0), [config or {}])


@pytest.fixture(scope="module")
def two() -> list[Compared]:
    first = {"training": {"optimizer": {"lr": 1e-3}, "num_steps": 600}, "seed": 0}
    second = {"training": {"optimizer": {"lr": 1e-4}, "num_steps": 600}, "model": {"name": "tiny"}, "seed": 0}
    return [compared("large", first), compared("small", second, effect=0.2, doses=(0, 4, 64))]


def test_rows_are_joined_by_insertion_metric_and_dose(two: list[Compared]) -> None:
    table = joined_effects(two)
    assert [column.label for column in table.columns[-2:]] == ["large", "small"]
    acc = {row[1].text: row for row in table.rows if row[0].text == "accuracy"}
    assert list(acc) == ["holdout", "1", "4", "16", "64"]
    assert acc["16"][3].text == "–"
    for index, one in enumerate(two):
        (mine,) = [
            row for row in one.analysis.estimates
            if (row.contrast, row.metric, row.dose, row.scope, row.group)
            == ("treated_vs_control", "acc", 64, "seeds", "")
        ]  # fmt: skip
        assert acc["64"][2 + index].sort == mine.estimate
        assert f"n = {mine.n:,}" in acc["64"][2 + index].note


def test_only_what_differs_is_listed(two: list[Compared]) -> None:
    table = differing(two)
    assert table is not None
    found = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert found == {"model.name": ["–", "tiny"], "training.optimizer.lr": ["0.001", "0.0001"]}
    assert differing([two[0], two[0]]) is None


def test_members_of_a_study_stand_behind_each_other() -> None:
    one = Compared("a", None, None, [{"lr": 1}, {"lr": 2}])  # type: ignore[arg-type]
    other = Compared("b", None, None, [{"lr": 1}])  # type: ignore[arg-type]
    table = differing([one, other])
    assert table is not None
    assert [cell.text for cell in table.rows[0]] == ["lr", "1 | 2", "1"]


def test_the_page_and_its_files(two: list[Compared], tmp_path: Path) -> None:
    page = write_comparison(two, tmp_path / "comparison")
    text = page.read_text()
    for one in two:
        for sentence in (*one.analysis.answers, *(remark.text for remark in one.analysis.remarks)):
            assert sentence.replace("<", "&lt;") in text
    assert "training.optimizer.lr" in text
    assert {p.name for p in page.parent.iterdir()} == {"comparison.html", "effects.csv", "figures", "summary.json"}
    assert {p.suffix for p in (page.parent / "figures").glob("headline-acc*")} == {".png", ".svg", ".csv"}
    table = pyarrow.csv.read_csv(page.parent / "effects.csv")
    assert table["study"].unique().to_pylist() == ["large", "small"]
    assert len(table) == sum(len(one.analysis.estimates) for one in two)
    summary = json.loads((page.parent / "summary.json").read_text())
    assert [one["headline"]["dose"] for one in summary["studies"]] == [64, 64]
    write_comparison(two[:1], page.parent)  # an earlier one is replaced
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="holds something else"):
        write_comparison(two, tmp_path / "mine")


def test_a_study_without_control_says_so_beside_the_others(tmp_path: Path) -> None:
    studies = [compared("with"), compared("without", control=False)]
    text = write_comparison(studies, tmp_path / "comparison").read_text()
    assert text.count("No control: nothing tells an effect") == 1
    names = {picture.name for picture in comparison_pictures(studies)}
    assert names == {"headline-acc"}


def test_names_tell_studies_apart() -> None:
    given = [("a", Path("/x/1/s")), ("a", Path("/x/2/s")), ("b", Path("/x/3/s"))]
    assert distinct_names(given) == ["a (1/s)", "a (2/s)", "b"]
