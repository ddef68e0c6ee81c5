"""What framework `olmo2` promises beyond the table: upstream's trainer, checkpoints, filter, files and strategies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench import Bench
from rig_olmo2 import PYTHON, SIZES, framework
from rigs import EOS, TRAINING, VOCAB, G, Run, S, losses, metrics, reads

from pretrain_exp.data.olmo_order import OlmoOrder
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.data.token_files import TokenFile, TokenFiles
from pretrain_exp.errors import UserError
from pretrain_exp.framework.olmo2.formats import FIX, REFUSED, detect, format_of
from pretrain_exp.framework.olmo2.framework import Olmo2
from pretrain_exp.framework.olmo2.official import left_out, read_official
from pretrain_exp.framework.worker.probe import check_probe
from pretrain_exp.plan.overlay import Overlay
from pretrain_exp.plan.overlay_writer import Ops, write_overlay

pytestmark = [
    pytest.mark.olmo2,
    pytest.mark.skipif(
        not PYTHON.is_file() and not os.environ.get("PRETRAIN_EXP_FRAMEWORKS"), reason="make env-olmo2 builds it"
    ),
]
HERE = Path(__file__).parent
LEGACY = {"distributed_strategy": "fsdp", "sharded_checkpointer": "torch_legacy"}
NOISE = [{"kind": "gradient_noise", "steps": [1, 3], "sigma": 0.05, "seed": 4}]
L = 128  # tokens of a sequence in which three can be repeated 34 times
EDITED = {0: (10, np.tile([11, 12, 13], 34)), 6: (30, np.arange(100, 170))}  # sequence -> column, tokens
OFFICIAL = f"""
run_name: OLMo2-like
seed: 6198
model: {{d_model: 32, n_heads: 2, n_layers: 2, mlp_ratio: 8, weight_tying: false, alibi: false, rope: true,
  rope_theta: 500000, flash_attention: true, attention_dropout: 0.0, include_bias: false, block_type: sequential,
  layer_norm_type: rms,
  layer_norm_with_affine: true, layer_norm_eps: 1e-6, bias_for_layer_norm: false, attention_layer_norm: true,
  attention_layer_norm_with_affine: true, norm_after: true, activation_type: swiglu, residual_dropout: 0.0,
  embedding_dropout: 0.0, max_sequence_length: {L}, vocab_size: {VOCAB}, embedding_size: {VOCAB}, eos_token_id: {EOS},
  pad_token_id: {EOS}, init_device: meta, init_fn: normal, init_std: 0.02, init_cutoff_factor: 3}}
softmax_auxiliary_loss: true
auxiliary_loss_multiplier: 1e-5
optimizer: {{name: adamw, learning_rate: 4.0e-12, weight_decay: 0.1, eps: 1e-8, decay_norm_and_bias: true,
  decay_embeddings: false, betas: [0.9, 0.95]}}
scheduler: {{name: cosine_with_warmup, units: tokens, t_warmup: {2 * G * L}, t_max: {9 * G * L + 1},
  alpha_f: 0.1, warmup_min_lr: 0.0}}
tokenizer: {{identifier: tokenizers/allenai_dolma2.json}}
max_duration: 4e12T
global_train_batch_size: {G}
device_train_microbatch_size: 2
precision: fp32
fsdp: {{wrapping_strategy: null, sharding_strategy: SHARD_GRAD_OP, precision: mixed}}
max_grad_norm: 1.0
device_eval_batch_size: ${{device_train_microbatch_size}}
data:
  instance_filter: {{repetition_max_period: 13, repetition_min_period: 1, repetition_max_count: 32}}
  paths: [http://olmo-data.org/a.npy, http://olmo-data.org/b.npy]
"""


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


# What is derived from tokens, under an official file


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
    model = _converted(run.state(0), tmp_path)
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


def _converted(state: Path, folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(framework(1).to_hf(state, folder / "hf")).eval()


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
    check_probe(sharded.state(4) / "probe.json", _converted(sharded.state(4), tmp_path))


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


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["model.pt", "optim.pt", "train.pt"], "unsharded"),
        (["rank0.pt", "rank1.pt"], "torch_legacy"),
        (["model_and_optim/x", "train/rank0.pt"], "torch_new"),
        (["metadata.yaml", "model/rank0.pt", "optim/rank0.pt"], "local"),
        (["model/.metadata", "optim/.metadata", "train/rank0.pt"], "olmo_core"),
    ],
)
def test_a_format_is_known_by_its_files(tmp_path: Path, files: list[str], kind: str) -> None:
    for name in ("config.yaml", *files):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert format_of(tmp_path) == kind
    if kind in REFUSED:
        with pytest.raises(UserError, match=f"of format {kind}: ") as refused:
            detect(tmp_path, 2, True)
        assert refused.value.fix == FIX
    else:
        assert detect(tmp_path, 2, True) == kind


def test_a_checkpoint_that_is_not_whole(tmp_path: Path) -> None:
    for name in ("config.yaml", "model.pt", "train.pt"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"lacks optim\.pt"):
        Olmo2().initial({"checkpoint": str(tmp_path)})


# What is refused before anything starts

MODEL = {"config": {**SIZES, "vocab_size": VOCAB}, "checkpoint": None}
WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an unknown field": ({}, {"args": {"fsdp": {"sharding": 1}}}, "sharding: .*\n.*did you mean sharding_strategy"),
    "a field of ours": ({}, {"args": {"optimizer": {"learning_rate": 1}}}, "has another place: training.optimizer.lr"),
    "a field of nobody's": ({}, {"args": {"save_interval": 5}}, "save_interval: cannot be chosen: states are saved"),
    "an unknown choice": ({}, {"args": {"distributed_strategy": "ddq"}}, "knows no such DistributedStrategy"),
    "another model by args": ({}, {"args": {"model": {"norm_after": False}}}, "makes another model than OLMo-2"),
    "a format that does not restore": ({}, {"args": {"sharded_checkpointer": "olmo_core"}}, "does not go on exactly"),
    "shards of what is whole": ({}, {"args": {"sharded_checkpointer": "torch_legacy"}}, "is a format of FSDP"),
    "a schedule": ({}, {"schedule": {**TRAINING["schedule"], "name": "wsd"}}, "ai2-olmo has no such schedule"),
    "bf16 on a CPU": ({}, {"precision": "bf16"}, "bf16 on a GPU only"),
    "document masking without flash": ({}, {"document_masking": True}, "flash-attn alone"),
    "a batch": ({}, {"batch_size": 5}, "5 sequences do not divide among 2 ranks"),
    "a field of the model": ({"config": {**SIZES, "hidden_size": 3}}, {}, "ModelConfig has no such field"),
    "a size that is missing": ({"config": {"d_model": 8}}, {}, "lacks n_heads, n_layers"),
    "heads": ({"config": {**SIZES, "n_heads": 5}}, {}, "d_model: must be a multiple of its 5 heads"),
    "another architecture": ({"config": {**SIZES, "layer_norm_type": "default"}}, {}, "other models do not convert"),
    "attention of transformers": ({"attn_implementation": "sdpa"}, {}, "is a setting of transformers"),
    "copies that the ranks do not make": (
        {}, {"args": {**LEGACY, "fsdp": {"hybrid_sharding_num_model_replicas": 3}}}, "2 ranks cannot hold so many"
    ),
    "whole states of CPU shards": ({}, {"args": {"distributed_strategy": "fsdp"}}, "cannot gather an unsharded"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_refused(name: str) -> None:
    model, training, message = WRONG[name]
    found = framework(2).check({**MODEL, **model}, {**TRAINING, **training})
    assert len(found) == 1, found
    assert found[0].fix
    with pytest.raises(UserError, match=message):
        raise found[0]


def test_nothing_is_wrong_with_what_is_right() -> None:
    args = {"fsdp": {"sharding_strategy": "HYBRID_SHARD"}, "fused_loss": True, "model": {"flash_attention": True}}
    there = Olmo2(python=str(PYTHON)).elsewhere(8, "cuda")
    training = {**TRAINING, "args": args, "precision": "bf16", "document_masking": True, "batch_size": 16}
    assert there.check(MODEL, training) == []
    assert framework(2).check(MODEL, TRAINING) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "cannot be read"),
        ("model: {}", "lacks optimizer, scheduler, global_train_batch_size"),
        (OFFICIAL.replace("norm_after: true", "norm_after: false"), "another model: norm_after is False, not True"),
        (OFFICIAL.replace("cosine_with_warmup", "inverse_sqrt_with_warmup"), "has scheduler inverse_sqrt_with_warmup"),
        (OFFICIAL.replace("\nprecision: fp32", "\nprecision: amp_fp16"), "computes in amp_fp16"),
    ],
)
def test_files_that_do_not_drive(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        framework(1).official(tmp_path / "run.yaml")


def test_what_differs_from_the_recipe_goes_to_args(tmp_path: Path) -> None:
    text = OFFICIAL.replace("decay_embeddings: false", "decay_embeddings: true")
    text += "  label_mask_paths: [a.npy]\n  drop_last: true\nearly_stopping_factor: 2.0\nwandb: {name: a}\n"
    (tmp_path / "run.yaml").write_text(text.replace("repetition_max_count: 32", "repetition_max_count: 64"))
    said = read_official(tmp_path / "run.yaml")["training"]
    assert said["args"] == {
        "optimizer": {"decay_embeddings": True},
        "data": {
            "instance_filter": {"repetition_max_period": 13, "repetition_min_period": 1, "repetition_max_count": 64}
        },
        "fsdp": {"wrapping_strategy": None, "sharding_strategy": "SHARD_GRAD_OP"},
    }
    assert said["z_loss"] == 1e-4
    told = left_out(tmp_path / "run.yaml")
    assert "flash_attention" in told[0]
    assert "auxiliary_loss_multiplier 1e-05, which ai2-olmo never reads" in told[1]
    assert [text.partition(":")[0] for text in told[2:4]] == ["data.label_mask_paths", "early_stopping_factor"]
    assert told[4].endswith(": device_eval_batch_size, device_train_microbatch_size, wandb.name")


# conf/

STAGE_1 = {"olmo2_1b": 512, "olmo2_7b": 1024, "olmo2_13b": 2048}


@pytest.mark.parametrize("name", [*STAGE_1, "olmo2_1b_stage2", "olmo2_7b_stage2", "olmo2_13b_stage2", "olmo2_tiny"])
def test_models_compose_and_fit_the_framework(name: str) -> None:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from pretrain_exp.paths import conf_dir

    GlobalHydra.instance().clear()
    mix = ["model.data_mix=mix.yaml"] if "stage2" in name else []
    with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
        composed = compose("config", overrides=["framework=olmo2", f"model={name}", *mix])
    config: Any = OmegaConf.to_container(composed, resolve=True)
    model, training = config["model"], config["training"]
    training["schedule"]["total_steps"] = training["schedule"]["total_steps"] or 600
    tiny = name == "olmo2_tiny"
    there = Olmo2(python=str(PYTHON)).elsewhere(1 if tiny else 8, "cpu" if tiny else "cuda")
    assert there.check(model, training) == []
    assert config["data"]["_target_"].endswith("OfflineEnglish" if tiny else "OfficialMix")
    if name in STAGE_1:
        tokens = model["batch_size"] * model["sequence_length"]
        assert model["batch_size"] == STAGE_1[name]
        assert training["schedule"]["warmup_steps"] * tokens == 8_388_608_000
        assert 0 <= training["schedule"]["total_steps"] * tokens - 5e12 < tokens


def test_the_framework_brings_its_model(command: Any) -> None:
    status, said = command("--cfg", "job", "framework=olmo2")
    assert status == 0
    assert "name: olmo2_1b" in said
    assert "mix: ${model.data_mix}" in said
