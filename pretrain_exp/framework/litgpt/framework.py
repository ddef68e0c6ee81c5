"""Framework `litgpt`: Lightning's litgpt 0.5 in an environment of its own, by its public functions.

This module is the orchestrator's side and imports no litgpt (source.py reads its config.py); worker.py is the other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from pretrain_exp.errors import UserError
from pretrain_exp.framework.litgpt import checks
from pretrain_exp.framework.litgpt.architecture import is_known
from pretrain_exp.framework.litgpt.official import model_fields
from pretrain_exp.framework.litgpt.source import config_module
from pretrain_exp.framework.ranked import RankedFramework
from pretrain_exp.store.hub import resolve_revision
from pretrain_exp.store.keys import digest

FOLDERS = (("model_config.yaml", ("lit_model.pth",)), ("config.json", ("*.safetensors", "pytorch_model*.bin")))


@dataclass(frozen=True, kw_only=True)
class LitGPT(RankedFramework):
    """One process a rank; gradients are averaged (ddp, gloo on a CPU) or everything is sharded (fsdp, on GPUs)."""

    name: ClassVar[str] = "litgpt"
    semantics: ClassVar[int] = 1
    packages: ClassVar[tuple[str, ...]] = ("torch", "lightning", "litgpt")
    environment_folder: ClassVar[str | None] = ".venv-litgpt"
    hooks: ClassVar[tuple[str, ...]] = ("gradient_noise",)

    def numerics(self, training: dict[str, Any]) -> dict[str, Any]:
        return {**super().numerics(training), "strategy": (training.get("args") or {}).get("strategy", "auto")}

    def official(self, path: Path) -> dict[str, Any]:
        return model_fields(path, self._module_of_litgpt())

    def complete_config(
        self, config: dict[str, Any], vocab_size: int, eos_token_id: int, sequence_length: int
    ) -> dict[str, Any]:
        """A model that litgpt knows by name has its own vocabulary and length."""
        if is_known(self._module_of_litgpt(), config.get("name", "")):
            return dict(config)
        return {"vocab_size": vocab_size, "block_size": sequence_length, **config}

    def initial(self, model: dict[str, Any]) -> dict[str, Any]:
        if model.get("config"):
            return {"kind": "scratch", "config": model["config"], "identity": digest(model["config"], 32)}
        name, revision = model.get("checkpoint"), model.get("revision")
        if not name:
            raise UserError(
                "neither a checkpoint to start from nor a config to start from scratch",
                key="model.checkpoint",
                value=name,
                fix="give a folder of litgpt or Hugging Face, a hub name, or model.config with a name of litgpt",
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
        found = checks.check_training(training, self.world, self.device_type) + self.check_machine()
        found += self.check_gpu_memory(model.get("parameters"))
        module = config_module(self.interpreter)
        if module is not None:
            found += checks.check_model(module, model, training["sequence_length"])
            found += checks.check_folder(module, model)
        return found

    def check_data(self, model: dict[str, Any], tokenizer_vocab_size: int, sequence_length: int) -> list[UserError]:
        return checks.check_data(self._module_of_litgpt(), model, tokenizer_vocab_size, sequence_length)

    def warnings(self, model: dict[str, Any], training: dict[str, Any]) -> list[str]:
        found = []
        if training["precision"] == "bf16" and self.device_type == "cpu":
            found.append("training.precision=bf16 on a CPU is slower than fp32; it is meant for tests")
        if training["schedule"].get("warmup_steps"):
            found.append("litgpt's warm-up begins at a learning rate of 0: the first update of the run learns nothing")
        if training["optimizer"]["weight_decay"]:
            found.append("litgpt decays every weight, norms, biases and embeddings too")
        return found

    def _module_of_litgpt(self) -> ModuleType:
        module = config_module(self.interpreter)
        if module is None:
            fix = "`make env-litgpt` builds an environment with it"
            raise UserError("has no litgpt", key="framework.python", value=self.interpreter, fix=fix)
        return module


def _digest_folder(folder: Path) -> str:
    """SHA-256 over config and weights, names and contents. UserError where the folder is neither format."""
    for config, patterns in FOLDERS:
        files = sorted(path for pattern in patterns for path in folder.glob(pattern))
        if not files or not (folder / config).is_file():
            continue
        total = hashlib.sha256()
        for path in (folder / config, *files):
            with open(path, "rb") as file:
                total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()
    raise UserError(
        "the folder is neither a checkpoint of litgpt nor one of Hugging Face",
        key="model.checkpoint",
        value=str(folder),
        fix="it must hold model_config.yaml and lit_model.pth, or config.json and *.safetensors",
    )
