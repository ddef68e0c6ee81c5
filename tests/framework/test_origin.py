"""Whose model a model section begins with: each framework against checkpoints and fields of every other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pretrain_exp.errors import UserError
from pretrain_exp.framework.huggingface.framework import HuggingFace
from pretrain_exp.framework.litgpt.framework import LitGPT
from pretrain_exp.framework.olmo2.checks import check_checkpoint
from pretrain_exp.framework.olmo2.framework import Olmo2
from pretrain_exp.framework.olmo3.checks import check_vocabulary
from pretrain_exp.framework.olmo3.framework import Olmo3
from pretrain_exp.framework.ranked import RankedFramework

FRAMEWORKS = {kind.name: kind() for kind in (HuggingFace, Olmo2, Olmo3, LitGPT)}
CHECKPOINTS: dict[str, tuple[dict[str, Any], set[str], str]] = {  # files -> who reads them, what they are called
    "pythia": ({"config.json": {"model_type": "gpt_neox"}}, {"huggingface", "litgpt"}, "GPT-NeoX of transformers"),
    "mamba": ({"config.json": {"model_type": "mamba"}}, {"huggingface"}, "a checkpoint of mamba"),
    "olmo2": ({"config.json": {"model_type": "olmo2"}}, {*FRAMEWORKS}, ""),
    "olmo3": ({"config.json": {"model_type": "olmo3"}}, {"huggingface", "olmo3"}, "a checkpoint of OLMo-3"),
    "ai2-olmo": ({"config.yaml": {}, "model.pt": {}}, {"olmo2"}, "a checkpoint of ai2-olmo"),
    "OLMo-core": ({"config.json": {"model": {}}, "model_and_optim/a": {}}, {"olmo3"}, "a checkpoint of OLMo-core"),
    "litgpt": ({"model_config.yaml": {}, "lit_model.pth": {}}, {"litgpt"}, "a checkpoint of litgpt"),
    "nothing": ({"a.txt": {}}, set(), "the folder is no checkpoint that"),
}  # fmt: skip
CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "transformers": ({"model_type": "olmo2", "hidden_size": 8}, "huggingface"),
    "ai2-olmo": ({"d_model": 8, "n_heads": 2, "n_layers": 1}, "olmo2"),
    "OLMo-core": ({"factory": "olmo2_1B", "d_model": 8}, "olmo3"),
    "litgpt": ({"n_layer": 1, "n_head": 2, "n_embd": 8}, "litgpt"),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
@pytest.mark.parametrize("framework", FRAMEWORKS.values(), ids=FRAMEWORKS)
def test_a_checkpoint_of_another_is_refused_in_one_sentence(
    framework: RankedFramework, kind: str, tmp_path: Path
) -> None:
    files, readers, called = CHECKPOINTS[kind]
    for name, value in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(value))
    found = framework.check_start({"checkpoint": str(tmp_path)})
    assert [error.key for error in found] == ([] if framework.name in readers else ["model.checkpoint"])
    said = f"{framework.name} starts from" if kind == "nothing" else f"framework={framework.name} reads"
    assert all(called in error.render() and said in error.render() for error in found)


@pytest.mark.parametrize("package", CONFIGS)
@pytest.mark.parametrize("framework", FRAMEWORKS.values(), ids=FRAMEWORKS)
def test_fields_of_another_are_refused_in_one_sentence(framework: RankedFramework, package: str) -> None:
    config, reader = CONFIGS[package]
    found = framework.check_start({"config": config, "checkpoint": None})
    assert [error.key for error in found] == ([] if framework.name == reader else ["model.config"])
    assert all(f"in the fields of {package}; " in error.render() for error in found)
    assert all(f"framework={reader}" in error.render() for error in found)


@pytest.mark.parametrize("text", ["{", '{"model_type": ', "[1]"])
@pytest.mark.parametrize("framework", FRAMEWORKS.values(), ids=FRAMEWORKS)
def test_a_damaged_configuration_is_told(framework: RankedFramework, text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    (error,) = framework.check_start({"checkpoint": str(tmp_path)})
    assert (error.key, error.value) == ("model.checkpoint", str(tmp_path / "config.json"))
    assert "cannot be read" in error.render()
    with pytest.raises(UserError, match="cannot be read"):
        check_vocabulary({"checkpoint": str(tmp_path)}, 10)


@pytest.mark.parametrize("name", ["/no/such/folder", "../gone", "some/name"])
def test_what_is_not_here_is_not_judged(name: str) -> None:
    assert all(framework.check_start({"checkpoint": name}) == [] for framework in FRAMEWORKS.values())


@pytest.mark.parametrize(
    ("files", "says", "strategy", "problem"),
    [
        (("model.pt", "optim.pt", "train.pt"), {}, "ddp", None),
        (("model.pt", "optim.pt", "train.pt"), {"block_type": "llama"}, "ddp", "(block_type is not sequential)"),
        (("model.pt",), {}, "ddp", "lacks optim.pt, train.pt"),
        (("rank0.pt",), {}, "fsdp", None),
        (("rank0.pt",), {}, "ddp", "of 1 ranks is restored by FSDP on 1 ranks"),
        (("model_and_optim",), {}, "fsdp", "format torch_new"),
    ],
)
def test_an_olmo_checkpoint_that_would_not_go_on_is_refused_before_it_trains(
    tmp_path: Path, files: tuple[str, ...], says: dict[str, Any], strategy: str, problem: str | None
) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps({"model": {"d_model": 8, "n_heads": 2, "n_layers": 1, **says}}))
    for name in files:
        (tmp_path / name).write_bytes(b"")
    found = [error.render() for error in check_checkpoint({"checkpoint": str(tmp_path)}, 1, strategy)]
    assert (found == []) if problem is None else problem in found[0]


def test_the_shards_of_an_index_are_named(tmp_path: Path) -> None:
    """What is to be downloaded beside an index: the same in every framework that takes such a folder."""
    index = {"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    found = [framework.named_files(tmp_path) for framework in FRAMEWORKS.values()]
    assert found == [["model-1.safetensors", "model-2.safetensors"]] * len(FRAMEWORKS)
