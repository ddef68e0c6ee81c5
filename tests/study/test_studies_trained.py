"""Studies from end to end, as they are typed: planned, trained, proved and reported."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

SMALL = ["experiment=smoke", "training.num_steps=6", "training.schedule.warmup_steps=1", "tracking=none"]
DOSES = "insertion.benchmark_contamination.repetitions"
WINDOWS = "insertion.benchmark_contamination.range={start: 0, end: 0.5, unit: share},{start: 0.5, end: 1, unit: share}"
WIDTHS = [
    "model=tiny_64,tiny", "training.num_steps=6", "training.schedule.warmup_steps=1", "tracking=none",
    "data.limit_tokens=60000", "data.domains=[sciq,boolq]", "model.sequence_length=192",
    "model.tokenizer.vocab_size=1024", f"{DOSES}=[0,2]", "insertion.benchmark_contamination.limit=40",
]  # fmt: skip
ALONE = "arms.control=false"
SWEPT = {  # the line of each study that trains every member, what tells its members apart, seeds, arms
    "seeds": ([*SMALL, "seed=0,1"], {""}, {0, 1}, 2),
    "dose_response": ([*SMALL, f"{DOSES}=1,2", "seed=0", ALONE], {"repetitions=1", "repetitions=2"}, {0}, 1),
    "schedule": (
        [*SMALL, WINDOWS, "seed=0", ALONE],
        {"range={start:0,end:0.5,unit:share}", "range={start:0.5,end:1,unit:share}"},
        {0},
        1,
    ),
    "scaling": ([*WIDTHS, "seed=0", ALONE], {"model=tiny_64", "model=tiny"}, {0}, 1),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def _data_are_prepared_once(prepared: Path, tmp_path: Path) -> None:
    """Each study has a store of its own but for token files and tokenizers, which the first of them makes."""
    (tmp_path / "outputs" / "store").mkdir(parents=True)
    (tmp_path / "outputs" / "store" / "data").symlink_to(prepared)


@pytest.mark.parametrize("name", SWEPT)
def test_a_swept_study_from_end_to_end(name: str, command: Any, tmp_path: Path) -> None:
    line, members, seeds, arms = SWEPT[name]
    status, said = command(f"study={name}", *line, "eval=multiple_choice", "hydra.sweep.dir=study")
    assert status == 0, said
    proofs = [json.loads(path.read_text()) for path in (tmp_path / "study/proof").glob("*.json")]
    assert [(proof["ok"], proof["rows_checked"]) for proof in proofs] == [(True, 6 * 8)] * (
        arms * len(members) * len(seeds)
    )
    scores = pq.read_table(tmp_path / "study/report/results.parquet")
    assert set(scores["arm"].to_pylist()) == {"treated", *(["control"] if arms == 2 else [])}
    assert (set(scores["member"].to_pylist()), set(scores["seed"].to_pylist())) == (members, seeds)
    assert json.loads((tmp_path / "study/report/effects.json").read_text())
    assert (tmp_path / "study/report/report.html").is_file()


def test_dependence_from_end_to_end(command: Any, tmp_path: Path) -> None:
    kinds = ["insertion=[benchmark_contamination,batches]", "insertion.batches.steps=[4]", "insertion.batches.score=4"]
    line = [
        "study=dependence",
        *SMALL,
        *kinds,
        "eval=[planted_texts,multiple_choice]",
        "seed=0",
        "hydra.sweep.dir=study",
    ]
    status, said = command("plan", *line)
    assert status == 0, said
    assert "train only_batches seed 0" in said
    assert "80 % power" in said
    status, said = command(*line)
    assert status == 0, said
    rows = json.loads((tmp_path / "study/report/dependence.json").read_text())
    names = ["batches", "benchmark_contamination"]
    assert [(row["treatment"], row["outcome"]) for row in rows] == [(t, o) for t in [*names, "all"] for o in names]
    assert all(row["seeds"] == 1 and row["flag"] for row in rows)  # one seed: said so
    with open(tmp_path / "study/report/dependence.csv") as file:
        assert len(list(csv.DictReader(file))) == 6
    page = (tmp_path / "study/report/report.html").read_text()
    assert 'id="dependence"' in page
    assert (tmp_path / "study/report/figures/dependence.png").is_file()
    proofs = [json.loads(path.read_text()) for path in (tmp_path / "study/proof").glob("*.json")]
    assert {proof["arm"] for proof in proofs} == {"treated", "control", "only_batches", "only_benchmark_contamination"}
    assert all(proof["ok"] for proof in proofs)
    assert len(proofs) == 4
    arms = json.loads((tmp_path / "study/0/member.json").read_text())["arms"]
    shared = {arm: record["states"].get("4") for arm, record in arms.items()}
    assert shared["only_batches"] == shared["control"]  # before the batch nothing tells them apart
    assert shared["treated"] == shared["only_benchmark_contamination"] != shared["control"]


def test_noise_floor_from_end_to_end(command: Any, tmp_path: Path) -> None:
    line = ["study=noise_floor", *SMALL, "hydra.sweep.dir=study"]
    status, said = command("plan", *line)
    assert status == 0, said
    assert "2 runs without edits" in said
    status, said = command(*line)
    assert status == 0, said
    rows = json.loads((tmp_path / "study/report/noise_floor.json").read_text())
    assert rows
    assert all(row["runs"] == 2 for row in rows)
    assert any(row["metric"] == "nats_per_token" and row["two_runs"] > row["largest"] > 0 for row in rows)
    assert "without any edit differ" in (tmp_path / "study/report/report.html").read_text()
