"""What framework `olmo2` promises beyond the table: upstream's trainer and checkpoints, strategies and formats."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench import Bench
from olmo2_shared import LEGACY, converted
from rig_olmo2 import MARKS, PYTHON
from rigs import EOS, G, Run, S, losses, metrics, reads

from pretrain_exp.data.olmo_order import OlmoOrder
from pretrain_exp.data.token_files import TokenFiles
from pretrain_exp.errors import UserError
from pretrain_exp.framework.olmo2.formats import detect, format_of
from pretrain_exp.framework.worker.probe import check_probe
from pretrain_exp.plan.overlay_writer import Ops, write_overlay

pytestmark = MARKS
HERE = Path(__file__).parent
NOISE = [{"kind": "gradient_noise", "steps": [1, 3], "sigma": 0.05, "seed": 4}]


@dataclass
class Hooked(Run):
    """A run with training hooks."""

    hooks: list[dict[str, Any]] = field(default_factory=list)

    def write(self) -> Path:
        path = super().write()
        path.write_text(json.dumps({**json.loads(path.read_text()), "hooks": self.hooks}))
        return path


@pytest.fixture(scope="module")
def bench(benches: Any) -> Bench:
    return benches("olmo2")


@pytest.fixture(scope="module")
def stock(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """ai2-olmo by itself from the control's state at 3 to 10: what it says, and its own checkpoint of step 6."""
    out = tmp_path_factory.mktemp("stock")
    command = [PYTHON, HERE / "olmo2_stock.py", bench.control.state(3) / "checkpoint", out, 6, 10]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1]), out / "step6-unsharded"


# Upstream's own trainer


def test_a_state_is_a_checkpoint_of_upstream_and_a_job_its_run(
    bench: Bench, stock: tuple[dict[str, Any], Path]
) -> None:
    """Its loader over its own index files, its Trainer and optimizer go on from a state as the worker did, from the end
    of the first epoch into the second."""
    said, _ = stock
    rows = metrics(bench.control.state(10))
    assert said["first"] == [bench.order.read(slot).tolist() for slot in range(3 * G, 4 * G)]
    assert np.array(said["losses"]) * S / (S - 1) == pytest.approx([row["train/loss"] for row in rows], rel=1e-9)
    assert said["lr"] == pytest.approx([row["train/lr"] for row in rows], rel=1e-9)


def test_from_a_checkpoint_of_upstream_the_run_goes_on(bench: Bench, stock: tuple[dict[str, Any], Path]) -> None:
    """Optimizer, learning rate and data: what the uninterrupted run read and lost from step 6 on."""
    model = {**bench.rig.model, "config": None, "checkpoint": str(stock[1]), "data_seed": 3}
    run = bench.job("official", "official", (10,), start=(None, 6), model=model).run()
    control = [row for row in metrics(bench.control.state(10)) if row["step"] >= 6]
    assert losses(run.state(10)) == pytest.approx([row["train/loss"] for row in control], abs=1e-6)
    assert [row["train/lr"] for row in metrics(run.state(10))] == pytest.approx([row["train/lr"] for row in control])
    control_reads = np.concatenate(reads(bench.control.state(10)))
    assert np.concatenate(reads(run.state(10))).tolist() == control_reads[control_reads["step"] >= 6].tolist()


@pytest.mark.parametrize(
    ("step", "files", "message"),
    [
        (5, 2, "model.checkpoint_step: the checkpoint is of step 6 [got 5]"),
        (
            6,
            1,
            "data: the checkpoint has read 24 sequences of epoch 0; over these files step 6 begins after 4 of epoch 1",
        ),
    ],
)
def test_a_checkpoint_that_stands_elsewhere_is_refused(
    bench: Bench, stock: tuple[dict[str, Any], Path], tmp_path: Path, step: int, files: int, message: str
) -> None:
    order = OlmoOrder(TokenFiles(bench.files.files[:files], EOS, None), S, G, 3)
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(stock[1], checkpoint)
    for name in ("model.pt", "optim.pt"):
        (checkpoint / name).write_bytes(b"never read")
    model = {**bench.rig.model, "config": None, "checkpoint": str(checkpoint), "data_seed": 3}
    run = Run(bench.rig, tmp_path, order, "elsewhere", (10,), start=(None, step), model=model).run(status=2)
    assert message in json.loads((run.root / "error.json").read_text())["message"]


# Strategies and formats


@pytest.fixture(scope="module")
def whole(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """DDP on one rank with noise on gradients, and on embeddings in step 3: states at 0, 2 and 4."""
    root = tmp_path_factory.mktemp("whole")
    ops = Ops.noise(np.array([3 * G, 3 * G + 1]), np.array([2, 0]), np.array([9, S]), np.array([1.0, 2.0]))
    write_overlay(root / "overlay", ops, np.empty(0, np.uint32), S, 7)
    return Hooked(bench.rig, root, bench.order, "whole", (0, 2, 4), overlay=root / "overlay", hooks=NOISE).run()


@pytest.fixture(scope="module")
def sharded(bench: Bench, whole: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same by FSDP, a file a rank: from the initial weights to 2, and from that state to 4."""
    common: dict[str, Any] = {"training": {"args": LEGACY}, "ranks": 2, "hooks": NOISE, "overlay": whole.overlay}
    first = Hooked(bench.rig, tmp_path_factory.mktemp("sharded"), bench.order, "sharded", (2,), **common).run()
    root = tmp_path_factory.mktemp("resumed")
    store = first.root / "store"
    return Hooked(bench.rig, root, bench.order, "sharded", (4,), start=(first.state(2), 2), store=store, **common).run()


def test_fsdp_computes_what_ddp_does(whole: Run, sharded: Run) -> None:
    """Losses, gradient norms, the noise on embeddings and that on gradients, whose shards get what the whole would."""
    one, two = metrics(whole.state(2), whole.state(4)), metrics(sharded.state(2), sharded.state(4))
    for name in ("train/loss", "train/grad_norm"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], abs=2e-5)
    assert [row.get("train/gradient_noise") for row in one] == [
        None, pytest.approx(0.05, rel=0.02), None, pytest.approx(0.05, rel=0.02)
    ]  # fmt: skip
    assert [row.get("train/gradient_noise") for row in two] == [
        None if row is None else pytest.approx(row, rel=1e-6) for row in (r.get("train/gradient_noise") for r in one)
    ]


def test_noise_on_gradients_moves_the_weights(bench: Bench, whole: Run) -> None:
    noisy, plain = losses(whole.state(2), whole.state(4)), losses(bench.control.state(3))
    assert noisy[:2] == pytest.approx(plain[:2], abs=1e-6)
    assert abs(noisy[2] - plain[2]) > 1e-5


def test_a_sharded_state_converts(sharded: Run, tmp_path: Path) -> None:
    check_probe(sharded.state(4) / "probe.json", converted(sharded.state(4), tmp_path))


def test_a_state_of_ddp_goes_on_under_fsdp(bench: Bench, whole: Run, tmp_path: Path) -> None:
    """One rank; the state of FSDP is then as whole as the other."""
    run = Hooked(
        bench.rig, tmp_path, bench.order, "whole-fsdp", (4,), start=(whole.state(2), 2), hooks=NOISE,
        overlay=whole.overlay,
        training={"args": {"distributed_strategy": "fsdp", "fsdp": {"sharding_strategy": "SHARD_GRAD_OP"}}},
    ).run()  # fmt: skip
    assert losses(run.state(4)) == pytest.approx(losses(whole.state(4)), abs=2e-5)
    assert format_of(run.state(4) / "checkpoint") == "unsharded"


def test_formats_of_states(whole: Run, sharded: Run) -> None:
    assert format_of(whole.state(2) / "checkpoint") == "unsharded"
    assert format_of(sharded.state(2) / "checkpoint") == "torch_legacy"
    with pytest.raises(UserError, match="of 2 ranks is restored by FSDP on 2 ranks"):
        detect(sharded.state(2) / "checkpoint", world=1, fsdp=True)
