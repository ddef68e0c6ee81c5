"""A whole experiment through the command line: three arms that share what comes before the first edit, then everything
that later commands do with what it left. Real text, real items, a real (tiny) model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

OVERRIDES = [
    "experiment=smoke",
    "arms.placebo=true",
    "insertion.benchmark_contamination.mode=range",
    "insertion.benchmark_contamination.range={start: 12, end: 24, unit: steps}",
    "evaluation.steps=[18]",
    "hydra.run.dir=study",
]


def says_how_many_jobs(text: str, jobs: int) -> bool:
    return re.search(rf"(?<!\d){jobs} jobs to run\b", text) is not None


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    command = [sys.executable, "-m", "pretrain_exp", *OVERRIDES]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    before, _, after = done.stderr.partition("smallest effect that is seen with 80 % power")
    assert "\n10 jobs to run, of unknown length; 0 states are in the store already\n" in before
    assert "20 % of the items are answered otherwise" in after
    return folder / "study"


@pytest.fixture
def typed(study, command, monkeypatch):
    """Runs a later command line where the study lies, in this process; what it printed. It must succeed."""
    monkeypatch.chdir(study.parent)

    def run(*arguments: str) -> str:
        status, said = command(*arguments)
        assert status == 0, said
        return said

    return run


def record(study):
    return json.loads((study / "study.json").read_text())


def member(study):
    return json.loads((study / "member.json").read_text())


def test_the_arms_share_everything_before_the_first_edit(study):
    trained = sorted((j["first"], j["total"]) for j in record(study)["jobs"] if j["kind"] == "train")
    first = json.loads((Path(member(study)["plan"]) / "audit.json").read_text())
    cut = min(pq.read_table(Path(member(study)["plan"]) / "ledger.parquet")["step"].to_pylist())
    assert first["ok"]
    assert trained == [(0, cut), (cut, 24), (cut, 24), (cut, 24)]
    kept = [arm["states"] for arm in member(study)["arms"].values()]
    assert len({arm[str(cut)] for arm in kept}) == 1
    assert len({arm["24"] for arm in kept}) == 3


def test_every_row_that_was_read_is_proved(study):
    proofs = [json.loads(path.read_text()) for path in sorted(study.glob("proof/*.json"))]
    assert [(p["arm"], p["ok"], p["rows_checked"]) for p in proofs] == [
        ("control", True, 24 * 8),
        ("placebo", True, 24 * 8),
        ("treated", True, 24 * 8),
    ]
    planned = {p["arm"]: p["rows_planned"] for p in proofs}
    assert planned["control"] == 0
    assert planned["treated"] == planned["placebo"] > 0


def test_the_report_holds_every_item_of_every_arm(study):
    results = pq.read_table(study / "report" / "results.parquet").to_pylist()
    scored = {(r["arm"], r["step"], r["item"]) for r in results if r["metric"] == "acc"}
    assert len(scored) == 3 * 2 * 40
    assert {r["dose"] for r in results if r["metric"] == "acc"} == {0, 2}
    page = (study / "report" / "report.html").read_text()
    assert "Answer:" in page  # a planted text in its place
    assert page.count("data:image") or page.count("<svg")
    assert not [word for word in ('src="http', 'href="http', "@import") if word in page]


def test_run_again_it_trains_nothing(study, typed):
    again = typed(*OVERRIDES)
    assert says_how_many_jobs(again, 0), again
    assert "smallest effect" not in again
    assert record(study)["jobs"] == []


def test_other_checkpoints_start_from_what_is_there(typed):
    planned = typed("plan", *OVERRIDES, "training.additional_checkpoint_steps=[21]")
    row = r"^│ train \S+ seed 0 +│ +(\d+) to (\d+) +│"  # title, steps
    assert re.findall(row, planned, re.MULTILINE) == [("18", "21")] * 3, planned


def test_another_study_does_not_take_its_folder(study, typed, command):
    before = record(study)
    status, said = command(*OVERRIDES, "training.num_steps=30")
    assert status == 2
    assert "hydra.run.dir: another study is here" in said
    assert "training.num_steps (24 there, 30 here)" in said
    assert record(study) == before


def test_status_inspect_and_report_read_what_stands(study, typed):
    typed("status")
    step = pq.read_table(Path(member(study)["plan"]) / "ledger.parquet")["step"].to_pylist()[0]
    assert "benchmark_contamination, item" in typed("inspect", "study", "--step", str(step))
    control = typed("inspect", "study", "--step", str(step), "--arm", "control", "--row", "0")
    assert "benchmark_contamination" not in control
    typed("report", "study")


def test_existing_checkpoints_are_scored_without_training(study, typed):
    typed("evaluate", "study", "eval=multiple_choice", "hydra.run.dir=scores", "experiment=smoke", "~eval.perplexity")
    table = pq.read_table(study.parent / "scores" / "items.parquet")
    labels = set(table["checkpoint"].to_pylist())
    assert "treated seed 0 step 24" in labels
    assert len(labels) == 9  # three arms at three steps, also at the one whose state they share


def test_gc_keeps_every_last_state_and_frees_the_rest(study, typed):
    assert "would release" in typed("gc")
    typed("gc", "--apply")
    store = study.parent / "outputs/store/states"
    for arm in member(study)["arms"].values():
        assert (store / arm["last"] / "checkpoint").is_dir()
    weights = [path for path in store.iterdir() if (path / "checkpoint").is_dir()]
    assert len(weights) < len(list(store.iterdir()))
    again = typed(*OVERRIDES)
    assert says_how_many_jobs(again, 0), again
