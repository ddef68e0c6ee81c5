"""The orchestrator's side: what is wrong is said before anything starts, and without torch."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf
from segments import OLMO2, TRAINING

from pretrain_exp.config import ModelConfig
from pretrain_exp.errors import UserError
from pretrain_exp.framework.base import Checkpoint
from pretrain_exp.framework.huggingface.checks import config_fields, model_types
from pretrain_exp.framework.huggingface.framework import HuggingFace
from pretrain_exp.framework.installed import arguments_of
from pretrain_exp.framework.ranked import START
from pretrain_exp.store.states import write_json


def changed(base: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    found = copy.deepcopy(base)
    *parents, name = path.split(".")
    inner = found
    for parent in parents:
        inner = inner[parent]
    inner[name] = value
    return found


def test_a_right_configuration_has_no_problems() -> None:
    assert HuggingFace(devices=2).check({"config": OLMO2}, TRAINING) == []
    assert HuggingFace().check({"config": None, "checkpoint": "somewhere"}, TRAINING) == []


@pytest.mark.parametrize(
    ("framework", "path", "value", "says"),
    [
        (HuggingFace(devices=3), "training.batch_size", 4, "do not divide among 3 ranks"),
        (HuggingFace(devices=2), "training.micro_batch_size", 4, "divide the 2 sequences of a rank"),
        (HuggingFace(), "training.micro_batch_size", 3, "one of [1, 2, 4]"),
        (HuggingFace(), "training.precision", "fp16", "fp32 or bf16"),
        (HuggingFace(), "training.schedule.name", "cosin", "one of cosine, linear, wsd, constant"),
        (HuggingFace(), "training.schedule.min_lr_ratio", 1.5, "between 0 and 1"),
        (HuggingFace(), "training.optimizer.lr", 0.0, "must be positive"),
        (HuggingFace(), "training.optimizer.betas", [0.9, 1.0], "training.optimizer.betas.1: must be at least 0"),
        (HuggingFace(), "training.optimizer.betas", [-0.1, 0.9], "training.optimizer.betas.0: must be at least 0"),
        (HuggingFace(), "training.args", {"nonsense": 5}, "framework huggingface takes no training.args"),
        (HuggingFace(device="cuda", devices=64), "training.batch_size", 64, "64 GPUs are asked for"),
        (HuggingFace(), "model.config.model_type", "olmo22", "near names: olmo2"),
        (HuggingFace(), "model.config.hiden_size", 64, "did you mean hidden_size?"),
        (HuggingFace(), "model.config.num_attention_heads", 5, "multiple of its 5 heads"),
        (HuggingFace(), "model.config.max_position_embeddings", 8, "at least training.sequence_length = 16"),
    ],
)
def test_each_problem_is_named(framework: HuggingFace, path: str, value: object, says: str) -> None:
    whole = changed({"training": TRAINING, "model": {"config": OLMO2}}, path, value)
    problems = framework.check(whole["model"], whole["training"])
    assert len(problems) == 1
    assert says in problems[0].render()


SCRATCH, FOLDER = {"vocab_size": 512, "max_position_embeddings": 64}, {"vocab_size": 512, "n_positions": 64}
MULTIMODAL = {"text_config": {"vocab_size": 512, "max_position_embeddings": 64}}


@pytest.mark.parametrize("config", [SCRATCH, FOLDER, MULTIMODAL])
@pytest.mark.parametrize("where", ["scratch", "folder", "cache"])
@pytest.mark.parametrize(
    ("vocab_size", "length", "says"),
    [
        (512, 64, []),
        (513, 64, ["the model has 512 token ids, the tokenizer 513"]),
        (512, 65, ["longer than the 64 positions"]),
        (600, 100, ["512 token ids", "64 positions"]),
    ],
)
def test_data_that_the_model_cannot_take_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any],
    where: str,
    vocab_size: int,
    length: int,
    says: list[str],
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = {"checkpoint": str(tmp_path), "tokenizer": "t"} if where == "folder" else {"config": config}
    if where == "cache":
        model = {"checkpoint": "me/model", "revision": "v1", "tokenizer": "t"}
        asked = {("me/model", "config.json", "v1"): str(tmp_path / "config.json")}
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, revision: asked[(*a, revision)])
    problems = HuggingFace().check_data(model, vocab_size, length)
    assert len(problems) == len(says)
    for problem, words in zip(problems, says, strict=True):
        assert words in problem.render()
    keys = {"model.config.vocab_size" if where == "scratch" else "model.tokenizer", "training.sequence_length"}
    assert {problem.key for problem in problems} <= keys


def test_a_checkpoint_that_lies_elsewhere_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, revision: None)
    assert HuggingFace().check_data({"checkpoint": "me/model", "revision": None}, 10**6, 10**6) == []


@pytest.mark.parametrize("live", [None, "jobs/j"])
def test_a_checkpoint_is_converted_on_the_stores_file_system(tmp_path: Path, live: str | None) -> None:
    """Beside nothing that a job's killed start left there."""

    class Framework(HuggingFace):
        def to_hf(self, state: Path, out: Path) -> Path:
            out.mkdir()
            (out / "config.json").write_text(state.name)
            return out

    state = tmp_path / "store" / "states" / "key"
    state.mkdir(parents=True)
    write_json(state / "state.json", {"step": 3, "sequence_length": 16, "batch_size": 4})
    (tmp_path / "store/jobs/j/hf-key-left/hf").mkdir(parents=True)
    place = tmp_path / "store" / (live or "staging")
    with Checkpoint.of(Framework(), state).as_hf(live and place) as folder:
        assert list(place.iterdir()) == [folder.parent]
        assert (folder / "config.json").read_text() == "key"
    assert not list(place.iterdir())


@pytest.mark.parametrize("warmup", [5, 7])
def test_a_warm_up_is_judged_by_the_configuration_alone(warmup: int) -> None:
    assert HuggingFace().check({"config": OLMO2}, changed(TRAINING, "schedule.warmup_steps", warmup)) == []


def test_wsd_needs_its_decay() -> None:
    training = changed(TRAINING, "schedule", {"name": "wsd", "total_steps": 6, "warmup_steps": 2, "decay_steps": 5})
    (problem,) = HuggingFace().check({"config": OLMO2}, training)
    assert problem.key == "training.schedule.decay_steps"


@pytest.mark.parametrize("model_type", ["olmo2", "llama", "gpt2", "gpt_neox", "qwen3"])
def test_fields_read_from_source_are_the_classes_own(model_type: str) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model(model_type)
    assert model_type in model_types()
    assert all(hasattr(config, config.attribute_map.get(name, name)) for name in config_fields(model_type) - {"self"})
    assert {"vocab_size", "eos_token_id", "tie_word_embeddings"} <= config_fields(model_type)


def test_bf16_on_a_cpu_is_warned_of() -> None:
    framework = HuggingFace(device="cpu")
    assert framework.warnings({}, TRAINING) == []
    assert "bf16" in framework.warnings({}, changed(TRAINING, "precision", "bf16"))[0]


def test_commands(tmp_path: Path) -> None:
    job = tmp_path / "job.json"
    one, two = HuggingFace(device="cpu"), HuggingFace(device="cpu", devices=2, python="/opt/python", threads=3)
    worker, launch = "pretrain_exp.framework.huggingface.worker", "pretrain_exp.framework.worker.launch"
    assert one.command(job) == [sys.executable, START, worker, str(job), "--device", "cpu"]
    assert two.command(job)[:7] == ["/opt/python", START, launch, "--worker", worker, "--ranks", "2"]
    assert two.environment()["OMP_NUM_THREADS"] == "3"


def test_from_scratch_is_its_config() -> None:
    framework = HuggingFace()
    found = framework.initial({"config": OLMO2})
    assert found == framework.initial({"config": dict(reversed(OLMO2.items()))})
    assert found["identity"] != framework.initial({"config": {**OLMO2, "hidden_size": 64}})["identity"]


def test_a_folder_is_its_contents(tmp_path: Path) -> None:
    framework = HuggingFace()
    with pytest.raises(UserError, match=r"must hold config.json and \*.safetensors"):
        framework.initial({"checkpoint": str(tmp_path)})
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    identity = framework.initial({"checkpoint": str(tmp_path)})["identity"]
    copied = tmp_path / "copied"
    copied.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copied / name).write_bytes((tmp_path / name).read_bytes())
    assert framework.initial({"checkpoint": str(copied)})["identity"] == identity
    (copied / "model.safetensors").write_bytes(b"weightz")
    assert framework.initial({"checkpoint": str(copied)})["identity"] != identity


def test_a_commit_needs_no_hub_and_a_wrong_name_says_so() -> None:
    framework, commit = HuggingFace(), "0123456789abcdef" * 2 + "01234567"
    assert framework.initial({"checkpoint": "some/name", "revision": commit})["identity"] == f"some/name@{commit}"
    with pytest.raises(UserError, match="not in the local cache") as caught:
        framework.initial({"checkpoint": "some/name", "revision": None})
    assert caught.value.key == "model.checkpoint"
    with pytest.raises(UserError, match="neither a checkpoint"):
        framework.initial({"checkpoint": None, "config": None})


def test_the_orchestrators_side_loads_nothing_heavy() -> None:
    """Also while it checks a configuration."""
    script = f"""
import sys
from pretrain_exp.framework.huggingface.framework import HuggingFace
from pretrain_exp.framework.ranked import START
framework = HuggingFace()
assert framework.check({{"config": {OLMO2!r}}}, {TRAINING!r}) == []
framework.initial({{"config": {OLMO2!r}}}), framework.numerics({TRAINING!r})
print([name for name in ("torch", "transformers", "huggingface_hub", "scipy") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == json.dumps([]), found.stderr


CONF = Path(__file__).parents[2] / "conf"
OTHERS = (
    "olmo2_tiny",
    "olmo2_1b$",
    "olmo2_1b_stage2",
    "olmo2_7b",
    "olmo2_13b",
    "olmo2_32b",
    "olmo3_",
    "litgpt_",
    "pythia_.*_litgpt",
)
OWN = sorted(path.stem for path in (CONF / "model").glob("*.yaml") if not re.match("|".join(OTHERS), path.stem))


@pytest.mark.parametrize("name", OWN)
def test_models_of_the_configuration(name: str) -> None:
    """Each is whole and, from scratch, names only what its architecture has. Other frameworks hold their own."""
    with hydra.initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        overrides = [f"model={name}"] + (["model.checkpoint=some/name"] if name == "hf" else [])
        composed = hydra.compose("config", overrides=overrides)
    model = ModelConfig(**OmegaConf.to_container(composed.model, resolve=True)).model_dump()  # type: ignore[arg-type]
    training = {
        **TRAINING,
        "optimizer": model["optimizer"],
        "schedule": {**model["schedule"], "total_steps": 10_000_000},
    }
    assert HuggingFace(devices=1).check(model, training) == []


@pytest.mark.parametrize(
    ("code", "name", "there", "names"),
    [
        ("print('a banner')\nclass A:\n def __init__(self, params, lr): ...", "A", True, {"params", "lr"}),
        ("class A:\n def __init__(self, params, **more): ...", "A", True, None),
        ("class A: ...", "B", False, None),
        ("import no_such_package", "A", False, None),
        ("raise RuntimeError('no GPU here')", "A", True, None),  # it may be had where the job runs
    ],
)
def test_what_a_class_takes_is_asked_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, name: str, there: bool, names: set[str] | None
) -> None:
    (tmp_path / "theirs.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    arguments_of.cache_clear()
    found = arguments_of(sys.executable, f"theirs.{name}")
    arguments_of.cache_clear()
    assert found == (there, names)
