"""Studies as they are typed, arms that read one insertion alone, and the matrix that they give."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pretrain_exp import compose, experiment
from pretrain_exp.analysis.analyse import analyse
from pretrain_exp.analysis.means import t_interval
from pretrain_exp.analysis.noise_floor import noise_floor
from pretrain_exp.analysis.scores import read_scores
from pretrain_exp.analysis.study import ITEMS, RESULTS, StudyData
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import EditItem, Edits, Hook, Window
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.overlay import noise_values
from pretrain_exp.plan.restrict import acting_insertions, restricted_plan
from pretrain_exp.study.detectable import floor_sentence

S = 16
PHASES, WINDOW = Phases([Phase(0, 4, S)]), Window(2, 22)
SPAN = (PHASES.position_of_step(2), PHASES.position_of_step(22))
SMALL = ["experiment=smoke", "training.num_steps=6", "training.schedule.warmup_steps=1", "tracking=none"]


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
    status, said = command("plan", *SMALL, "arms.each=true", "insertion=dynamic_control", *files)
    assert status == 2
    assert "arms.each" in said
    assert "closed loop" in said


def texts(name: str, lengths: list[int], copies: int) -> Edits:
    tokens = [np.arange(1000 * (i + 1), 1000 * (i + 1) + n, dtype=np.uint32) + len(name) for i, n in enumerate(lengths)]
    items = [EditItem(f"{name}{i}", run, f"text {i}", dose=copies) for i, run in enumerate(tokens)]
    item = np.repeat(np.arange(len(items), dtype=np.int32), copies)
    return Edits(name, items, item, np.tile(np.arange(copies, dtype=np.int32), len(items)), span=SPAN)


def compiled(folder: Path, lengths: list[int], copies: int, seed: int) -> Plan:
    """Texts of two insertions, one edit over two sequences, noise, an unseen sequence, and a hook."""
    none, one = np.zeros(0, np.int32), np.zeros(1, np.int32)
    empty = np.zeros(0, np.uint32)
    wide = EditItem("w", np.arange(S + 3, dtype=np.uint32), dose=1)
    requests = [
        texts("a", lengths, copies),
        texts("bb", lengths[::-1], copies + 1),
        Edits("wide", [wide], one, one, "explicit", position=np.array([PHASES.position_of_step(3) + 5])),
        Edits(
            "noise", [EditItem("n", empty, dose=1)], one, one, span=SPAN, kind="noise",
            length=np.array([7]), sigma=np.array([0.5], np.float32),
        ),
        Edits(
            "swap", [EditItem("s", empty, dose=1)], one, one, span=SPAN, kind="base",
            length=np.array([S]), unseen=(SPAN[1], SPAN[1] + 8 * S),
        ),
        Edits(
            "hook", [EditItem("h", empty, dose=2)], none, none, "explicit", position=none.astype(np.int64),
            hooks=(Hook("h", "gradient_noise", (4, 9), 0.1, 77),),
        ),
    ]  # fmt: skip
    return compile_plan(requests, PHASES, WINDOW, seed, "treated", folder)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, S), min_size=1, max_size=4), st.integers(1, 3), st.integers(0, 9))
def test_a_restricted_plan_is_the_same_edits_at_the_same_places(
    tmp_path: Path, lengths: list[int], copies: int, seed: int
) -> None:
    plan = compiled(tmp_path, lengths, copies, seed)
    whole = plan.ledger().drop_columns(["arm"])
    names = acting_insertions(plan)
    assert names == ["a", "bb", "hook", "noise", "swap", "wide"]
    alone = {name: restricted_plan(plan, [name], tmp_path, f"only_{name}") for name in names}
    assert len({one.fingerprint for one in [plan, *alone.values()]}) == 7
    for name, one in alone.items():
        assert one.audit["ok"]
        assert one.arm == f"only_{name}"
        assert one.ledger().drop_columns(["arm"]).equals(whole.filter(pc.equal(whole["insertion"], name)))
    assert sum(len(one.overlay) for one in alone.values()) == len(plan.overlay)
    assert alone["hook"].hooks == plan.hooks
    assert not any(alone[name].hooks for name in names if name != "hook")
    read = np.arange(10_000, 10_000 + 1000 * S, dtype=np.uint32).reshape(1000, S).__getitem__
    for slot in range(PHASES.first_slot(2), PHASES.first_slot(22)):
        together, changed = plan.overlay.apply(slot, read(slot), read), np.zeros(S, bool)
        for one in alone.values():
            edited = one.overlay.apply(slot, read(slot), read)
            here = edited != read(slot)
            assert (edited[here] == together[here]).all()
            assert not (here & changed).any()
            changed |= here
        assert ((together != read(slot)) == changed).all()
        assert alone["noise"].overlay.noise(slot) == plan.overlay.noise(slot)
    assert alone["noise"].overlay.seed == plan.overlay.seed  # so the very same noise
    assert noise_values(plan.overlay.seed, 1, 0, 2, 3).shape == (2, 3)


def test_all_insertions_together_are_the_plan(tmp_path: Path) -> None:
    plan = compiled(tmp_path, [3, 9], 2, 0)
    same = restricted_plan(plan, acting_insertions(plan), tmp_path, "treated")
    assert same.fingerprint == plan.fingerprint
    other = restricted_plan(plan, acting_insertions(plan), tmp_path, "other")
    assert other.fingerprint != plan.fingerprint
    assert other.prefix_digest(22) == plan.prefix_digest(22)  # so its states are the treated arm's
    with pytest.raises(ValueError, match="no insertion x"):
        restricted_plan(plan, ["x"], tmp_path, "only_x")


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
