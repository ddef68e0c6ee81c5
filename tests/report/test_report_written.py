"""What a report leaves on disk: the same bytes for the same study, whole or not at all, nothing of others deleted."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from studies import simulated_study

from pretrain_exp.analysis.study import StudyData
from pretrain_exp.errors import UserError
from pretrain_exp.report import folder as folder_of
from pretrain_exp.report import write
from pretrain_exp.report.folder import replaced
from pretrain_exp.report.write import joined, write_report

SMALL = {"items": 100, "curve_steps": 40}


@pytest.fixture(scope="module")
def study() -> StudyData:
    return simulated_study(seeds=(0, 1, 2), placebo=True, **SMALL)


@pytest.fixture(scope="module")
def plain() -> StudyData:
    """Without a picture: written in no time."""
    whole = simulated_study(seeds=(0,), items=20, curve_steps=0)
    results = whole.results.filter(pa.compute.equal(whole.results["evaluation"], "perplexity"))
    return dataclasses.replace(whole, results=results, items=None, ledger=None)


@pytest.fixture(scope="module")
def folder(study: StudyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(study, tmp_path_factory.mktemp("study") / "report").folder


def test_everything_is_there(folder: Path) -> None:
    names = {"report.html", "figures", "results.parquet", "effects.csv", "effects.json", "summary.json"}
    names |= {"power.json", "tracked.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert [path.name for path in folder.parent.iterdir()] == ["report"]  # nothing is left beside it


def test_every_figure_has_its_picture_its_drawing_and_its_data(folder: Path) -> None:
    stems = {path.stem for path in (folder / "figures").iterdir()}
    wanted = {"dose_response-acc", "dose_response-gold_ce", "effect", "items-gold_ce", "loss", "optimizer", "placement"}
    assert stems == wanted
    for stem in stems:
        files = [folder / "figures" / f"{stem}.{suffix}" for suffix in ("png", "svg", "csv")]
        assert files[0].read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in files[1].read_bytes()
        assert len(pyarrow.csv.read_csv(files[2])) > 0


def test_the_same_study_gives_the_same_bytes(study: StudyData, folder: Path, tmp_path: Path) -> None:
    again = write_report(study, tmp_path / "other" / "report").folder
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(folder)).read_bytes(), path.name


def test_effects_are_the_same_in_both_forms(folder: Path) -> None:
    rows = json.loads((folder / "effects.json").read_text())
    table = pyarrow.csv.read_csv(folder / "effects.csv")
    assert len(rows) == len(table)
    assert table.column_names == list(rows[0])
    assert table["estimate"].to_pylist() == pytest.approx([row["estimate"] for row in rows])
    assert all(row["method"] and row["n"] for row in rows)


def test_summary_holds_answer_and_headline(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    headline = summary["headline"]
    assert summary["schema"] == write.SCHEMA
    assert (headline["contrast"], headline["metric"], headline["dose"]) == ("treated_vs_control", "acc", 64)
    assert f"{100 * headline['estimate']:.1f} points" in summary["answers"][0]


def test_results_carry_the_dose_of_their_own_seed(study: StudyData, folder: Path) -> None:
    table = pq.read_table(folder / "results.parquet")
    assert len(table) == len(study.results)
    planned = {(r["seed"], r["item"]): r["dose"] for r in study.items.to_pylist()}
    for row in table.to_pylist()[:: len(table) // 500]:
        assert row["dose"] == planned.get((row["seed"], row["item"]))
    assert joined(study).equals(table)


def test_an_earlier_report_is_replaced_whole(plain: StudyData, tmp_path: Path) -> None:
    folder = write_report(plain, tmp_path / "report").folder
    (folder / "figures" / "stale.png").write_bytes(b"old")
    write_report(plain, folder)
    assert not (folder / "figures" / "stale.png").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.parametrize("name", ["notes.txt", "summary.json"])
@pytest.mark.parametrize("text", ["mine", '{"mine": 1}', "[1]"])
def test_what_is_not_a_report_is_not_replaced(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="holds something else"), replaced(tmp_path):
        pass
    assert (tmp_path / name).read_text() == text


@pytest.mark.parametrize(
    ("there", "left", "kept"),
    [
        ("new", {".report.abcd_123.old": "old"}, "new"),
        ("", {".report.abcd_123.old": "old", ".report.abcd_123.fresh": "new"}, "old"),
        ("new", {".report.abcd_123.fresh": "half"}, "new"),
    ],
)
def test_what_a_killed_call_left_is_put_back_or_swept_away(
    there: str, left: dict[str, str], kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_of, "LEFT_BEHIND", -1.0)
    for name, value in {"report": there, ".report.more.abcd_123.old": "another's", **left}.items():
        if value:
            (tmp_path / name).mkdir()
            (tmp_path / name / "summary.json").write_text(json.dumps({"schema": value}))
    with pytest.raises(RuntimeError), replaced(tmp_path / "report"):
        raise RuntimeError
    assert json.loads((tmp_path / "report" / "summary.json").read_text()) == {"schema": kept}
    assert {path.name for path in tmp_path.iterdir()} == {"report", ".report.more.abcd_123.old"}


def test_where_the_exchange_fails_the_earlier_one_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def fails(source: Path, target: Path) -> None:
        if source.suffix == ".fresh":
            raise OSError("disk full")
        rename(source, target)

    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "summary.json").write_text('{"schema": 1}')
    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(OSError, match="disk full"), replaced(tmp_path / "report"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["report", "summary.json"]


def test_a_failure_leaves_the_earlier_report(plain: StudyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_report(plain, tmp_path / "report").folder
    before = (folder / "report.html").read_bytes()

    def fail(*_: object) -> str:
        raise RuntimeError("disk full")

    monkeypatch.setattr(write, "render", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        write_report(plain, folder)
    assert (folder / "report.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_scores_are_not_changed_on_the_way(study: StudyData, folder: Path) -> None:
    table = pq.read_table(folder / "results.parquet")
    assert np.sort(table["value"].to_numpy()) == pytest.approx(np.sort(study.results["value"].to_numpy()))
