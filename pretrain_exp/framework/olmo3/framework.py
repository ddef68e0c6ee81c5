"""Framework `olmo3`: OLMo-core's own trainer, model and data loaders, from the released package ai2-olmo-core.

This module is the orchestrator's side and imports neither torch nor olmo_core; worker.py is the other side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pretrain_exp.data.olmo_order import OlmoCoreOrder
from pretrain_exp.data.order import DataOrder
from pretrain_exp.data.token_files import TokenFiles
from pretrain_exp.errors import UserError
from pretrain_exp.framework.identity import Content, published
from pretrain_exp.framework.installed import location
from pretrain_exp.framework.olmo3.checks import (
    check_arguments,
    check_attention,
    check_model,
    check_training,
    check_vocabulary,
    is_ddp,
    max_target_sequence_length,
    moment_bytes,
)
from pretrain_exp.framework.olmo3.fields import installed
from pretrain_exp.framework.olmo3.official import read_script
from pretrain_exp.framework.olmo3.shards import named_shards
from pretrain_exp.framework.ranked import RankedFramework

PAD = 128  # OLMo-core rounds vocabularies up to a multiple of it
SAMPLE = 1 << 16  # bytes of each end of a shard that enter its identity


@dataclass(frozen=True, kw_only=True)
class Olmo3(RankedFramework):
    """Ranks share a model by FSDP2, or by what else of OLMo-core training.args.train_module.dp_config names."""

    name: ClassVar[str] = "olmo3"
    semantics: ClassVar[int] = 1
    hooks: ClassVar[tuple[str, ...]] = ("gradient_noise",)
    packages: ClassVar[tuple[str, ...]] = ("torch", "ai2-olmo-core")
    environment_folder: ClassVar[str | None] = ".venv-olmo3"
    package: ClassVar[str] = "OLMo-core"
    files: ClassVar[str] = "config.json and model_and_optim/"
    families: ClassVar[tuple[str, ...]] = ("olmo2", "olmo3")

    @property
    def has_flash(self) -> bool:
        """Whether the worker's Python has flash-attn 2."""
        return location(self.interpreter, "flash_attn") is not None

    def official(self, path: Path) -> dict[str, Any]:
        said = read_script(path)
        return {**said.model, "training": said.training}

    def complete_config(
        self, config: dict[str, Any], vocab_size: int, eos_token_id: int, sequence_length: int
    ) -> dict[str, Any]:
        return {"vocab_size": PAD * -(-vocab_size // PAD), **config}

    def order(
        self, files: TokenFiles, model: dict[str, Any], training: dict[str, Any], seed: int, cache: Path
    ) -> DataOrder:
        given = model.get("data_seed")
        return OlmoCoreOrder(
            files,
            training["sequence_length"],
            training["batch_size"],
            seed if given is None else given,
            cache,
            max_target_sequence_length(training),
        )

    def identity(self, folder: Path, model: dict[str, Any]) -> Content | str:
        parts = folder / "model_and_optim"
        if not parts.is_dir():
            return super().identity(folder, model)
        if not (parts / ".metadata").is_file() or not (folder / "config.json").is_file():
            raise UserError(
                "the folder is no whole checkpoint of OLMo-core",
                key="model.checkpoint",
                value=str(folder),
                fix="it must hold config.json and model_and_optim/.metadata beside the shards",
            )
        files = (folder / "config.json", parts / ".metadata", *sorted(parts.glob("*.distcp")))
        return published(model) or Content(files, (SAMPLE, SAMPLE))

    def named_files(self, folder: Path) -> list[str]:
        """Those of its own format by model_and_optim/.metadata."""
        return named_shards(folder) if (folder / "model_and_optim").is_dir() else super().named_files(folder)

    def check(self, model: dict[str, Any], training: dict[str, Any]) -> list[UserError]:
        found = check_training(training, self.world) + self.check_machine()
        bytes_each = 8 + 2 * moment_bytes(training)
        found += self.check_gpu_memory(model.get("parameters"), bytes_each, shared=not is_ddp(training))
        source = installed(self.interpreter)
        if source is None:
            return found
        found += self.check_start(model) or check_model(model, source)
        found += check_arguments(training.get("args") or {}, source)
        return found + check_attention(model, training, self.device_type, self.has_flash, source)

    def check_data(self, model: dict[str, Any], tokenizer_vocab_size: int, sequence_length: int) -> list[UserError]:
        return check_vocabulary(model, tokenizer_vocab_size)

    def warnings(self, model: dict[str, Any], training: dict[str, Any]) -> list[str]:
        found = []
        on_cpu = self.device_type == "cpu"
        if training["precision"] == "bf16" and on_cpu:
            found.append("training.precision=bf16 on a CPU is slower than fp32; it is meant for tests")
        if training["compile"] and on_cpu:
            found.append("OLMo-core compiles nothing on a CPU")
        if not on_cpu and not self.has_flash and model.get("attn_implementation") is None:
            found.append("the worker's environment has no flash-attn: attention is torch's, slower on long sequences")
        if model.get("official"):
            left = read_script(Path(model["official"])).left
            found += [f"of {model['official']} this is not taken: {text}" for text in left]
        return found
