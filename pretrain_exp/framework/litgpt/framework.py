"""Framework `litgpt`: Lightning's litgpt 0.5 in an environment of its own, by its public functions.

This module is the orchestrator's side and imports no litgpt (source.py reads its config.py); worker.py is the other.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from pretrain_exp.errors import UserError
from pretrain_exp.framework.identity import Content
from pretrain_exp.framework.litgpt import checks
from pretrain_exp.framework.litgpt.architecture import is_known
from pretrain_exp.framework.litgpt.families import FAMILIES
from pretrain_exp.framework.litgpt.official import model_fields
from pretrain_exp.framework.litgpt.source import config_module
from pretrain_exp.framework.ranked import RankedFramework


@dataclass(frozen=True, kw_only=True)
class LitGPT(RankedFramework):
    """One process a rank; gradients are averaged (ddp, gloo on a CPU) or everything is sharded (fsdp, on GPUs)."""

    name: ClassVar[str] = "litgpt"
    semantics: ClassVar[int] = 1
    packages: ClassVar[tuple[str, ...]] = ("torch", "lightning", "litgpt")
    environment_folder: ClassVar[str | None] = ".venv-litgpt"
    hooks: ClassVar[tuple[str, ...]] = ("gradient_noise",)
    package: ClassVar[str] = "litgpt"
    files: ClassVar[str] = "model_config.yaml and lit_model.pth"
    families: ClassVar[tuple[str, ...]] = tuple(FAMILIES)

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

    def identity(self, folder: Path, model: dict[str, Any]) -> Content | str:
        if (folder / "model_config.yaml").is_file() and (folder / "lit_model.pth").is_file():
            return Content((folder / "model_config.yaml", folder / "lit_model.pth"))
        return super().identity(folder, model)

    def check(self, model: dict[str, Any], training: dict[str, Any]) -> list[UserError]:
        found = checks.check_training(training, self.world, self.device_type) + self.check_machine()
        sharded = checks.is_sharded(training, self.world, self.device_type)
        bytes_each = checks.bytes_per_parameter(training.get("args") or {})
        found += self.check_gpu_memory(model.get("parameters"), bytes_each, shared=sharded)
        module, wrong = config_module(self.interpreter), self.check_start(model)
        if wrong or module is None:
            found += wrong
        else:
            found += checks.check_model(module, model, training["sequence_length"])
            found += checks.check_folder(module, model)
            found += checks.check_optimizer(self.interpreter, training.get("args") or {})
        return found

    def check_data(self, model: dict[str, Any], tokenizer_vocab_size: int, sequence_length: int) -> list[UserError]:
        return checks.check_data(self._module_of_litgpt(), model, tokenizer_vocab_size, sequence_length)

    def check_hooks(self, kinds: Collection[str], training: dict[str, Any]) -> list[UserError]:
        if not kinds or not checks.is_sharded(training, self.world, self.device_type):
            return super().check_hooks(kinds, training)
        problem, fix = "gradient noise needs whole gradients, which FSDP cuts up", "training.args.strategy=ddp"
        strategy = (training.get("args") or {}).get("strategy", "auto")
        return [UserError(problem, key="training.args.strategy", value=strategy, fix=fix)]

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
