"""Weights between litgpt's names and transformers', by litgpt's own functions; whole models in memory, on the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from litgpt import Config
from litgpt.scripts import convert_hf_checkpoint, convert_lit_checkpoint
from safetensors.torch import load_file

from pretrain_exp.errors import UserError
from pretrain_exp.framework.litgpt.families import Family

SAFETENSORS, PICKLED = "*.safetensors", "pytorch_model*.bin"  # weights of transformers


def from_hf_folder(family: Family, config: Config, folder: Path) -> dict[str, torch.Tensor]:
    """litgpt's weights of a Hugging Face folder. UserError where it has none, or others than the architecture."""
    read = getattr(convert_hf_checkpoint, family.reader)
    split: dict[Any, Any] = {}  # query, key and value of layers that lie in several files
    before = (config,) if family.model_type == "gpt_neox" else (config, split)
    found: dict[str, torch.Tensor] = {}
    for path in _files(folder):
        loaded = load_file(path) if path.suffix == ".safetensors" else torch.load(path, mmap=True, weights_only=True)
        try:
            read(*before, found, loaded)
        except KeyError as error:
            raise UserError(
                f"litgpt has no place for the weight {error} of {family.model_type}",
                key="model.checkpoint",
                value=str(path),
            ) from None
    return found


def to_hf(family: Family, config: Config, weights: dict[str, torch.Tensor], tied: bool) -> dict[str, torch.Tensor]:
    """transformers' weights, float32, each with memory of its own."""
    found: dict[str, torch.Tensor] = {}
    if family.writer_calls is not None:
        weights = {name.replace(*family.writer_calls): tensor for name, tensor in weights.items()}
    getattr(convert_lit_checkpoint, family.writer)(config, found, dict(weights))
    head = "embed_out.weight" if family.model_type == "gpt_neox" else "lm_head.weight"
    if tied:
        found.pop(head)
    return {name: tensor.float().contiguous().clone() for name, tensor in found.items()}


def _files(folder: Path) -> list[Path]:
    """Where the weights lie, as safetensors where they are that too."""
    for index, pattern in (("model.safetensors.index.json", SAFETENSORS), ("pytorch_model.bin.index.json", PICKLED)):
        if (folder / index).is_file() and any(folder.glob(pattern)):
            names = json.loads((folder / index).read_text())["weight_map"].values()
            return sorted(folder / name for name in set(names))
        if found := sorted(folder.glob(pattern)):
            return found
    raise UserError("no weights in the folder", key="model.checkpoint", value=str(folder))
