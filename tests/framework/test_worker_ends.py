"""How a worker begins, from a checkpoint of transformers, and how it ends: a signal, a kill, what diverges or fails."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from segments import EOS, OLMO2, G, losses, metrics, reads, tensors

from pretrain_exp.framework.huggingface import loop
from pretrain_exp.framework.huggingface.framework import HuggingFace

DROPOUT = {
    "model_type": "gpt2",
    "vocab_size": 512,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 64,
    "eos_token_id": EOS,
}


# Where it begins


def test_a_checkpoint_of_transformers_is_the_start(make_segment: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {key: value for key, value in OLMO2.items() if key != "model_type"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("olmo2", **fields, pad_token_id=None))
    model.save_pretrained(tmp_path / "hf")
    segment = make_segment(saves=(100, 101), start=(None, 100), model={"checkpoint": str(tmp_path / "hf")})
    segment.here()
    found = tensors(segment.state(100))
    for name, parameter in model.named_parameters():
        assert torch.equal(found[f"model.{name}"], parameter)
        assert torch.count_nonzero(found[f"optimizer.{name}.exp_avg"]) == 0
    assert metrics(segment.state(101))[0]["train/lr"] == pytest.approx(1e-3)  # past the end of the schedule
    assert reads(segment.state(101)).keys() == {(100, row) for row in range(G)}

    weights = load_file(tmp_path / "hf" / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "hf" / "model.safetensors", metadata={"format": "pt"})
    broken = make_segment(saves=(1,), model={"checkpoint": str(tmp_path / "hf")})
    broken.here(status=2)
    assert "model.norm.weight" in json.loads((broken.root / "error.json").read_text())["message"]


def test_weights_without_a_place_are_named(
    make_segment: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {key: value for key, value in OLMO2.items() if key != "model_type"}
    AutoModelForCausalLM.from_config(AutoConfig.for_model("olmo2", **fields, pad_token_id=None)).save_pretrained(
        tmp_path
    )
    weights = load_file(tmp_path / "model.safetensors")
    extra = {f"model.value_head.{index}.weight": torch.ones(2) for index in range(25)}
    save_file({**weights, **extra}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    make_segment(saves=(0,), model={"checkpoint": str(tmp_path)}).here()
    said = capfd.readouterr().err
    assert "no place for 25 weights of the checkpoint, left out: model.value_head.0.weight, " in said
    assert ", ..." in said


# How it ends, and goes on


@pytest.mark.parametrize("steps", [(2,), (1, 4)])
def test_a_signal_ends_after_the_step_and_the_rest_is_the_same(
    steps: tuple[int, ...], make_segment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, so that random draws are part of it."""
    whole = make_segment(saves=(3, 6), model={"config": DROPOUT})
    whole.here()
    cut = make_segment(saves=(3, 6), model={"config": DROPOUT})
    train = loop.Training.train

    def signalled(self: loop.Training, batch: Any) -> None:
        if batch.step == when:
            os.kill(os.getpid(), signal.SIGTERM)
        train(self, batch)

    for when in steps:
        with monkeypatch.context() as patch:
            patch.setattr(loop.Training, "train", signalled)
            cut.here(status=75)
        left = cut.root / "resume" / f"step{when + 1}"
        if when + 1 != 3:
            assert json.loads((left / "progress.json").read_text())["step"] == when + 1
    cut.here()
    for step in (3, 6):
        expected, found = tensors(whole.state(step)), tensors(cut.state(step))
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert reads(cut.state(step)) == reads(whole.state(step))
        assert [row["step"] for row in metrics(cut.state(step))] == [row["step"] for row in metrics(whole.state(step))]
    assert losses(cut.state(3), cut.state(6)) == losses(whole.state(3), whole.state(6))
    assert not (cut.root / "resume").exists()


def test_dropout_draws_anew_at_every_step(make_segment: Any) -> None:
    """With nothing learned, the same row read twice must still lose differently."""
    training = {"optimizer": {"lr": 1e-12, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.0}}
    segment = make_segment(saves=(10,), model={"config": {**DROPOUT, "resid_pdrop": 0.5}}, training=training)
    segment.here()
    first, again = losses(segment.state(10))[0], losses(segment.state(10))[8]  # 8 steps are one epoch
    assert first != again
    assert first == pytest.approx(again, abs=0.1)


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_at_any_time_and_resumed_the_weights_are_bit_equal(ranks: int, make_segment: Any) -> None:
    settings = {"saves": (20, 240), "model": {"config": DROPOUT}, "training": {"loader_workers": 2}}
    whole, killed = make_segment(**settings), make_segment(**settings)
    whole.run(ranks)
    killed.job["training"]["resume_every_minutes"] = 0.002
    for lines in {1: (7, 33), 2: (25,)}[ranks]:
        process, live = killed.start(ranks), killed.root / "metrics.jsonl"
        deadline = time.monotonic() + 600
        while not live.is_file() or live.read_bytes().count(b"\n") < lines:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()  # with two ranks the launcher alone: its ranks must not outlive it
        process.communicate(timeout=600)
        _demand_no_process_left(process.pid)
    killed.job["training"]["resume_every_minutes"] = 15.0
    killed.run(ranks)
    attempts = {row["attempt"] for row in map(json.loads, (killed.root / "metrics.jsonl").read_text().splitlines())}
    assert attempts == {1: {1, 2, 3}, 2: {1, 2}}[ranks]
    for step in (20, 240):
        expected, found = tensors(whole.state(step)), tensors(killed.state(step))
        assert any(name.endswith("exp_avg_sq") for name in expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert reads(killed.state(step)) == reads(whole.state(step))
        assert losses(killed.state(step)) == losses(whole.state(step))


def _demand_no_process_left(group: int) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("ranks outlived their launcher")


def test_divergence_is_named_with_its_step(make_segment: Any) -> None:
    training = {"optimizer": {"lr": 1e30, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}, "log_every": 4}
    segment = make_segment(saves=(6,), training=training)
    segment.here(status=2)
    error = json.loads((segment.root / "error.json").read_text())
    assert error["kind"] == "user"
    assert "at step 1 the loss is nan" in error["message"]
    assert not segment.state(6).exists()


def test_a_failing_rank_ends_all_and_the_first_message_stays(make_segment: Any, tmp_path: Path) -> None:
    segment = make_segment(saves=(6,), overlay=tmp_path / "nothing")
    printed = segment.run(ranks=2, status=2)
    error = json.loads((segment.root / "error.json").read_text())
    assert error["kind"] == "user"
    assert str(tmp_path / "nothing") in error["message"]
    assert str(tmp_path / "nothing") in printed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(make_segment: Any, tmp_path: Path) -> None:
    """bf16, sharded and compiled: it learns, resumes and converts."""
    training = {"precision": "bf16", "compile": True}
    for compiled in (False, True):
        training["compile"] = compiled
        first = make_segment(saves=(3,), training=training)
        second = make_segment(saves=(6,), training=training, start=(first.state(3), 3), store=first.root / "store")
        for segment in (first, second):
            segment.run(device="cuda")
        assert losses(second.state(6))[-1] < losses(first.state(3))[0]
        HuggingFace().to_hf(second.state(6), tmp_path / f"hf{compiled}")
