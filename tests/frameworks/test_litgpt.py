"""What framework `litgpt` promises beyond the table: litgpt's own numbers, to the last bit, and conversions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench import Bench
from rig_litgpt import LLAMA, MARKS, PYTHON, framework
from rigs import LAST_STEP, TRAINING, Run, losses, metrics

from pretrain_exp.framework.litgpt.families import FAMILIES
from pretrain_exp.framework.worker.probe import check_probe

pytestmark = MARKS
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def bench(benches: Any) -> Bench:
    return benches("litgpt")


def program(name: str, *arguments: object) -> dict[str, Any]:
    """What a program beside this file says, run by litgpt's Python."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [str(PYTHON), str(HERE / name), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint / "lit_model.pth", weights_only=True)["model"]


# What litgpt itself computes


def test_a_job_is_a_run_of_litgpt(bench: Bench) -> None:
    """Losses, learning rates and weights of litgpt.pretrain.main over the same rows, to the last bit."""
    run = bench.control
    stock = program("litgpt_stock.py", run.root / "job.json", 10)["steps"]
    rows = metrics(run.state(3), run.state(10))
    assert [row["train/loss"] for row in rows] == [step["loss"] for step in stock]
    assert [row["train/lr"] for row in rows] == [step["lr"] for step in stock]
    theirs, ours = torch.load(run.root / "stock.pth", weights_only=True), weights(run.state(10) / "checkpoint")
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def test_a_folder_of_litgpt_is_a_start_with_its_moments(bench: Bench, tmp_path: Path) -> None:
    folder = bench.control.state(3) / "checkpoint"
    assert framework(1).check({"config": None, "checkpoint": str(folder)}, TRAINING) == []
    model = {"config": None, "checkpoint": str(folder)}
    run = bench.job("native", "native", (10,), start=(None, 3), model=model, store=tmp_path / "store").run()
    assert losses(run.state(10)) == losses(bench.control.state(10))


def test_a_constant_rate_a_tied_matrix_and_fsdp(bench: Bench, tmp_path: Path) -> None:
    """Embeddings that are the head too, and the same sharded, from which one process goes on."""
    schedule = {**TRAINING["schedule"], "name": "constant", "warmup_steps": 2}
    model, training = {"config": {**LLAMA, "tie_embeddings": True}}, {"schedule": schedule}
    run = bench.job("tied", "tied", (2, 5), training=training, model=model).run()
    peak = TRAINING["optimizer"]["lr"]
    rates = [row["train/lr"] for row in metrics(run.state(2), run.state(5))]
    assert rates == pytest.approx([0.0, peak / 2, peak, peak, peak])
    found = weights(run.state(5) / "checkpoint")
    assert torch.equal(found["lm_head.weight"], found["transformer.wte.weight"])
    out = framework(1).to_hf(run.state(5), tmp_path / "hf")
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is True
    args = {"strategy": "fsdp", "sharding_strategy": "FULL_SHARD"}
    sharding = {**training, "args": args, "activation_checkpointing": True}
    assert framework(1).check(model, {**TRAINING, **sharding}) == []
    sharded = bench.job("fsdp", "fsdp", (2,), training=sharding, model=model).run()
    plain = bench.job("after-fsdp", "after-fsdp", (5,), start=(sharded.state(2), 2), training=training).run()
    assert losses(sharded.state(2), plain.state(5)) == losses(run.state(2), run.state(5))
    (problem,) = framework(2).check(model, {**TRAINING, **sharding})
    assert "need GPUs" in problem.render()


def test_a_signal_to_the_group_leaves_the_loader_alone(bench: Bench) -> None:
    """SIGTERM to two ranks and their four loader processes: the ranks save and ask to be started again."""
    training = {"loader_workers": 2}
    run = bench.job("group", "group", (LAST_STEP,), overlay=bench.overlay, ranks=2, training=training)
    process, live = run.begin(), run.root / "metrics.jsonl"
    deadline = time.monotonic() + 600
    while not live.is_file() or live.read_bytes().count(b"\n") < 2:
        assert process.poll() is None, process.communicate()[0][-6000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 75, printed[-6000:]
    run.ranks = 1
    expected = losses(bench.stopped.state(LAST_STEP))[:40]  # one rank's, from which two drift in their last digits
    assert losses(run.run().state(LAST_STEP))[:40] == pytest.approx(expected, abs=bench.rig.loss_tolerance)


class Hooked(Run):
    def write(self) -> Path:
        path = super().write()
        hook = {"kind": "gradient_noise", "seed": 5, "sigma": 0.25, "steps": [1]}
        path.write_text(json.dumps({**json.loads(path.read_text()), "hooks": [hook]}))
        return path


def test_gradient_noise_falls_on_its_step(bench: Bench) -> None:
    found = {}
    for ranks in (1, 2):
        root = bench.folder / f"hooked-{ranks}"
        run = Hooked(bench.rig, root, bench.order, f"hooked-{ranks}", (4,), store=bench.folder / "store", ranks=ranks)
        found[ranks] = metrics(run.run().state(4))
    rows, plain = found[1], losses(bench.control.state(3), bench.control.state(10))
    noise = [row.get("train/gradient_noise") for row in rows]
    assert noise[1] == pytest.approx(0.25, rel=0.05)
    assert noise[:1] + noise[2:] == [None] * 3
    assert [row["train/loss"] for row in rows[:2]] == plain[:2]  # what step 1 learned is seen at step 2
    assert abs(rows[2]["train/loss"] - plain[2]) > 1e-4
    assert [r["train/loss"] for r in found[2]] == pytest.approx([r["train/loss"] for r in rows], abs=2e-5)


def test_a_run_that_diverges_says_so(bench: Bench) -> None:
    optimizer = {**TRAINING["optimizer"], "lr": 1e30}
    training = {"optimizer": optimizer, "max_grad_norm": None}
    run = bench.job("diverged", "diverged", (8,), training=training).run(2)
    assert "training diverged" in json.loads((run.root / "error.json").read_text())["message"]


def test_another_optimizer_of_torch(bench: Bench) -> None:
    args = {"optimizer": {"class_path": "torch.optim.NAdam", "init_args": {"momentum_decay": 0.01}}}
    run = bench.job("nadam", "nadam", (2,), training={"args": args}).run()
    assert np.isfinite(losses(run.state(2))).all()
    wrong = {"optimizer": {"class_path": "torch.optim.NAdam", "init_args": {"momentum": 0.01}}}
    failed = bench.job("wrong", "wrong", (2,), training={"args": wrong}).run(2)
    assert "no such optimizer" in json.loads((failed.root / "error.json").read_text())["message"]


# Conversions


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("conversions")
    return folder, program("litgpt_conversions.py", folder)


CONVERSIONS = (
    "gpt_neox", "gpt_neox, another rotation", "llama", "llama, own head size", "llama 3", "llama, tied", "qwen2",
    "qwen3", "olmo2",
)  # fmt: skip


@pytest.mark.parametrize("name", CONVERSIONS)
def test_a_family_converts_there_and_back(converted: tuple[Path, dict[str, Any]], name: str) -> None:
    """Within litgpt's environment, and as this one's transformers reads it."""
    from transformers import AutoModelForCausalLM

    folder, found = converted
    assert found["models"].keys() == set(CONVERSIONS)
    assert {result["family"] for result in found["models"].values()} == set(FAMILIES)
    result = found["models"][name]
    assert result["same_weights"]
    assert result["difference"] == 0.0
    assert result["tied"] == ("tied" in name)
    assert result["eos"] == 5
    model = AutoModelForCausalLM.from_pretrained(folder / name / "hf", dtype=torch.float32).eval()
    check_probe(folder / name / "state" / "probe.json", model)


def test_a_damaged_state_is_not_converted(converted: tuple[Path, dict[str, Any]]) -> None:
    said = converted[1]["damaged"]
    assert "off by" in said
    assert "left a folder" not in said


def test_weights_are_fetched_once(converted: tuple[Path, dict[str, Any]]) -> None:
    assert converted[1]["fetched"] == {
        "one": ["config.json", "pytorch_model.bin"],
        "both": ["a.safetensors", "config.json"],
    }
