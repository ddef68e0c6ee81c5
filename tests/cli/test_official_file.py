"""model.official: a framework's own file in the place of model/, and who wins over whom."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from pretrain_exp import compose, experiment

FRAMEWORK = """
import json
from dataclasses import dataclass
from pretrain_exp.errors import UserError
from pretrain_exp.framework.huggingface.framework import HuggingFace

@dataclass(frozen=True, kw_only=True)
class Mine(HuggingFace):
    def official(self, path):
        if path.suffix != ".json":
            raise UserError("reads .json", value=str(path))
        return json.loads(path.read_text())

    def check(self, model, training):
        return []
"""
YAML = """# @package framework
defaults:
  - override /model@_global_.model: pythia_70m
  - override /data@_global_.data: official
_target_: my_framework.Mine
python: null
"""
OFFICIAL: dict[str, Any] = {
    "config": {"model_type": "olmo2", "hidden_size": 64, "num_attention_heads": 4},
    "sequence_length": 512,
    "batch_size": 32,
    "optimizer": {"lr": 0.004, "betas": [0.9, 0.99], "eps": 1e-6, "weight_decay": 0.2},
    "schedule": {"name": "linear", "warmup_steps": 7, "total_steps": 1000, "decay_steps": None, "min_lr_ratio": 0.0},
    "data_mix": "mix.txt",
    "data_seed": 6198,
    "training": {"z_loss": 1e-5},
}


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Composes a command line on framework=mine, whose own model is pythia_70m; returns the configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_framework.py").write_text(FRAMEWORK)
    (tmp_path / "conf/framework").mkdir(parents=True)
    (tmp_path / "conf/framework/mine.yaml").write_text(YAML)
    (tmp_path / "run.json").write_text(json.dumps(OFFICIAL))
    (tmp_path / "mix.txt").write_text("0.npy\n")
    found: list[Any] = []
    monkeypatch.setattr(experiment, "run", lambda members, folder, command: found.extend(members) or 0)

    def run(*arguments: str) -> Any:
        GlobalHydra.instance().clear()
        found.clear()
        assert compose.compose_and_run("run", ["--config-dir", "conf", *arguments, "framework=mine"]) == 0
        return found[0]

    return run


def test_without_a_file_the_model_is_its_own(composed: Callable[..., Any]) -> None:
    config = composed("data.mix=mix.txt").config
    assert (config.model.name, config.model.checkpoint_step, config.training.z_loss) == ("pythia_70m", 142000, 0.0)


def test_the_file_takes_the_place_of_the_model(composed: Callable[..., Any]) -> None:
    member = composed("model.official=run.json")
    model, training = member.config.model, member.config.training
    assert model.name == "run"
    assert model.config == OFFICIAL["config"]
    assert (model.checkpoint, model.checkpoint_step, model.revision) == (None, 0, None), (
        "pythia's checkpoint is not its"
    )
    assert model.tokenizer == "EleutherAI/pythia-70m", "the file says nothing of it"
    assert (training.sequence_length, training.batch_size, training.z_loss) == (512, 32, 1e-5)
    assert training.optimizer.model_dump() == {**OFFICIAL["optimizer"], "betas": (0.9, 0.99)}
    assert training.schedule.model_dump() == OFFICIAL["schedule"]
    assert (model.data_seed, member.kinds.data.mix) == (6198, "mix.txt")
    assert member.raw["model"]["config"] == OFFICIAL["config"], "what is recorded is what runs"


WINS: dict[str, tuple[list[str], Callable[[Any], Any], Any]] = {
    "training": (["training.optimizer.lr=1"], lambda c: (c.training.optimizer.lr, c.model.optimizer.lr), (1, 0.004)),
    "all of the optimizer's rest stays": (
        ["training.optimizer.lr=0.1"],
        lambda c: c.training.optimizer.weight_decay,
        0.2,
    ),
    "training that the file sets": (["training.z_loss=0.5"], lambda c: c.training.z_loss, 0.5),
    "a field of the model": (["model.batch_size=64"], lambda c: (c.model.batch_size, c.training.batch_size), (64, 64)),
    "a field inside one": (
        ["model.optimizer.lr=0.2"],
        lambda c: (c.training.optimizer.lr, c.model.optimizer.eps),
        (0.2, 1e-6),
    ),
    "a field of the architecture": (
        ["+model.config.num_hidden_layers=3"],
        lambda c: c.model.config,
        {**OFFICIAL["config"], "num_hidden_layers": 3},
    ),
    "a checkpoint, which knows its architecture": (
        ["model.checkpoint=there", "model.checkpoint_step=40"],
        lambda c: (c.model.checkpoint, c.first_step, c.model.config, c.model.data_seed),
        ("there", 40, None, 6198),
    ),
    "null": (["model.data_seed=null"], lambda c: c.model.data_seed, None),
}  # fmt: skip


@pytest.mark.parametrize("name", WINS)
def test_what_is_typed_wins(name: str, composed: Callable[..., Any]) -> None:
    arguments, look, expected = WINS[name]
    assert look(composed("model.official=run.json", *arguments).config) == expected


def test_in_a_sweep_each_member_reads_its_file(composed: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps({**OFFICIAL, "batch_size": 8}))
    assert composed("-m", "model.official=run.json,other.json").config.training.batch_size == 32


WRONG = {
    "no such file": (["framework=mine", "model.official=no.json"], ["model.official: no such file"]),
    "not its file": (["framework=mine", "model.official=mix.txt"], ["model.official: reads .json"]),
    "a framework without any": (
        ["framework=huggingface", "model.official=mix.txt"],
        ["model.official", "huggingface reads no official configuration files"],
    ),
    "an order it does not have": (
        ["framework=huggingface", "model.data_seed=6198"],
        ["model.data_seed", "no official data order", "seed.order"],
    ),
    "a framework that is none": (
        ["framework=huggingface", "framework._target_=no.such.Class", "model.official=mix.txt"],
        ["framework._target_", "no.such.Class"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name: str, composed: Callable[..., Any], command: Callable[..., tuple[int, str]]) -> None:
    arguments, words = WRONG[name]
    status, said = command("plan", "--config-dir", "conf", *arguments)
    assert status == 2, said
    assert not [word for word in words if word not in said], said
