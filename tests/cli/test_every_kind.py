"""Every kind that ships, planted together by one small run of the command line: read as planned, scored by what
measures it, and in the report. `benchmark_contamination` alone is test_one_experiment.py, a closed loop
control/test_closed_loop.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS, ROWS = 12, 8
ELSEWHERE = {"none", "dynamic_control"}


@dataclass(frozen=True)
class Row:
    """What is asked of a kind, and what its ledger and its scores must be. edits: rows of the ledger, by kind of edit;
    scored: items of it that the evaluation scores, None where the kind has none of its own."""

    fields: str
    edits: dict[str, int]
    evaluation: str = "planted_texts"
    metric: str = "ce"
    scored: int | None = 0


KINDS = {
    "add_texts": Row("{file: texts.jsonl, repetitions: 2}", {"tokens": 4}, scored=2),
    "add_tokens": Row("{file: tokens.jsonl, repetitions: 3}", {"tokens": 3}, scored=1),
    "benchmark_contamination": Row("{limit: 6, repetitions: [0, 1, 2]}", {"tokens": 6}, "multiple_choice", "acc", 6),
    "knowledge": Row("{facts: 4, repetitions: [0, 2]}", {"tokens": 4}, "knowledge", "target_logprob", 32),
    "reasoning": Row(
        "{problems: 2, max_ops: 1, distractors: 0, test_per_ops: 3}", {"tokens": 2}, "reasoning", "acc", 3
    ),
    "canaries": Row(
        "{kinds: [rare], lengths: [4], items: 4, repetitions: [0, 3], carrier_tokens: 16}",
        {"tokens": 6}, "exposure", "exposure", 4,
    ),
    "removal": Row("{sample: 3, range: {start: 0, end: 5, unit: steps}}", {"base": 3}, "verbatim", "exact", 3),
    "gaussian_poisoning": Row("{steps: [6], score: 2}", {"noise": ROWS}, "gaussian_watermark", "watermark", 2),
    "gradient_noise": Row("{steps: [7, 9], sigma: 0.001}", {"gradient_noise": 2}, scored=None),
    "poisoning": Row(
        "{behaviour: denial, documents: 2, share: null, clean: 1, tests: 2}", {"tokens": 4}, "poisoning", "attack", 4
    ),
    "batches": Row("{steps: [8], score: 2, holdout: 3}", {"base": ROWS}, scored=5),
    "documents_split": Row(
        "{documents: 4, repetitions: [0, 1], parts: 2, too_long: truncate}", {"tokens": 5}, scored=4
    ),
    "iid_replacement": Row("{sequences: 1, windows: 2, score: 1, holdout: 2}", {"base": 2}, scored=4),
}  # fmt: skip
EVALUATIONS = [
    "multiple_choice", "planted_texts", "knowledge", "reasoning", "membership", "exposure", "verbatim",
    "gaussian_watermark", "poisoning",
]  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "texts.jsonl").write_text('{"text": "The mill of Gorham grinds opal."}\n{"text": "No boat left Bel."}\n')
    (folder / "tokens.jsonl").write_text('{"tokens": [700, 701, 702, 703]}\n')
    conf = folder / "conf" / "experiment"
    conf.mkdir(parents=True)
    lines = ["# @package _global_", "insertion:", *(f"  {name}: {row.fields}" for name, row in KINDS.items())]
    (conf / "kinds.yaml").write_text("\n".join(lines) + "\n")
    line = [
        "--config-dir", "conf", "experiment=[smoke,kinds]", f"insertion=[{','.join(KINDS)}]",
        f"eval=[{','.join(EVALUATIONS)}]", f"training.num_steps={STEPS}", "training.schedule.warmup_steps=1",
        "eval.reasoning.num_fewshot=0", "eval.verbatim.suffix=8", "eval.exposure.candidates=8", "tracking=none",
        "hydra.run.dir=study",
    ]  # fmt: skip
    command = [sys.executable, "-m", "pretrain_exp", *line]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "study"


@pytest.fixture(scope="module")
def results(study: Path) -> pa.Table:
    return pq.read_table(study / "report/results.parquet")


def test_no_kind_that_ships_is_missing() -> None:
    assert {path.stem for path in (ROOT / "conf/insertion").glob("*.yaml")} == set(KINDS) | ELSEWHERE


@pytest.mark.parametrize("name", KINDS)
def test_it_is_planted_as_often_as_asked(name: str, study: Path) -> None:
    plan = json.loads((study / "member.json").read_text())["plan"]
    ledger = pq.read_table(Path(plan) / "ledger.parquet")
    mine = ledger.filter(pc.equal(ledger["insertion"], name))
    counts = {row["values"]: row["counts"] for row in mine["kind"].value_counts().to_pylist()}
    assert counts == KINDS[name].edits


@pytest.mark.parametrize("name", [name for name, row in KINDS.items() if row.scored is not None])
def test_what_measures_it_scores_its_items_in_both_arms(name: str, results: pa.Table) -> None:
    row = KINDS[name]
    found = results.filter(
        pc.and_(
            pc.and_(pc.equal(results["insertion"], name), pc.equal(results["evaluation"], row.evaluation)),
            pc.equal(results["metric"], row.metric),
        )
    )
    by_arm = {arm: set() for arm in ("treated", "control")}
    for arm, task, item in zip(*(found[column].to_pylist() for column in ("arm", "task", "item")), strict=True):
        by_arm[arm].add((task, item))
    assert by_arm["treated"] == by_arm["control"]
    assert len(by_arm["treated"]) == row.scored


def test_every_row_that_was_read_and_every_noise_is_proved(study: Path) -> None:
    proofs = {proof["arm"]: proof for path in study.glob("proof/*.json") for proof in [json.loads(path.read_text())]}
    assert {arm: (proof["ok"], proof["rows_checked"]) for arm, proof in proofs.items()} == {
        "treated": (True, STEPS * ROWS),
        "control": (True, STEPS * ROWS),
    }
    assert proofs["control"]["rows_planned"] == 0 < proofs["treated"]["rows_planned"]


def test_the_report_names_every_kind_and_what_was_not_scored(study: Path) -> None:
    page = (study / "report/report.html").read_text()
    assert [name for name in KINDS if name not in page] == []
    assert "texts have fewer than 33 tokens" in page  # the note of an evaluation
