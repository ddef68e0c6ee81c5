"""Framework `olmo2`: OLMo-2 in its authors' own code, the released package ai2-olmo, neither forked nor patched.

This module is the orchestrator's side and imports neither torch nor olmo; worker.py is the other side.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pretrain_exp.data.olmo_order import OlmoOrder
from pretrain_exp.data.order import DataOrder
from pretrain_exp.data.token_files import TokenFiles
from pretrain_exp.errors import UserError
from pretrain_exp.framework.huggingface.framework import HuggingFace
from pretrain_exp.framework.olmo2 import fields, official
from pretrain_exp.framework.olmo2.checks import check_args, check_data, check_model, check_training
from pretrain_exp.framework.olmo2.formats import detect, format_of
from pretrain_exp.framework.olmo2.recipe import ARCHITECTURE
from pretrain_exp.framework.ranked import RankedFramework
from pretrain_exp.store.keys import digest

TESTED = "0.6.0"
ROUND = 128  # rows of an embedding come in multiples of this
END = 1 << 20  # bytes of each file of a checkpoint that enter its identity


@dataclass(frozen=True, kw_only=True)
class Olmo2(RankedFramework):
    """On a GPU the model is sharded by FSDP, on the CPU it is kept whole by DDP; training.args chooses otherwise.

    training.args holds fields of ai2-olmo's TrainConfig: fsdp.sharding_strategy, model.flash_attention, fused_loss, ...
    What all OLMo-2 runs share (recipe.py) holds where nothing else is said: decay of norms and not of embeddings, and
    the filter that takes sequences of repetitions out of the loss.
    """

    name: ClassVar[str] = "olmo2"
    semantics: ClassVar[int] = 1
    hooks: ClassVar[tuple[str, ...]] = ("gradient_noise",)
    packages: ClassVar[tuple[str, ...]] = ("torch", "ai2-olmo")
    environment_folder: ClassVar[str | None] = ".venv-olmo2"

    def official(self, path: Path) -> dict[str, Any]:
        return official.read_official(path)

    def complete_config(
        self, config: dict[str, Any], vocab_size: int, eos_token_id: int, sequence_length: int
    ) -> dict[str, Any]:
        """OLMo-2's architecture in the sizes of `config`; the embedding has rows for the tokenizer's ids."""
        vocab = config.get("vocab_size", vocab_size)
        given = {
            "vocab_size": vocab,
            "embedding_size": -(-vocab // ROUND) * ROUND,
            "eos_token_id": eos_token_id,
            "pad_token_id": eos_token_id,
            "max_sequence_length": sequence_length,
        }
        return {**ARCHITECTURE, **given, **config}

    def order(
        self, files: TokenFiles, model: dict[str, Any], training: dict[str, Any], seed: int, cache: Path
    ) -> DataOrder:
        """ai2-olmo's, by `model.data_seed` where that is given."""
        data_seed = seed if model.get("data_seed") is None else model["data_seed"]
        return OlmoOrder(files, training["sequence_length"], training["batch_size"], data_seed, cache)

    def initial(self, model: dict[str, Any]) -> dict[str, Any]:
        if model.get("config"):
            return {"kind": "scratch", "config": model["config"], "identity": digest(model["config"], 32)}
        if not model.get("checkpoint"):
            fix = "give a step<N>-unsharded folder, an Olmo2 folder or hub name, or model.config"
            problem = "neither a checkpoint to start from nor a config to start from scratch"
            raise UserError(problem, key="model.checkpoint", value=None, fix=fix)
        folder = Path(model["checkpoint"])
        if format_of(folder) is None:
            return HuggingFace().initial(model)
        detect(folder, self.world, fsdp=True)
        url = model.get("checkpoint_url")
        known = f"{url}@{model['checkpoint_step']}" if url else _digest_folder(folder)
        return {"kind": "hf", "checkpoint": str(folder.resolve()), "revision": None, "identity": known}

    def check(self, model: dict[str, Any], training: dict[str, Any]) -> list[UserError]:
        found = check_training(training, self.world, self.device_type) + self.check_machine()
        found += self.check_gpu_memory(model.get("parameters"))
        known = fields.installed(self.interpreter)
        if known is not None:
            found += check_args(training.get("args") or {}, known, self.device_type, self.world) + check_model(
                model, known
            )
        return found

    def check_data(self, model: dict[str, Any], tokenizer_vocab_size: int, sequence_length: int) -> list[UserError]:
        return check_data(model, tokenizer_vocab_size)

    def warnings(self, model: dict[str, Any], training: dict[str, Any]) -> list[str]:
        version = self.versions.get("ai2-olmo", TESTED)
        found = [] if version == TESTED else [f"framework olmo2 is tested with ai2-olmo {TESTED}, here is {version}"]
        if model.get("official"):
            left = official.left_out(Path(model["official"]))
            found += [f"of {model['official']} this is not taken: {text}" for text in left]
        return found

    def to_hf(self, state: Path, out: Path) -> Path:
        from pretrain_exp.framework.olmo2.convert import convert

        return convert(state, out)


def _digest_folder(folder: Path) -> str:
    """SHA-256 over names, sizes and ends of a native checkpoint's files; in the end torch keeps checksums of all."""
    total = hashlib.sha256()
    for path in (folder / "config.yaml", *sorted(folder.glob("*.pt"))):
        size = path.stat().st_size
        total.update(f"{path.name}:{size}:".encode())
        with open(path, "rb") as file:
            file.seek(max(0, size - END))
            total.update(file.read(END))
    return total.hexdigest()
