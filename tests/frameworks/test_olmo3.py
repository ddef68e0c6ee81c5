"""What `olmo3` promises beside the table: starts, loaders, strategies, what a step is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from rig_olmo3 import CHUNK, FRAMEWORK, PYTHON
from rigs import LAST_STEP, PHASES, G, Run, S, losses, metrics, reads

from pretrain_exp.data.olmo_order import OlmoCoreOrder
from pretrain_exp.errors import UserError
from pretrain_exp.framework.olmo3.shards import named_shards
from pretrain_exp.plan.proof import verify_reads

pytestmark = pytest.mark.olmo3


@pytest.fixture(scope="session")
def bench(benches: Any) -> Bench:
    return benches("olmo3")


@pytest.fixture(scope="session")
def inside(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process in OLMo-core's environment said."""
    program = Path(__file__).with_name("inside_olmo3.py")
    command = [str(PYTHON), str(program), str(tmp_path_factory.mktemp("inside"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


# starts


def test_shards_are_named_by_the_metadata(bench: Bench, tmp_path: Path) -> None:
    checkpoint = bench.control.state(3) / "checkpoint"
    there = sorted(f"model_and_optim/{path.name}" for path in (checkpoint / "model_and_optim").glob("*.distcp"))
    assert FRAMEWORK.named_files(checkpoint) == there
    (tmp_path / "model_and_optim").mkdir()
    with pytest.raises(UserError, match="not there"):
        named_shards(tmp_path)
    (tmp_path / "model_and_optim" / ".metadata").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(UserError, match="name no shards"):
        named_shards(tmp_path)


def test_an_official_folder_is_known_by_what_it_holds(bench: Bench, tmp_path: Path) -> None:
    one, other = ({"checkpoint": str(bench.control.state(step) / "checkpoint")} for step in (3, 10))
    assert FRAMEWORK.initial(one)["identity"] == FRAMEWORK.initial(dict(one))["identity"]
    assert FRAMEWORK.initial(one)["identity"] != FRAMEWORK.initial(other)["identity"]
    (tmp_path / "model_and_optim").mkdir()
    with pytest.raises(UserError, match="no whole checkpoint"):
        FRAMEWORK.initial({"checkpoint": str(tmp_path)})


def native(bench: Bench, step: int, **fields: Any) -> dict[str, Any]:
    """A model that starts from the checkpoint of a state, which is of OLMo-core's own format."""
    checkpoint = str(bench.control.state(step) / "checkpoint")
    return {**bench.rig.model, "config": None, "checkpoint": checkpoint, **fields}


def test_a_native_checkpoint_goes_on_with_its_optimizer(bench: Bench) -> None:
    run = bench.job("native", "native", (10,), start=(None, 3), model=native(bench, 3, data_seed=3)).run()
    assert losses(run.state(10)) == pytest.approx(losses(bench.control.state(10)), abs=bench.rig.loss_tolerance)


@pytest.mark.parametrize(
    ("step", "fields", "says"), [(4, {}, "stands at step 3"), (3, {"data_seed": 9}, "in the order of seed 3")]
)
def test_a_native_checkpoint_of_another_place_is_refused(
    bench: Bench, step: int, fields: dict[str, Any], says: str, tmp_path: Path
) -> None:
    order = OlmoCoreOrder(bench.files, S, G, fields.get("data_seed", 3))
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(bench.control.state(3) / "checkpoint", checkpoint)
    for path in (checkpoint / "model_and_optim").glob("*.distcp"):
        path.write_bytes(b"never read")
    model = native(bench, 3, **{"data_seed": 3, "checkpoint": str(checkpoint), **fields})
    run = bench.job(f"wrong-{step}", "wrong", (10,), start=(None, step), model=model, order=order, store=tmp_path)
    run.run(status=2)
    assert says in json.loads((run.root / "error.json").read_text())["message"]


@pytest.mark.parametrize("kind", ["olmo2", "olmo2, grouped queries", "olmo3", "olmo3, longer context"])
def test_hugging_face_and_back_changes_no_logit(inside: dict[str, Any], kind: str) -> None:
    assert inside["both_ways"][kind] < 1e-5


# loaders


@pytest.fixture(scope="session")
def chunked(bench: Bench) -> dict[str, Run]:
    """Treated, four sequences of the shuffle together, into the second epoch; by loader and strategy."""
    order = OlmoCoreOrder(bench.files, S, G, 3, bench.folder / "orders", 4 * S)
    hsdp = {"dp_config": {"name": "hsdp"}, "ac_config": {"mode": "full"}}
    composable = {**CHUNK, "data_loader": {"type": "composable"}, "train_module": hsdp}
    kinds: dict[str, tuple[int, dict[str, Any]]] = {
        "numpy": (1, CHUNK),
        "numpy, ddp": (2, {**CHUNK, "train_module": {"dp_config": {"name": "ddp"}}}),
        "composable, hsdp": (2, composable),
    }
    runs = {}
    for number, (kind, (ranks, args)) in enumerate(kinds.items()):
        name, training = f"chunked-{number}", {"args": args, "loader_workers": number}
        job = bench.job(name, name, (12,), overlay=bench.overlay, order=order, ranks=ranks, training=training)
        runs[kind] = job.run()
    return runs


KINDS = ["numpy", "numpy, ddp", "composable, hsdp"]


@pytest.mark.parametrize("kind", KINDS)
def test_loaders_read_the_chunked_order_with_its_edits(bench: Bench, chunked: dict[str, Run], kind: str) -> None:
    run = chunked[kind]
    found = verify_reads(run.order.to_json(), bench.plan.folder, reads(run.state(12)), PHASES, range(12))
    assert found.ok, found.describe()
    assert found.rows_checked == 12 * G


@pytest.mark.parametrize("kind", KINDS[1:])
def test_loaders_and_strategies_change_no_loss(bench: Bench, chunked: dict[str, Run], kind: str) -> None:
    plain = losses(chunked["numpy"].state(12))
    assert losses(chunked[kind].state(12)) == pytest.approx(plain, abs=bench.rig.loss_tolerance)


def test_documents_and_masks_are_those_of_the_edited_row(inside: dict[str, Any]) -> None:
    """range(64) with EOS, 5, 6, EOS planted at column 4; and with a token twelve times over, which the filter finds."""
    assert inside["documents"]["input_ids"][:9] == [0, 1, 2, 3, 499, 5, 6, 499, 8]
    assert inside["documents"]["doc_lens"] == [5, 3, 56]
    assert inside["documents"]["instance_mask"]
    assert not inside["repeating"]["instance_mask"]
    assert inside["untouched"]["doc_lens"] == [64]
    assert inside["untouched"]["input_ids"] == list(range(64))
    assert [i for i, counts in enumerate(inside["masked"]["label_mask"]) if counts] == [4, 5]
    assert "metadata" not in inside["documents"]


# steps


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd", "constant"])
def test_a_schedule_is_that_of_the_other_frameworks(inside: dict[str, Any], name: str) -> None:
    assert inside["schedules"][name] < 1e-12


def test_arguments_become_olmo_cores_own_objects(inside: dict[str, Any]) -> None:
    assert inside["configurations"] == {
        "optim": "SkipStepAdamWConfig",
        "sigma_factor": 3,
        "scheduler": "HalfCosWithWarmup",
        "seed": 5,
        "fields": True,
    }


def test_a_signal_to_all_processes_is_acted_on_by_the_trainer_alone(bench: Bench) -> None:
    """As a scheduler sends it: to the loader's workers too, whose death would be a crash."""
    run = bench.job("signalled", "signalled", (LAST_STEP,), training={"loader_workers": 2})
    process, live = run.begin(), run.root / "metrics.jsonl"
    deadline = time.monotonic() + 600
    while not live.is_file() or live.read_bytes().count(b"\n") < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGTERM)
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 75, printed[-3000:]
    assert len(list((run.root / "resume").glob("step*"))) == 1


def test_an_optimizer_that_skips_steps_remembers_why(bench: Bench, tmp_path: Path) -> None:
    """It skips about every second step here; without its history it would skip none after a restart."""
    optim = {"type": "skip_step_adamw", "rolling_interval_length": 4, "sigma_factor": 0}
    training = {"args": {"train_module": {"optim": optim}}}
    whole = bench.job("skipping", "skipping", (6, 12), training=training).run()
    again = bench.job(
        "skipping-on", "again", (12,), start=(whole.state(6), 6), training=training, store=tmp_path
    ).run()  # fmt: skip
    assert losses(again.state(12)) == pytest.approx(losses(whole.state(12)), abs=1e-6)
    plain = losses(bench.control.state(3), bench.control.state(10))
    assert max(abs(a - b) for a, b in zip(plain, losses(whole.state(6), whole.state(12)), strict=False)) > 1e-4


def test_noise_on_gradients_comes_once_and_after_the_clipping(bench: Bench) -> None:
    run = bench.job("gradients", "gradients", (4,))
    path = run.write()
    hook = {"kind": "gradient_noise", "seed": 1, "sigma": 0.5, "steps": [1]}
    path.write_text(json.dumps({**json.loads(path.read_text()), "hooks": [hook]}))
    done = subprocess.run(FRAMEWORK.command(path), capture_output=True, text=True, check=False, cwd=run.root)
    assert done.returncode == 0, done.stderr[-3000:]
    rows, control = metrics(run.state(4)), losses(bench.control.state(3), bench.control.state(10))
    assert [row.get("train/gradient_noise") for row in rows] == [None, pytest.approx(0.5, rel=0.02), None, None]
    assert [row["train/loss"] for row in rows[:2]] == pytest.approx(control[:2], abs=1e-6)
    assert abs(rows[2]["train/loss"] - control[2]) > 5e-4
    assert rows[1]["train/grad_norm"] == pytest.approx(metrics(bench.control.state(3))[1]["train/grad_norm"], rel=1e-5)


def test_bf16_trains_and_converts_within_its_tolerance(bench: Bench, tmp_path: Path) -> None:
    run = bench.job("bf16", "bf16", (3,), training={"precision": "bf16", "z_loss": 1e-4}).run()
    assert losses(run.state(3)) == pytest.approx(losses(bench.control.state(3)), abs=0.05)
    assert min(row["train/z_loss"] for row in metrics(run.state(3))) > 0
    assert (FRAMEWORK.to_hf(run.state(3), tmp_path / "hf") / "model.safetensors").is_file()
