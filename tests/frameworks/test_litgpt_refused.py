"""What framework `litgpt` takes and refuses before anything starts: models, fields, its own YAML, conf/."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from rig_litgpt import LLAMA, MARKS, PYTHON, framework
from rigs import TRAINING, G, S, metrics

from pretrain_exp.errors import UserError

pytestmark = MARKS
HERE = Path(__file__).parent
SCRATCH = {"config": LLAMA}


@pytest.fixture(scope="module")
def bench(benches: Any) -> Bench:
    return benches("litgpt")


# The configuration


@pytest.mark.parametrize(
    "name", ["falcon-7b", "phi-2", "Gemma-2-2b", "OLMo-1B-hf", "Mixtral-8x7B-v0.1", "Mistral-7B-v0.1"]
)
def test_what_does_not_convert_is_refused_before_it_trains(name: str) -> None:
    (problem,) = framework(1).check({"config": {"name": name}}, TRAINING)
    assert name in problem.render()
    assert "families that convert" in problem.render()


@pytest.mark.parametrize(
    "name", ["pythia-14m", "pythia-160m", "EleutherAI/pythia-1b", "tiny-llama-1.1b", "Llama-3.2-1B", "Qwen2.5-0.5B",
             "Qwen3-0.6B", "OLMo-2-1124-7B", "SmolLM2-135M"]
)  # fmt: skip
def test_models_of_litgpt_by_name(name: str) -> None:
    assert framework(1).check({"config": {"name": name}}, TRAINING) == []
    assert framework(1).complete_config({"name": name}, 7, 0, S) == {"name": name}


def changed(base: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    found = copy.deepcopy(base)
    *parents, name = path.split(".")
    inner = found
    for parent in parents:
        inner = inner.setdefault(parent, {})
    inner[name] = value
    return found


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("model.config.n_layers", 3, "did you mean n_layer?"),
        ("model.config", {"name": "pythia-70"}, "near names: pythia-70m"),
        ("model.config", {"bias": False}, "needs n_layer, n_head, n_embd"),
        ("model.config.n_embd", 30, "multiple of its 4 heads"),
        ("model.config.n_query_groups", 3, "litgpt refuses these fields"),
        ("model.config.block_size", 8, f"at least training.sequence_length = {S}"),
        ("model.attn_implementation", "sdpa", "one attention"),
        ("training.micro_batch_size", 3, "one of [1, 2, 4]"),
        ("training.precision", "fp16", "fp32 or bf16"),
        ("training.schedule.name", "wsd", "one of cosine, constant"),
        ("training.schedule.name", "linear", "one of cosine, constant"),
        ("training.z_loss", 1e-5, "training.z_loss=0"),
        ("training.document_masking", True, "training.document_masking=False"),
        ("training.activation_checkpointing", True, "with FSDP only"),
        ("training.args.stratgy", "ddp", "did you mean strategy?"),
        ("training.args.strategy", "fsdp2", "one of auto, ddp, fsdp"),
        ("training.args.strategy", "ddp", "nothing to exchange"),
        ("training.args.sharding_strategy", "FULL_SHARD", "does not run here"),
        ("training.args.global_batch_size", 4, "set training.batch_size"),
        ("training.args.max_tokens", 10, "set training.schedule.total_steps"),
        ("training.args.precision", "16-true", "one of bf16-true"),
        ("training.args.precision", "32-true", "one of bf16-true"),
        ("training.args.precision", "bf16-true", "training.precision=bf16"),
        ("training.args.optimizer", "AdamW", "class_path and init_args"),
        ("training.args.optimizer.init_args", {"lr": 1.0}, "set training.optimizer.lr"),
        ("training.args.optimizer.init_args", {"amsgard": True}, "known: amsgrad, "),
        ("training.args.optimizer.class_path", "torch.optim.NoSuchThing", "no such class"),
        ("training.args.optimizer.class_path", "no_such_package.optim.AdamW", "no such class"),
        ("training.args.optimizer.class_path", None, "is a dotted path"),
        ("training.args.optimizer.init_args", ["amsgrad"], "names and values"),
    ],
)
def test_each_problem_is_named(path: str, value: object, says: str) -> None:
    whole = changed({"training": TRAINING, "model": SCRATCH}, path, value)
    problems = framework(1).check(whole["model"], whole["training"])
    assert len(problems) == 1, [problem.render() for problem in problems]
    assert says in problems[0].render()


def test_a_right_configuration_has_no_problems() -> None:
    assert framework(2).check(SCRATCH, TRAINING) == []
    args = {"precision": "bf16-true", "optimizer": {"init_args": {"amsgrad": True}}}
    assert framework(1).check(SCRATCH, {**TRAINING, "precision": "bf16", "args": args}) == []


def test_data_that_the_model_cannot_take_are_named() -> None:
    assert framework(1).check_data(SCRATCH, 512, S) == []
    (problem,) = framework(1).check_data(SCRATCH, 513, S)
    assert "512 token ids, the tokenizer 513" in problem.render()
    (problem,) = framework(1).check_data({"config": {"name": "pythia-14m"}}, 100, 513)
    assert "shorter than a sequence" in problem.render()


def test_a_folder_is_its_contents(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="and lit_model"):
        framework(1).initial({"checkpoint": str(tmp_path)})
    (tmp_path / "model_config.yaml").write_text("name: a\n")
    (tmp_path / "lit_model.pth").write_bytes(b"weights")
    found = framework(1).initial({"checkpoint": str(tmp_path)})
    (tmp_path / "lit_model.pth").write_bytes(b"weightz")
    assert framework(1).initial({"checkpoint": str(tmp_path)})["identity"] != found["identity"]
    assert framework(1).initial(SCRATCH)["kind"] == "scratch"


# litgpt's own files


OFFICIAL = """
model_name: mine
model_config:
  name: mine
  hf_config: {}
  block_size: 64
  padded_vocab_size: 512
  n_layer: 2
  n_head: 4
  n_embd: 32
  rotary_percentage: 1.0
  parallel_residual: false
  bias: false
  norm_class_name: RMSNorm
  mlp_class_name: LLaMAMLP
  intermediate_size: 64
out_dir: out/pretrain/mine
precision: bf16-mixed
initial_checkpoint_dir:
resume: false
data: TinyStories
train:
  save_interval: 1000
  log_interval: 1
  global_batch_size: 4
  micro_batch_size: 2
  lr_warmup_steps: 3
  max_tokens: 12800
  max_seq_length: 32
  tie_embeddings: true
  max_norm: 1.0
  min_lr: 4.0e-05
eval: {interval: 2000, initial_validation: false}
optimizer:
  class_path: torch.optim.AdamW
  init_args: {lr: 4e-4, weight_decay: 0.1, betas: [0.9, 0.95]}
devices: auto
tokenizer_dir:
logger_name: csv
seed: 42
"""


def official(folder: Path, text: str) -> dict[str, Any]:
    (folder / "pretrain.yaml").write_text(text)
    return framework(1).official(folder / "pretrain.yaml")


def test_a_file_of_litgpt_drives(bench: Bench, tmp_path: Path) -> None:
    fields = official(tmp_path, OFFICIAL)
    assert (fields["sequence_length"], fields["batch_size"], fields["checkpoint"]) == (S, G, None)
    assert fields["optimizer"] == {"lr": 4e-4, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}
    assert fields["schedule"]["total_steps"] == 12800 // (32 * 4)
    assert fields["schedule"]["min_lr_ratio"] == pytest.approx(0.1)
    assert fields["config"]["tie_embeddings"] is True
    training = {**TRAINING, "optimizer": fields["optimizer"], "schedule": fields["schedule"]}
    assert framework(1).check(fields, training) == []
    run = bench.job("official", "official", (4,), training=training, model=fields).run()
    rates = [row["train/lr"] for row in metrics(run.state(4))]
    assert rates == pytest.approx([0.0, 4e-4 / 3, 8e-4 / 3, 4e-4])


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("global_batch_size: 4", "globl_batch_size: 4", "train.globl_batch_size"),
        ("model_name: mine", "modelname: mine", "modelname litgpt's pretraining takes no such field"),
        ("  lr_warmup_steps: 3", "  lr_warmup_fraction: 0.1", "give lr_warmup_steps"),
        ("torch.optim.AdamW", "torch.optim.SGD", "not AdamW"),
        ("lr: 4e-4,", "learning_rate: 4e-4,", "optimizer.init_args.learning_rate"),
        ("  min_lr: 4.0e-05", "", "train.min_lr is needed"),
    ],
)
def test_a_file_that_cannot_drive_says_why(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in OFFICIAL
    with pytest.raises(UserError) as caught:
        official(tmp_path, OFFICIAL.replace(old, new))
    assert says in caught.value.render()
    assert caught.value.key == "model.official"


def test_a_file_by_name_takes_the_models_own_length(tmp_path: Path) -> None:
    text = "model_name: pythia-160m\ntrain: {global_batch_size: 1024, max_tokens: 299892736000, lr_warmup_steps: 1430, "
    fields = official(
        tmp_path, text + "min_lr: 6e-5}\noptimizer: {class_path: torch.optim.AdamW, init_args: {lr: 6e-4}}\n"
    )
    assert fields["config"] == {"name": "pythia-160m"}
    assert (fields["sequence_length"], fields["schedule"]["total_steps"]) == (2048, 143000)
    text = "initial_checkpoint_dir: checkpoints/mine\n" + text.partition("\n")[2]
    fields = official(tmp_path, text + "min_lr: 6e-5, max_seq_length: 128}\n")
    assert (fields["config"], fields["checkpoint"], fields["sequence_length"]) == (None, "checkpoints/mine", 128)


def test_the_orchestrators_side_loads_nothing_heavy() -> None:
    script = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from rig_litgpt import framework
instance = framework(1)
assert instance.check({SCRATCH!r}, {TRAINING!r}) == []
instance.initial({SCRATCH!r}), instance.numerics({TRAINING!r})
print([name for name in ("torch", "lightning", "litgpt", "transformers") if name in sys.modules])
"""
    import sys

    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "[]", found.stderr


# conf/


PYTHIA = {"70m": (6, 512, 8), "160m": (12, 768, 12), "410m": (24, 1024, 16), "1b": (16, 2048, 8)}


def composed(*overrides: str) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(HERE.parents[1] / "conf"), version_base=None):
        found = OmegaConf.to_container(compose("config", [*overrides]), resolve=False)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


@pytest.mark.parametrize("size", PYTHIA)
def test_pythia_by_name_is_as_its_authors_trained_it(size: str) -> None:
    """Layers, width and heads of EleutherAI/pythia, models/*/*.yml; the rest is that of the released checkpoint's."""
    from pretrain_exp.framework.litgpt.architecture import build
    from pretrain_exp.framework.litgpt.source import config_module

    model = composed("framework=litgpt", f"model=pythia_{size}_litgpt")["model"]
    assert framework(1).check(model, {**TRAINING, "sequence_length": model["sequence_length"]}) == []
    module = config_module(str(PYTHON))
    assert module is not None
    config = build(module, model["config"])
    assert (config.n_layer, config.n_embd, config.n_head) == PYTHIA[size]
    assert (config.block_size, config.rotary_percentage, config.parallel_residual) == (2048, 0.25, True)
    released = composed(f"model=pythia_{size}")["model"]
    assert released["checkpoint"] == f"EleutherAI/pythia-{size}"
    own = {"name", "checkpoint", "checkpoint_step", "revision", "config"}
    assert {key: model[key] for key in model.keys() - own} == {key: released[key] for key in released.keys() - own}


def test_the_framework_and_its_tiny_model() -> None:
    whole = composed("framework=litgpt")
    assert whole["model"]["name"] == "pythia_160m"
    fields = {key: value for key, value in whole["framework"].items() if key != "_target_"}
    assert type(framework(1))(**fields).device == "auto"
    tiny = composed("framework=litgpt", "model=litgpt_tiny")["model"]
    assert framework(1).check(tiny, TRAINING) == []
    assert framework(1).complete_config(tiny["config"], 2048, 0, 256)["block_size"] == 256
