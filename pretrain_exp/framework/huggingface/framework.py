"""Framework `huggingface`: any causal language model of transformers from the hub, a folder or a config.

This module is the orchestrator's side and imports neither torch nor transformers; worker.py is the other side.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pretrain_exp.errors import UserError
from pretrain_exp.framework.huggingface.checks import check_data, check_model, check_order, check_training, config_of
from pretrain_exp.framework.memory import hf_parameters
from pretrain_exp.framework.ranked import RankedFramework
from pretrain_exp.store.hub import resolve_revision
from pretrain_exp.store.keys import digest

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True, kw_only=True)
class HuggingFace(RankedFramework):
    """With several ranks, on a GPU or in bf16, parameters, gradients and moments are sharded over the ranks by FSDP2.

    The result is that of one rank, up to rounding, so there is nothing else to choose.
    """

    name: ClassVar[str] = "huggingface"
    semantics: ClassVar[int] = 1
    hooks: ClassVar[tuple[str, ...]] = ("gradient_noise",)
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    def initial(self, model: dict[str, Any]) -> dict[str, Any]:
        if model.get("config"):
            return {"kind": "scratch", "config": model["config"], "identity": digest(model["config"], 32)}
        name, revision = model.get("checkpoint"), model.get("revision")
        if not name:
            raise UserError(
                "neither a checkpoint to start from nor a config to start from scratch",
                key="model.checkpoint",
                value=name,
                fix="give a folder, a hub name, or model.config with a model_type",
            )
        if Path(name).is_dir():
            folder = Path(name).resolve()
            return {"kind": "hf", "checkpoint": str(folder), "revision": None, "identity": _digest_folder(folder)}
        try:
            commit = resolve_revision(name, revision)
        except UserError as error:
            raise error.under("model.checkpoint") from None
        return {"kind": "hf", "checkpoint": name, "revision": commit, "identity": f"{name}@{commit}"}

    def check(self, model: dict[str, Any], training: dict[str, Any]) -> list[UserError]:
        found = check_training(training, self.world) + check_order(model)
        found += check_model(model, training["sequence_length"])
        if not found:
            name = model.get("checkpoint")
            folder = Path(name) if name and Path(name).is_dir() else None
            found += self.check_gpu_memory(model.get("parameters") or hf_parameters(config_of(model), folder))
        return found + self.check_machine()

    def check_data(self, model: dict[str, Any], tokenizer_vocab_size: int, sequence_length: int) -> list[UserError]:
        return check_data(model, tokenizer_vocab_size, sequence_length)

    def warnings(self, model: dict[str, Any], training: dict[str, Any]) -> list[str]:
        if training["precision"] == "bf16" and self.device_type == "cpu":
            return ["training.precision=bf16 on a CPU is slower than fp32; it is meant for tests"]
        return []

    def to_hf(self, state: Path, out: Path) -> Path:
        if not self.is_this_python:
            return super().to_hf(state, out)
        from pretrain_exp.framework.huggingface.convert import convert

        return convert(state, out)


def _digest_folder(folder: Path) -> str:
    """SHA-256 over config and weight files, names and contents. UserError where there are none."""
    files = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
    config = folder / "config.json"
    if not files or not config.is_file():
        raise UserError(
            "the folder is no Hugging Face checkpoint",
            key="model.checkpoint",
            value=str(folder),
            fix="it must hold config.json and *.safetensors",
        )
    total = hashlib.sha256()
    for path in (config, *files):
        with open(path, "rb") as file:
            total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
