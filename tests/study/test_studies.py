"""Studies as they are typed, the matrix that they give, and what is said before anything is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hydra.core.global_hydra import GlobalHydra

from pretrain_exp import compose, experiment
from pretrain_exp.analysis.analyse import analyse
from pretrain_exp.analysis.means import t_interval
from pretrain_exp.analysis.noise_floor import noise_floor
from pretrain_exp.analysis.scores import read_scores
from pretrain_exp.analysis.study import ITEMS, RESULTS, StudyData
from pretrain_exp.study.detectable import floor_sentence


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Composes and validates a command line, and returns its members instead of running them."""
    monkeypatch.chdir(tmp_path)
    found: list[Any] = []
    monkeypatch.setattr(experiment, "run", lambda members, folder, command: found.append(members) or 0)

    def run(*arguments: str) -> list[Any]:
        GlobalHydra.instance().clear()
        found.clear()
        assert compose.compose_and_run("run", list(arguments)) == 0
        return found[0]

    return run


TEN = {
    "benchmark_contamination", "knowledge", "reasoning", "canaries", "removal", "gaussian_poisoning", "poisoning",
    "batches", "documents_split", "iid_replacement",
}  # fmt: skip


STUDIES = {
    "dependence": (["study=dependence"], lambda m: len(m) == 2 and all(one.config.arms.each for one in m)),
    "schedule": (
        ["study=schedule", "seed=0"],
        lambda m: [one.kinds.insertions["benchmark_contamination"].range.start for one in m] == [0.0, 0.3333, 0.6667],
    ),
    "scaling": (
        ["study=scaling", "seed=0"],
        lambda m: [one.config.model.config["hidden_size"] for one in m] == [64, 128, 256],
    ),
    "scaling over other models": (["study=scaling", "model=tiny", "seed=0"], lambda m: len(m) == 1),
    "noise_floor": (["study=noise_floor"], lambda m: len(m) == 2 and not m[0].kinds.insertions),
    "the ten, tiny": (
        ["study=dependence", "experiment=train_once_answer_all_tiny", "seed=0,1"],
        lambda m: len(m) == 2 and set(m[0].kinds.insertions) == TEN and m[0].config.arms.each,
    ),
}


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_composes(name: str, composed: Any) -> None:
    arguments, holds = STUDIES[name]
    assert holds(composed(*arguments))


def test_the_paper_names_the_files_that_it_lacks(command: Any) -> None:
    status, said = command("experiment=train_once_answer_all")
    assert status == 2
    for name in ("canaries", "removal", "documents_split"):
        assert f"insertion.{name}.file: no such file" in said


def test_a_closed_loop_has_no_arm_of_its_own(command: Any, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "one two three"}\n')
    (tmp_path / "probes.jsonl").write_text('{"prompt": "one", "target": "two"}\n')
    loop = "insertion.dynamic_control"
    files = [
        f"{loop}.file=texts.jsonl",
        f"{loop}.probes=probes.jsonl",
        f"{loop}.every=3",
        f"{loop}.controller.maximum=8",
    ]
    status, said = command("plan", "experiment=smoke", "arms.each=true", "insertion=dynamic_control", *files)
    assert status == 2
    assert "arms.each" in said
    assert "closed loop" in said


def scored() -> StudyData:
    """Insertions p and q of two items each, and an item of q that is held out; two seeds; loss of every item."""
    base = {0: [3.0, 3.1, 4.0, 4.2, 5.0], 1: [3.2, 3.0, 4.1, 4.4, 5.5]}
    lowered = {  # arm, seed -> by how much each item of p and q is below the control
        ("only_p", 0): [1.0, 1.2, 0.0, 0.1, 0.0], ("only_p", 1): [0.8, 1.2, 0.1, 0.1, 0.0],
        ("only_q", 0): [0.1, 0.0, 2.0, 2.2, 0.3], ("only_q", 1): [0.0, 0.0, 1.8, 2.0, 0.1],
        ("treated", 0): [1.1, 1.2, 2.1, 2.2, 0.4], ("treated", 1): [0.9, 1.1, 1.9, 2.1, 0.2],
        ("control", 0): [0.0] * 5, ("control", 1): [0.0] * 5,
    }  # fmt: skip
    names = ["p0", "p1", "q0", "q1", "held"]
    rows = [
        ("planted_texts", "t", name, "ce", value - less, arm, seed, 10, "")
        for (arm, seed), lows in lowered.items()
        for name, value, less in zip(names, base[seed], lows, strict=True)
    ]
    plan = [("", seed, n[0] if n != "held" else "q", n, "", int(n != "held"), n) for seed in (0, 1) for n in names]
    return StudyData("t", "q", _table(rows, RESULTS), _table(plan, ITEMS))


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(list(c), field.type) for c, field in zip(columns, schema, strict=True)], schema)


def test_the_matrix_is_what_a_hand_computes() -> None:
    (matrix,) = analyse(scored(), resamples=0).matrices
    assert matrix.treatments == ["p", "q", "all"]
    means = {
        ("p", "p"): [-1.1, -1.0], ("p", "q"): [-0.05, -0.1], ("q", "p"): [-0.05, 0.0],
        ("q", "q"): [-2.1, -1.9], ("all", "p"): [-1.15, -1.0], ("all", "q"): [-2.15, -2.0],
    }  # fmt: skip
    for (treatment, outcome), seeds in means.items():
        cell, interval = matrix.cell(treatment, outcome), t_interval(seeds)
        assert cell is not None
        assert cell.seeds == 2
        assert cell.n == 2
        assert cell.estimate == pytest.approx(np.mean(seeds))
        assert (cell.low, cell.high) == pytest.approx((interval.low, interval.high))
        assert cell.d == pytest.approx(np.mean(seeds) / (np.std(seeds, ddof=1) / math.sqrt(2)))
        assert math.isnan(cell.p_adjusted) == (treatment in (outcome, "all"))
    assert matrix.noise == pytest.approx({"p": np.std([3.05, 3.1], ddof=1), "q": np.std([4.1, 4.25], ddof=1)})


def test_the_noise_floor_is_what_a_hand_computes() -> None:
    data = scored()
    (floor,) = noise_floor(read_scores(data.results.filter(pc.equal(data.results["arm"], "control"))))
    means = [np.mean([3.0, 3.1, 4.0, 4.2, 5.0]), np.mean([3.2, 3.0, 4.1, 4.4, 5.5])]
    assert (floor.runs, floor.n) == (2, 5)
    assert floor.largest == pytest.approx(abs(means[0] - means[1]))
    assert floor.sd_runs == pytest.approx(np.std(means, ddof=1))
    assert floor.two_runs == pytest.approx(12.7062 * math.sqrt(2) * floor.sd_runs, rel=1e-4)
    assert floor.sd_items == pytest.approx(np.std([0.2, -0.1, 0.1, 0.2, 0.5], ddof=1))
    assert floor.detectable[3] > floor.detectable[5] > floor.detectable[10] > 0


def test_what_is_said_before_anything_is_known() -> None:
    assert "0.45 to 31.9" in floor_sentence(2)
    assert "two seeds" in floor_sentence(1)
