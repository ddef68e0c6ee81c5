"""What a checkpoint of this framework holds, in the formats that ai2-olmo 0.6.0 writes and reads on this torch.

    unsharded      config.yaml  model.pt  optim.pt  train.pt     as allenai publishes them; any ranks, DDP or FSDP
    torch_legacy   config.yaml  rank0.pt ... rankN.pt            FSDP on as many ranks; model.pt beside it, to convert

<state>/checkpoint/ is one of them, with the tokenizer's files in hf/. Others are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import torch
from olmo.checkpoint import Checkpointer, FullCheckpointer, TorchLegacyShardedCheckpointer
from olmo.config import TrainConfig
from olmo.model import OLMo
from olmo.torch_util import seed_all
from torch.distributed._shard.metadata import ShardMetadata
from torch.distributed._shard.sharded_tensor import Shard, ShardedTensor, ShardedTensorMetadata, TensorProperties
from torch.distributed._shard.sharded_tensor.metadata import MEM_FORMAT_ENCODING
from torch.distributed._shard.sharding_spec import ChunkShardingSpec
from torch.distributed.fsdp import FullStateDictConfig, StateDictType
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.remote_device import _remote_device
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils import serialization

from pretrain_exp.data.olmo_order import OlmoOrder
from pretrain_exp.data.order import order_from_json
from pretrain_exp.errors import UserError
from pretrain_exp.framework.olmo2.build import fill
from pretrain_exp.framework.olmo2.config import checkpoint_folder
from pretrain_exp.framework.olmo2.formats import detect
from pretrain_exp.framework.olmo2.trainer import SegmentTrainer
from pretrain_exp.framework.olmo2.weights import from_hf, read_hf
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.probe import Probe, log_probabilities, probe_tokens
from pretrain_exp.framework.worker.ranks import Ranks
from pretrain_exp.framework.worker.tokenizer_files import copy_tokenizer

CHECKPOINTERS: dict[str, type[Checkpointer]] = {
    "unsharded": FullCheckpointer,
    "torch_legacy": TorchLegacyShardedCheckpointer,
}
TRAIN_PT: list[Any] = [PosixPath, np.ndarray, np.dtype, np.zeros(1).__reduce__()[0], type(np.dtype(np.uint32))]
"""What train.pt holds beside numbers and tensors: paths, and the random state of NumPy."""
SHARDS: list[Any] = [
    ShardedTensor, ShardedTensor.ProcessGroupState, ShardedTensorMetadata, Shard, ShardMetadata, TensorProperties,
    MEM_FORMAT_ENCODING, ChunkShardingSpec, _remote_device, getattr,
]  # fmt: skip
"""What a shard's file is made of; its enumeration is named by getattr."""


@dataclass
class TrainedModel:
    """A trainer's model and optimizer, as `Checkpoints` writes and reads them."""

    job: Job
    ranks: Ranks
    trainer: SegmentTrainer

    @property
    def config(self) -> TrainConfig:
        return self.trainer.cfg

    def load(self, folder: Path | None) -> None:
        """Fills weights and optimizer, in place."""
        if folder is not None:
            self._restore(folder / "checkpoint")
        elif self.job.model.get("config"):
            fill(self.trainer.dist_model, self._scratch())
        elif ((start := checkpoint_folder(self.job.model)) / "config.yaml").is_file():
            self._continue(start)
        else:
            fill(self.trainer.dist_model, from_hf(read_hf(start), self.config.model.asdict()))

    def save(self, folder: Path) -> None:
        self.trainer.optim.zero_grad(set_to_none=True)
        kind = (self.job.training.get("args") or {}).get("sharded_checkpointer") or "unsharded"
        target, model = folder / "checkpoint", self.trainer.dist_model
        CHECKPOINTERS[kind](self.config).save_checkpoint(
            target, model, self.trainer.optim, self.trainer.trainer_state_dict()
        )
        whole = {} if kind == "unsharded" else _whole(model)
        if self.ranks.first:
            if whole:
                torch.save(whole, target / "model.pt")
            copy_tokenizer(self.job.tokenizer, target / "hf")

    def probe(self) -> Probe:
        model, config = self.trainer.dist_model, self.config
        vocab_size = config.model.embedding_size or config.model.vocab_size
        tokens = probe_tokens(vocab_size, config.model.max_sequence_length).to(self.ranks.device)
        model.eval()
        with torch.no_grad(), torch.autocast("cuda", config.autocast_precision, self.ranks.device.type == "cuda"):
            values = log_probabilities(model(input_ids=tokens).logits, tokens)
        model.train()
        return Probe(vocab_size, config.model.max_sequence_length, self.job.training["precision"], values)

    def _scratch(self) -> dict[str, torch.Tensor]:
        """Initial weights, drawn whole by every rank: the same for any strategy and number of ranks."""
        seed_all(self.config.seed)
        config = self.config.model.update_with(init_device="cpu")
        return OLMo(config).state_dict()

    def _restore(self, folder: Path) -> None:
        """Fills from a native checkpoint. Settings of the optimizer stay the job's."""
        kind = detect(folder, self.ranks.world, isinstance(self.trainer.dist_model, FSDP))
        optimizer = self.trainer.optim
        settings = [{name: value for name, value in g.items() if name != "params"} for g in optimizer.param_groups]
        optimizer.zero_grad(set_to_none=True)
        with _trusted(TRAIN_PT + (SHARDS if kind == "torch_legacy" else [])):
            CHECKPOINTERS[kind](self.config).restore_checkpoint(folder, self.trainer.dist_model, optimizer)
        for group, values in zip(optimizer.param_groups, settings, strict=True):
            group.update(values)

    def _continue(self, folder: Path) -> None:
        """From a checkpoint of upstream's: UserError, and no weight is read, where it stands elsewhere than the run."""
        if self.config.restore_dataloader:
            self._demand_place(folder)
        self._restore(folder)

    def _demand_place(self, folder: Path) -> None:
        """UserError where a checkpoint is of another step than the run begins at, or has read other data."""
        kind = detect(folder, self.ranks.world, isinstance(self.trainer.dist_model, FSDP))
        name = "train.pt" if kind == "unsharded" else f"rank{self.ranks.rank}.pt"
        with _trusted(TRAIN_PT + SHARDS):
            found = torch.load(folder / name, map_location="cpu", weights_only=True)
        if found["global_step"] != self.job.start_step:
            raise UserError(
                f"the checkpoint is of step {found['global_step']}",
                key="model.checkpoint_step",
                value=self.job.start_step,
                fix=f"model.checkpoint_step={found['global_step']}; or, for a new run from its weights and optimizer, "
                "+training.args.restore_dataloader=false",
            )
        order = order_from_json(self.job.order)
        if isinstance(order, OlmoOrder) and self.job.model.get("data_seed") is not None:
            here = divmod(self.job.phases.first_slot(self.job.start_step), order.num_sequences)
            there = found.get("epoch") or 0, found["global_train_examples_seen_this_epoch"]
            if here != there:
                raise UserError(
                    f"the checkpoint has read {there[1]:,} sequences of epoch {there[0]}; over these files step "
                    f"{self.job.start_step} begins after {here[1]:,} of epoch {here[0]}: they are not its data",
                    key="data",
                    fix="give the files of its run, in its order; or model.data_seed=null for data of your own",
                )


def _whole(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All weights, on the first rank at least."""
    if isinstance(model, DDP):
        return model.module.state_dict()
    on_gpu = next(model.parameters()).is_cuda  # on the CPU, to free what other ranks gathered crashes torch
    gathering = FullStateDictConfig(rank0_only=on_gpu, offload_to_cpu=on_gpu)
    with FSDP.state_dict_type(model, StateDictType.FULL_STATE_DICT, gathering):
        return model.state_dict()


@contextmanager
def _trusted(beside: list[Any]) -> Iterator[None]:
    """Nothing but weights is unpickled, and what upstream's files hold beside; they are mapped, so ranks share them."""
    mapped = serialization.config.patch({"load.mmap": True})  # type: ignore[attr-defined]
    with torch.serialization.safe_globals(beside), mapped:
        yield
