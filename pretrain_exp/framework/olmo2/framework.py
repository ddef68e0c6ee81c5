"""Framework `olmo2`: OLMo-2 in its authors' own code, the released package ai2-olmo, neither forked nor patched.

This module is the orchestrator's side and imports neither torch nor olmo; worker.py is the other side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pretrain_exp.data.olmo_order import OlmoOrder
from pretrain_exp.data.order import DataOrder
from pretrain_exp.data.token_files import TokenFiles
from pretrain_exp.errors import UserError
from pretrain_exp.framework.identity import Content, published
from pretrain_exp.framework.memory import ADAMW_BYTES
from pretrain_exp.framework.olmo2 import fields, official
from pretrain_exp.framework.olmo2.checks import check_args, check_checkpoint, check_data, check_model, check_training
from pretrain_exp.framework.olmo2.config import strategy_of
from pretrain_exp.framework.olmo2.formats import detect, format_of
from pretrain_exp.framework.olmo2.recipe import ARCHITECTURE
from pretrain_exp.framework.ranked import RankedFramework

TESTED = "0.6.0"
ROUND = 128  # rows of an embedding come in multiples of this
END = 1 << 20  # bytes of each file's end that enter a checkpoint's identity: there torch keeps checksums of all


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
    package: ClassVar[str] = "ai2-olmo"
    files: ClassVar[str] = "config.yaml, model.pt, optim.pt and train.pt"
    families: ClassVar[tuple[str, ...]] = ("olmo2",)

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

    def identity(self, folder: Path, model: dict[str, Any]) -> Content | str:
        if format_of(folder) is None:
            return super().identity(folder, model)
        detect(folder, self.world, fsdp=True)
        return published(model) or Content((folder / "config.yaml", *sorted(folder.glob("*.pt"))), (0, END))

    def check(self, model: dict[str, Any], training: dict[str, Any]) -> list[UserError]:
        args, known = training.get("args") or {}, fields.installed(self.interpreter)
        strategy = strategy_of(args, self.device_type)
        found = check_training(training, self.world, self.device_type) + self.check_machine()
        lion = (args.get("optimizer") or {}).get("name") == "lionw"  # one moment, not two
        bytes_each = ADAMW_BYTES - 4 * lion
        found += self.check_gpu_memory(model.get("parameters"), bytes_each, shared=strategy == "fsdp")
        if known is not None:
            found += check_args(args, known, self.device_type, self.world)
        if wrong := self.check_start(model) + check_checkpoint(model, self.world, strategy):
            return found + wrong[:1]
        return found + (check_model(model, known) if known is not None else [])

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
