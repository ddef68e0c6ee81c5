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


def pretrain_exp(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pretrain_exp", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    done = pretrain_exp(folder, *OVERRIDES)
    assert done.returncode == 0, done.stdout + done.stderr
    before, _, after = done.stderr.partition("smallest effect that is seen with 80 % power")
    assert "10 jobs to run, of unknown length; 0 states are in the store already" in before
    assert "20 % of the items are answered otherwise" in after
    return folder / "study"


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


def test_run_again_it_trains_nothing(study):
    again = pretrain_exp(study.parent, *OVERRIDES)
    assert again.returncode == 0, again.stderr
    assert "0 jobs to run; " in again.stderr
    assert "smallest effect" not in again.stderr
    assert record(study)["jobs"] == []


def test_other_checkpoints_start_from_what_is_there(study):
    planned = pretrain_exp(study.parent, "plan", *OVERRIDES, "training.additional_checkpoint_steps=[21]")
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.count("18 to 21") == 3
    assert not re.search(r"\b0 to \d", planned.stdout.partition("jobs to run")[2])


def test_status_inspect_and_report_read_what_stands(study):
    status = pretrain_exp(study.parent, "status")
    assert status.returncode == 0, status.stderr
    step = pq.read_table(Path(member(study)["plan"]) / "ledger.parquet")["step"].to_pylist()[0]
    shown = pretrain_exp(study.parent, "inspect", "study", "--step", str(step))
    assert shown.returncode == 0, shown.stderr
    assert "benchmark_contamination, item" in shown.stdout
    control = pretrain_exp(study.parent, "inspect", "study", "--step", str(step), "--arm", "control", "--row", "0")
    assert "benchmark_contamination" not in control.stdout
    report = pretrain_exp(study.parent, "report", "study")
    assert report.returncode == 0, report.stderr


def test_existing_checkpoints_are_scored_without_training(study):
    scored = pretrain_exp(
        study.parent,
        "evaluate",
        "study",
        "eval=multiple_choice",
        "hydra.run.dir=scores",
        "experiment=smoke",
        "~eval.perplexity",
    )
    assert scored.returncode == 0, scored.stdout + scored.stderr
    table = pq.read_table(study.parent / "scores" / "items.parquet")
    labels = set(table["checkpoint"].to_pylist())
    assert "treated seed 0 step 24" in labels
    assert len(labels) == 9  # three arms at three steps, also at the one whose state they share


def test_gc_keeps_every_last_state_and_frees_the_rest(study):
    shown = pretrain_exp(study.parent, "gc")
    assert "would release" in shown.stdout
    freed = pretrain_exp(study.parent, "gc", "--apply")
    assert freed.returncode == 0, freed.stderr
    store = study.parent / "outputs/store/states"
    for arm in member(study)["arms"].values():
        assert (store / arm["last"] / "checkpoint").is_dir()
    weights = [path for path in store.iterdir() if (path / "checkpoint").is_dir()]
    assert len(weights) < len(list(store.iterdir()))
    again = pretrain_exp(study.parent, *OVERRIDES)
    assert "0 jobs to run" in again.stderr
