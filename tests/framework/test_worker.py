"""The worker's promises: what was read, exact resume, the same losses however the work is split.

Token v stands at position v of the stream, which is read in order: so row r of step t reads 64 t + 16 r + (0 ... 15).
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segments import EOS, OLMO2, G, S, losses, metrics, reads, tensors

from pretrain_exp.framework.huggingface import loop
from pretrain_exp.framework.huggingface.framework import HuggingFace
from pretrain_exp.framework.huggingface.model import LanguageModel
from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.overlay_writer import Ops, write_overlay

DROPOUT = {
    "model_type": "gpt2",
    "vocab_size": 512,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 64,
    "eos_token_id": EOS,
}
PLANTED = {5: [500, 501, 502], 70: [510, 509], 203: [7, 7, 7, 7], 380: [499]}  # position -> tokens


@pytest.fixture(scope="session")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan") / "overlay"
    pool = np.array([token for tokens in PLANTED.values() for token in tokens], dtype=np.uint32)
    lengths = np.array([len(tokens) for tokens in PLANTED.values()])
    positions = np.array(list(PLANTED))
    ops = Ops.tokens(positions // S, positions % S, lengths, np.cumsum(lengths) - lengths)
    write_overlay(folder, ops, pool, S)
    return folder


def expected_reads(planted: dict[int, list[int]], first: int, last: int) -> dict[tuple[int, int], tuple[int, bytes]]:
    """Every row of steps [first, last), computed from nothing but the definition above."""
    stream = np.arange(512)
    for position, tokens in planted.items():
        stream[position : position + len(tokens)] = tokens
    rows = stream.reshape(-1, S)
    return {(t, r): (t * G + r, row_digest(rows[t * G + r])) for t in range(first, last) for r in range(G)}


@pytest.fixture(scope="session")
def control(make_segment: Any) -> Any:
    """The control run of one rank, saved at 0, 3 and 6."""
    segment = make_segment(saves=(0, 3, 6))
    segment.here()
    return segment


@pytest.fixture(scope="session")
def treated(make_segment: Any, overlay: Path) -> dict[tuple[int, int], Any]:
    """The treated run by (ranks, loader threads): a job to step 3, then one that goes on from that state to 6."""
    found = {}
    for ranks, threads in ((1, 0), (1, 2), (2, 0), (2, 2)):
        training = {"loader_workers": threads}
        first = make_segment(saves=(3,), overlay=overlay, training=training)
        second = make_segment(
            saves=(6,), overlay=overlay, training=training, start=(first.state(3), 3), store=first.root / "store"
        )
        for segment in (first, second):
            if ranks == 1:
                segment.here()
            else:
                segment.run(ranks)
        found[ranks, threads] = second
    return found


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2])
class TestPromises:
    def test_planted_tokens_are_read_where_planned_and_nothing_else_changes(
        self, ranks: int, threads: int, treated: dict[tuple[int, int], Any], control: Any
    ) -> None:
        store = treated[ranks, threads].root
        second = treated[ranks, threads].state(6)
        first = second.with_name("key-3")
        assert reads(first) == expected_reads(PLANTED, 0, 3), store
        assert reads(second) == expected_reads(PLANTED, 3, 6)
        base = reads(control.state(3), control.state(6))
        assert base == expected_reads({}, 0, 6)
        found = {**reads(first), **reads(second)}
        differ = {key for key in found if found[key] != base[key]}
        assert differ == {(0, 0), (1, 0), (3, 0), (5, 3)}  # positions 5, 70, 203 and 380

    def test_losses_do_not_depend_on_the_split(
        self, ranks: int, threads: int, treated: dict[tuple[int, int], Any]
    ) -> None:
        second, reference = treated[ranks, threads].state(6), treated[1, 0].state(6)
        got = losses(second.with_name("key-3"), second)
        assert got == pytest.approx(losses(reference.with_name("key-3"), reference), abs=1e-6)
        assert len(got) == 6

    def test_the_folder_says_what_the_model_said(
        self, ranks: int, threads: int, treated: dict[tuple[int, int], Any], tmp_path: Path
    ) -> None:
        from transformers import AutoModelForCausalLM

        state = treated[ranks, threads].state(6)
        folder = HuggingFace().to_hf(state, tmp_path / "hf")
        model = AutoModelForCausalLM.from_pretrained(folder)
        trained = tensors(state)
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, trained[f"model.{name}"])


def test_the_digest_is_of_what_the_model_gets(
    make_segment: Any, overlay: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    forward = LanguageModel.forward

    def watched(
        self: LanguageModel, tokens: torch.Tensor, labels: torch.Tensor | None = None, *rest: Any, **named: Any
    ) -> Any:
        if labels is not None:
            seen.extend(tokens.tolist())
            assert torch.equal(labels[:, :-1], tokens[:, 1:]), "labels follow the edits"
        return forward(self, tokens, labels, *rest, **named)

    monkeypatch.setattr(LanguageModel, "forward", watched)
    segment = make_segment(saves=(2,), overlay=overlay, training={"micro_batch_size": 2})
    segment.here()
    logged = reads(segment.state(2))
    assert [row_digest(np.array(row)) for row in seen] == [logged[t, r][1] for t in range(2) for r in range(G)]


def test_saved_states_are_steps_of_one_run(control: Any) -> None:
    assert [row["step"] for row in metrics(control.state(3))] == [0, 1, 2]
    assert [row["step"] for row in metrics(control.state(6))] == [3, 4, 5]
    assert (control.state(0) / "metrics.jsonl").read_text() == ""
    assert reads(control.state(0)) == {}
    for row in metrics(control.state(6)):
        assert row["train/tokens"] == (row["step"] + 1) * G * S
        assert row["train/z_loss"] == 0.0
    assert json.loads((control.state(6) / "state.json").read_text())["step"] == 6
    live = (control.root / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in live] == list(range(6))


def test_a_job_whose_states_exist_trains_nothing(control: Any) -> None:
    before = (control.root / "metrics.jsonl").read_text()
    control.here()
    assert (control.root / "metrics.jsonl").read_text() == before


def test_a_segment_goes_on_from_its_own_saved_states(control: Any, make_segment: Any) -> None:
    """Only step 6 is missing from a store that holds 3: three steps are trained, and weights are bit-equal."""
    again = make_segment(saves=(0, 3, 6))
    again.here()
    expected = tensors(again.state(6))
    os.rename(again.state(6), again.root / "away")
    again.here()
    assert [row["step"] for row in metrics(again.state(6))] == [3, 4, 5]
    found = tensors(again.state(6))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(torch.equal(found[name], tensors(control.state(6))[name]) for name in expected)


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
    settings = {"saves": (20, 160), "model": {"config": DROPOUT}, "training": {"loader_workers": 2}}
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
    for step in (20, 160):
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


def test_two_ranks_go_on_as_one(treated: dict[tuple[int, int], Any], make_segment: Any, overlay: Path) -> None:
    state = treated[2, 0].state(6).with_name("key-3")
    one = make_segment(saves=(6,), overlay=overlay, start=(state, 3))
    one.here()
    assert losses(one.state(6)) == pytest.approx(losses(treated[1, 0].state(6)), abs=1e-6)


@pytest.mark.parametrize("masking", [False, True])
def test_micro_batches_add_up(masking: bool, make_segment: Any) -> None:
    """Also where rows predict different numbers of tokens: EOS stands in one row of four."""
    found = []
    for micro in (None, 1, 2):
        training = {"micro_batch_size": micro, "document_masking": masking, "z_loss": 1e-3}
        segment = make_segment(saves=(9,), training=training)
        segment.here()
        found.append((losses(segment.state(9)), tensors(segment.state(9))))
    whole = found[0]
    for other in found[1:]:
        assert other[0] == pytest.approx(whole[0], abs=1e-5)
        for name, tensor in whole[1].items():
            if name.startswith("model."):
                torch.testing.assert_close(other[1][name], tensor, rtol=1e-3, atol=1e-4)


def test_noise_is_the_same_however_the_batch_is_split(make_segment: Any, tmp_path: Path, control: Any) -> None:
    folder = tmp_path / "overlay"
    slots = np.array([1, 6])
    write_overlay(
        folder, Ops.noise(slots, np.array([3, 0]), np.array([4, 2]), np.array([2.0, 1.0])), np.empty(0, np.uint32), S, 7
    )
    found = []
    for micro in (None, 1):
        segment = make_segment(saves=(3,), overlay=folder, training={"micro_batch_size": micro})
        segment.here()
        found.append(losses(segment.state(3)))
        assert reads(segment.state(3)) == reads(control.state(3)), "the tokens are the control's"
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert found[0][0] != pytest.approx(losses(control.state(3))[0], abs=1e-4)


def test_bf16_runs_and_converts(make_segment: Any, control: Any, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    training = {"precision": "bf16", "activation_checkpointing": True}
    segment = make_segment(saves=(6,), training=training, tokenizer=tmp_path)
    segment.here()
    assert losses(segment.state(6)) == pytest.approx(losses(control.state(3), control.state(6)), abs=0.05)
    assert {t.dtype for n, t in tensors(segment.state(6)).items() if n.startswith("model.")} == {torch.float32}
    folder = HuggingFace().to_hf(segment.state(6), tmp_path / "hf")
    assert (folder / "tokenizer.json").read_text() == "{}"


def test_recomputed_activations_change_nothing(make_segment: Any, control: Any) -> None:
    segment = make_segment(saves=(3,), training={"activation_checkpointing": True})
    segment.here()
    assert losses(segment.state(3)) == losses(control.state(3))


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
