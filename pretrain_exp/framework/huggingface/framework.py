"""Framework `huggingface`: any causal language model of transformers from the hub, a folder or a config.

This module is the orchestrator's side and imports neither torch nor transformers; worker.py is the other side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pretrain_exp.errors import UserError
from pretrain_exp.framework.huggingface.checks import check_data, check_model, check_order, check_training, config_of
from pretrain_exp.framework.memory import ADAMW_BYTES, hf_parameters
from pretrain_exp.framework.ranked import RankedFramework


@dataclass(frozen=True, kw_only=True)
class HuggingFace(RankedFramework):
    """With several ranks, on a GPU or in bf16, parameters, gradients and moments are sharded over the ranks by FSDP2.

    The result is that of one rank, up to rounding, so there is nothing else to choose.
    """

    name: ClassVar[str] = "huggingface"
    semantics: ClassVar[int] = 1
    hooks: ClassVar[tuple[str, ...]] = ("gradient_noise",)
    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    def check(self, model: dict[str, Any], training: dict[str, Any]) -> list[UserError]:
        found = check_training(training, self.world) + check_order(model)
        found += self.check_start(model) or check_model(model, training["sequence_length"])
        if not found:
            name = model.get("checkpoint")
            folder = Path(name) if name and Path(name).is_dir() else None
            parameters = model.get("parameters") or hf_parameters(config_of(model), folder)
            found += self.check_gpu_memory(parameters, ADAMW_BYTES)
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
