"""What framework `olmo2` derives from tokens, after their edits: the filter, masks, document lengths."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench import Bench
from olmo2_shared import OFFICIAL, L, converted
from rig_olmo2 import MARKS, PYTHON, SIZES, framework
from rigs import EOS, VOCAB, G, Run, S, metrics

from pretrain_exp.data.olmo_order import OlmoOrder
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.data.token_files import TokenFile, TokenFiles
from pretrain_exp.framework.olmo2.official import read_official
from pretrain_exp.plan.overlay import Overlay
from pretrain_exp.plan.overlay_writer import Ops, write_overlay

pytestmark = MARKS
HERE = Path(__file__).parent
EDITED = {0: (10, np.tile([11, 12, 13], 34)), 6: (30, np.arange(100, 170))}  # sequence -> column, tokens


@pytest.fixture(scope="module")
def bench(benches: Any) -> Bench:
    return benches("olmo2")


@pytest.fixture(scope="module")
def filtered(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, OlmoOrder]:
    """A run of OFFICIAL whose learning rate is nothing. Sequences 1 and 6 of the file are repetitions; the plan plants
    EDITED: a text repeated 34 times in one that is none, and others over most of sequence 6."""
    folder = tmp_path_factory.mktemp("filtered")
    (folder / "official.yaml").write_text(OFFICIAL)
    tokens = np.random.default_rng(1).integers(0, EOS, (12, L)).astype("<u4")
    tokens[1], tokens[6] = 7, np.tile([3, 4], L // 2)
    tokens.tofile(folder / "tokens.npy")
    file = TokenFile(str(folder / "tokens.npy"), "uint32", 0, tokens.size, "tokens", "tokens")
    said = read_official(folder / "official.yaml")
    order = OlmoOrder(TokenFiles((file,), EOS, None), L, G, said["data_seed"])
    slot = {order.sequence(slot): slot for slot in range(12)}
    pool = np.concatenate([new for _, new in EDITED.values()]).astype(np.uint32)
    planted = sorted((slot[sequence], at, len(new)) for sequence, (at, new) in EDITED.items())
    slots, column, length = np.array(planted).T
    place = np.array([0 if at == EDITED[0][0] else len(EDITED[0][1]) for at in column.tolist()])
    write_overlay(folder / "overlay", Ops.tokens(slots, column, length, place), pool, L)
    training = {
        **{name: said[name] for name in ("sequence_length", "batch_size", "optimizer", "schedule")},
        **said["training"],
    }
    run = _Long(bench.rig, folder, order, "filtered", (0, 3), overlay=folder / "overlay", model=said, training=training)
    return run.run(), order


class _Long(Run):
    """Of sequences of L tokens."""

    def write(self) -> Path:
        path = super().write()
        values = {**json.loads(path.read_text()), "phases": Phases([Phase(0, G, L)]).to_json()}
        path.write_text(json.dumps(values))
        return path


def test_the_filter_sees_what_was_planted(filtered: tuple[Run, OlmoOrder], tmp_path: Path) -> None:
    """The loss of each step is the mean over sequences that are no repetitions, after the edits: a planted repetition
    is taken out, a sequence whose repetition an edit breaks comes in."""
    run, order = filtered
    model = converted(run.state(0), tmp_path)
    for step, row in enumerate(metrics(run.state(3))):
        slots = list(range(step * G, step * G + G))
        kept = []
        for slot in slots:
            sequence, tokens = order.sequence(slot), order.read(slot).astype(np.int64)
            if sequence in EDITED:
                at, new = EDITED[sequence]
                tokens[at : at + len(new)] = new
            if sequence not in (0, 1):  # the planted repetition, and one of the file
                kept.append(tokens)
        rows = torch.from_numpy(np.stack(kept))
        with torch.no_grad():
            logits = model(rows).logits[:, :-1].double()
        nll = -logits.log_softmax(-1).gather(-1, rows[:, 1:, None]).mean()
        assert row["train/loss"] == pytest.approx(float(nll), abs=2e-5), (step, [order.sequence(s) for s in slots])
        square = float(logits.logsumexp(-1).square().mean())
        assert row["train/z_loss"] == pytest.approx(1e-4 * square, rel=1e-4)


def test_an_official_file_drives(filtered: tuple[Run, OlmoOrder]) -> None:
    """What the file says is what ai2-olmo was told, by the configuration beside the state."""
    import yaml

    run, _ = filtered
    config = yaml.safe_load((run.state(3) / "checkpoint" / "config.yaml").read_text())
    said = yaml.safe_load(OFFICIAL)
    assert {name: config["model"][name] for name in said["model"]} == {
        **said["model"], "init_device": "cpu", "flash_attention": False, "layer_norm_eps": 1e-6
    }  # fmt: skip
    assert config["optimizer"]["decay_norm_and_bias"] is True
    assert config["optimizer"]["learning_rate"] == 4e-12
    assert (config["scheduler"]["t_warmup"], config["scheduler"]["t_max"]) == (2, 10)  # 9 steps and a token
    assert (config["precision"], config["max_grad_norm"]) == ("fp32", 1.0)
    assert config["fsdp"]["sharding_strategy"] in ("SHARD_GRAD_OP", 2)
    assert config["data"]["seed"] == 6198
    assert config["data"]["instance_filter"]["repetition_max_count"] == 32


@pytest.mark.parametrize(("workers", "dtypes"), [(0, ["uint16", "uint32"]), (2, ["uint16", "uint16"])], ids=str)
def test_what_is_derived_follows_the_edits(bench: Bench, tmp_path: Path, workers: int, dtypes: list[str]) -> None:
    """Document lengths and the filter's masks of every item, in worker processes and threads; from files that
    ai2-olmo reads by itself (one type), and from others."""
    tokens = np.random.default_rng(2).integers(0, EOS, (2, 12 * L + 5))
    files = []
    for i, dtype in enumerate(dtypes):
        tokens[i, 200:800:90] = EOS
        tokens[i].astype(dtype).tofile(tmp_path / f"{i}.npy")
        files.append(TokenFile(str(tmp_path / f"{i}.npy"), dtype, 0, tokens.shape[1], str(i), str(i)))
    order = OlmoOrder(TokenFiles(tuple(files), EOS, None), L, G, 5)
    slots = np.array([17, 18, 20, 25])  # in the first epoch and the second, of 24 slots
    length = np.array([1, 2, L, 1])
    pool = np.concatenate([[EOS], [EOS, EOS], np.full(L, 8), [EOS]]).astype(np.uint32)
    write_overlay(
        tmp_path / "overlay",
        Ops.tokens(slots, np.array([40, L - 2, 0, 0]), length, np.cumsum(length) - length),
        pool,
        L,
    )
    model = {"config": framework(1).complete_config(SIZES, VOCAB, EOS, L)}
    training = {"sequence_length": L, "loader_workers": workers, "document_masking": True}
    run = _Long(bench.rig, tmp_path / "run", order, "loader", (8,), start=(None, 4), overlay=tmp_path / "overlay",
                model=model, training=training)  # fmt: skip
    said = _loader(run.write(), 2)
    assert said["native"] is (len(set(dtypes)) == 1)
    found = [row for batch in said["batches"] for row in zip(*batch.values(), strict=True)]
    assert [slot for slot, *_ in found] == list(range(16, 24))
    assert said["filtered"] == [1] * 8, "with an edit or without, the filter costs what it costs upstream"
    overlay = Overlay.open(tmp_path / "overlay")
    for slot, row, kept, lengths in found:
        expected = overlay.apply(slot, order.read(slot))
        assert row == expected.tolist()
        assert kept is (slot != 20)
        ends = np.flatnonzero(expected == EOS) + 1
        documents = np.diff([0, *ends, *([] if ends.size and ends[-1] == L else [L])])
        assert [n for n in lengths if n] == documents.tolist()


def _loader(job: Path, batches: int) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    command = [str(PYTHON), str(HERE / "olmo2_loader.py"), str(job), str(batches)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_what_fails_in_a_reading_thread_is_told(bench: Bench, tmp_path: Path) -> None:
    """An overlay for longer sequences, whose edit ends where no column is."""
    write_overlay(
        tmp_path / "overlay",
        Ops.tokens(*(np.array([n]) for n in (2, S - 1, 5, 0))),
        np.arange(5, dtype=np.uint32),
        2 * S,
    )
    run = bench.job("thread", "thread", (2,), overlay=tmp_path / "overlay").run(status=1)
    told = json.loads((run.root / "error.json").read_text())["message"]
    assert told == f"ValueError: slot 2: an edit ends at column {S + 4}, the row has {S} tokens"
