"""The worker's promises: what was read, the same losses however the work is split, states that are steps of one run.

Token v stands at position v of the stream, which is read in order: so row r of step t reads 64 t + 16 r + (0 ... 15).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segments import G, S, losses, metrics, reads, tensors

from pretrain_exp.framework.huggingface.framework import HuggingFace
from pretrain_exp.framework.huggingface.model import LanguageModel
from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.overlay_writer import Ops, write_overlay

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
