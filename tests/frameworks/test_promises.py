"""Framework x promise: what every framework must hold, seen in what its workers log and leave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench import NAMES, Bench
from rigs import FIRST_PLANTED, LAST_STEP, PHASES, SCHEDULE_STEPS, TAKEN, G, S, losses, metrics, own_order, reads
from sliced import EVERY, LAST, NAME

from pretrain_exp.control import loop as loops
from pretrain_exp.control.loop import Loop
from pretrain_exp.errors import UserError
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.overlay import Overlay
from pretrain_exp.plan.proof import verify_reads
from pretrain_exp.plan.proof_arms import compare_arms

pytestmark = pytest.mark.parametrize(
    "bench", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in NAMES], indirect=True
)


def demand_proof(bench: Bench, order: Any, plan: Path | None, states: list[Path], last: int) -> None:
    found = verify_reads(order.to_json(), plan, reads(*states), PHASES, range(last))
    assert found.ok, found.describe()
    assert found.rows_checked == last * G


def test_the_control_reads_the_frameworks_own_order(bench: Bench) -> None:
    """Into the second epoch; recomputed from raw files by code that is not the order's."""
    demand_proof(bench, bench.order, None, [bench.control.state(3), bench.control.state(10)], 10)


def test_edits_are_read_where_the_ledger_says(bench: Bench) -> None:
    """Two ranks with two workers to step 3, one rank without from there on."""
    states = [bench.first_half.state(3), bench.second_half.state(10)]
    demand_proof(bench, bench.order, bench.plan.folder, states, 10)


def test_a_flipped_token_is_found(bench: Bench) -> None:
    rows = [row.copy() for row in reads(bench.control.state(3))]
    rows[0]["digest"][0] = bytes(16)
    assert verify_reads(bench.order.to_json(), None, rows, PHASES, range(3)).num_mismatches == 1
    assert verify_reads(bench.order.to_json(), bench.plan.folder, reads(bench.control.state(3)), PHASES).num_mismatches


def test_nothing_else_differs_from_the_control(bench: Bench) -> None:
    treated = reads(bench.first_half.state(3), bench.second_half.state(10))
    control = reads(bench.control.state(3), bench.control.state(10))
    compared = compare_arms(treated, control, bench.plan.ledger(), PHASES)
    assert compared.ok, compared.describe()
    assert compared.rows_compared == 10 * G
    assert compared.rows_planned == 6  # two edits lie in two rows each, and two of the five share one


def test_ranks_workers_micro_batches_and_segments_change_no_loss(bench: Bench) -> None:
    split = losses(bench.first_half.state(3), bench.second_half.state(10))
    whole = losses(bench.stopped.state(LAST_STEP))[:10]
    assert split == pytest.approx(whole, abs=bench.rig.loss_tolerance)
    assert max(abs(np.diff(whole))) > 1e-3, "losses that do not move show nothing"


def test_the_treated_run_departs_from_the_control(bench: Bench) -> None:
    control = losses(bench.control.state(3), bench.control.state(10))
    treated = losses(bench.first_half.state(3), bench.second_half.state(10))
    assert abs(control[0] - treated[0]) > 1e-4, "an edit lies in step 0"


@pytest.mark.parametrize("told", ["stopped", "stopped_rank"])
def test_a_stopped_job_goes_on_where_it_was(bench: Bench, told: str) -> None:
    state = getattr(bench, told).state(LAST_STEP)
    rows = metrics(state)
    assert [row["step"] for row in rows] == list(range(LAST_STEP))
    assert {row["attempt"] for row in rows} == {1, 2}
    demand_proof(bench, bench.order, bench.plan.folder, [state], LAST_STEP)


def test_two_ranks_lose_after_a_stop_what_one_does(bench: Bench) -> None:
    """The ranks agreed on the step where they saved, though one alone was told, and took all up again."""
    one, two = bench.stopped.state(LAST_STEP), bench.stopped_rank.state(LAST_STEP)
    after = [row["attempt"] for row in metrics(two)].index(2) + 20  # later, rounding has grown
    assert losses(two)[:after] == pytest.approx(losses(one)[:after], abs=bench.rig.loss_tolerance)


def test_what_is_saved_on_the_way_changes_nothing(bench: Bench) -> None:
    """The control was saved before its first step as well: neither who was not nor who goes on from there differs."""
    never = bench.job("unsaved", "unsaved", (3,)).run()
    onward = bench.job("onward", "onward", (3,), start=(bench.control.state(0), 0)).run()
    assert losses(never.state(3)) == losses(onward.state(3)) == losses(bench.control.state(3))


def test_a_segment_does_not_shorten_the_schedule(bench: Bench) -> None:
    """The learning rate of a step is the same in jobs that end at 3, 10 and 200 of a schedule of 300."""
    split = [row["train/lr"] for row in metrics(bench.first_half.state(3), bench.second_half.state(10))]
    whole = [row["train/lr"] for row in metrics(bench.stopped.state(LAST_STEP))]
    assert split == pytest.approx(whole[:10], rel=1e-6)
    peak = bench.rig.settings["optimizer"]["lr"]
    assert max(whole) == pytest.approx(peak, rel=0.05)
    assert whole[-1] == pytest.approx(_cosine(LAST_STEP - 1, peak), rel=0.1)


def _cosine(step: int, peak: float) -> float:
    progress = (step - 4) / (SCHEDULE_STEPS - 4)
    return peak * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * progress)))


def test_metrics_bear_their_names(bench: Bench) -> None:
    row = metrics(bench.control.state(10))[-1]
    assert {"train/loss", "train/lr", "train/grad_norm", "train/tokens"} <= row.keys()
    assert row["train/tokens"] == 10 * G * S
    assert row["train/grad_norm"] > 0


def test_a_converted_model_has_the_loss_that_training_had(bench: Bench) -> None:
    """transformers, on the rows of step 3, against the loss that the framework logged there."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(bench.converted).eval()
    rows = np.stack([bench.order.read(slot) for slot in PHASES.slots(3)]).astype(np.int64)
    with torch.no_grad():
        loss = float(model(input_ids=torch.from_numpy(rows), labels=torch.from_numpy(rows)).loss)
    assert loss == pytest.approx(losses(bench.control.state(10))[0], abs=2e-4)


def test_a_conversion_that_says_something_else_is_refused(bench: Bench, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shutil.copytree(bench.control.state(3), state)
    probe = json.loads((state / "probe.json").read_text())
    probe["log_probabilities"] = [[value - 0.01 for value in row] for row in probe["log_probabilities"]]
    (state / "probe.json").write_text(json.dumps(probe))
    with pytest.raises(UserError, match="off by"):
        bench.rig.framework(1).to_hf(state, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_a_hugging_face_folder_is_a_start(bench: Bench, tmp_path: Path) -> None:
    """Its weights at step 3 lose what the state's did; the optimizer begins anew."""
    model = {**bench.rig.model, "config": None, "checkpoint": str(bench.converted)}
    run = bench.job("from-hf", "from-hf", (4,), start=(None, 3), model=model, store=tmp_path / "store").run()
    assert losses(run.state(4)) == pytest.approx(losses(bench.control.state(10))[:1], abs=2e-4)


@pytest.mark.parametrize("ranks", [1, 2])
def test_planned_noise_reaches_the_embeddings(bench: Bench, ranks: int) -> None:
    plain, noisy = losses(bench.control.state(3)), losses(bench.noisy[ranks].state(2))
    assert noisy[0] == pytest.approx(plain[0], abs=bench.rig.loss_tolerance)
    assert abs(noisy[1] - plain[1]) > 1e-4
    assert noisy == pytest.approx(losses(bench.noisy[1].state(2)), abs=bench.rig.loss_tolerance)


def test_planned_noise_changes_no_token(bench: Bench) -> None:
    demand_proof(bench, bench.order, None, [bench.noisy[2].state(2)], 2)


def test_another_order_takes_the_place_of_the_frameworks_own(bench: Bench) -> None:
    demand_proof(bench, own_order(bench.files), bench.plan.folder, [bench.foreign.state(4)], 4)


def test_all_frameworks_read_one_plan_alike(bench: Bench, benches: Any) -> None:
    """The same plan over the same files: each batch log against the ledger, and against that of huggingface."""
    found, reference = ({_address(row): row for part in reads(b.foreign.state(4)) for row in part}
                        for b in (bench, benches("huggingface")))  # fmt: skip
    assert found.keys() == reference.keys()
    assert all(found[key]["digest"] == reference[key]["digest"] for key in found)
    overlay = Overlay.open(bench.overlay)
    touched = {key for key in found if overlay.touches(int(found[key]["slot"]))}
    ledger = bench.plan.ledger().to_pydict()
    assert {(s, r) for s, r in zip(ledger["step"], ledger["row"], strict=True) if s < 4} <= touched
    position, length, slot, column = TAKEN
    order = own_order(bench.files)
    for at in (int(found[key]["slot"]) for key in touched):
        read = overlay.apply(at, order.read(at), order.read)
        if at == position // S:
            there = read[position % S :][:length]
            assert there.tolist() == order.read(slot)[column : column + length].tolist()
        else:
            assert (read >= FIRST_PLANTED).any()


def _address(row: np.ndarray) -> tuple[int, int]:
    return int(row["step"]), int(row["row"])


def test_a_closed_loop_plans_its_second_slice_on_what_the_first_made_of_the_model(bench: Bench) -> None:
    first, second = bench.sliced
    loop, store = Loop.from_json(second.loop or {}), bench.folder / "store"
    before, after = (loops.read(loops.record_path(store, loop, step)) or {} for step in (0, EVERY))
    looked = [record["insertions"][NAME] for record in (before, after)]
    assert [each["texts"] for each in looked] == [1, 2], "what is far below its target is doubled"
    assert looked[0]["value"] != looked[1]["value"], "another model was probed"
    assert Path(first.state(EVERY)).resolve().name == after["state"] != f"sliced-{EVERY}", "an alias for its real key"
    plan = Plan.open(store / "plans" / after["plan"])
    steps = plan.ledger()["step"].to_pylist()
    assert [step < EVERY for step in sorted(steps)] == [True, False, False]
    demand_proof(bench, bench.order, plan.folder, [first.state(EVERY), second.state(LAST)], LAST)


def test_a_failure_is_one_clear_message(bench: Bench, tmp_path: Path) -> None:
    """Files that vanished: exit status 1 or 2, and error.json says what was wrong in a line."""
    run = bench.job("failing", "failing", (2,), overlay=tmp_path / "no overlay")
    process = run.begin()
    printed, _ = process.communicate(timeout=600)
    assert process.returncode in (1, 2), printed[-3000:]
    error = json.loads((run.root / "error.json").read_text())
    assert "no overlay" in error["message"]
    assert error["kind"] in ("user", "crash")
