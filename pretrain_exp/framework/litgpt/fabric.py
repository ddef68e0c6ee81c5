"""Lightning's Fabric over the ranks of a job, and what litgpt's loop tells it on the way.

    litgpt.pretrain.fit --backward(loss)--> --clip_gradients--> norm --optimizer--> --log_dict-->      (public methods)
                             |                   |                                       |
                             v                   v                                       v
                        Observed.loss       Observed.norm                        Observed.on_log()

The ranks exist already (ranks.py), so Fabric starts no process and makes no process group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.fabric.strategies import DDPStrategy, FSDPStrategy, Strategy
from litgpt.model import Block
from torch.distributed.fsdp import FullyShardedDataParallel

from pretrain_exp.errors import UserError
from pretrain_exp.framework.worker.main import Attempt
from pretrain_exp.framework.worker.ranks import Ranks

PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}


class RanksEnvironment(ClusterEnvironment):
    """Tells Fabric who this process is."""

    main_address, main_port = "", 0  # of a process group that exists
    creates_processes_externally = True

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.attempt.world

    def set_world_size(self, size: int) -> None:
        assert size == self.attempt.world

    def global_rank(self) -> int:
        return self.attempt.rank

    def set_global_rank(self, rank: int) -> None:
        assert rank == self.attempt.rank

    def local_rank(self) -> int:
        return self.attempt.local_rank

    def node_rank(self) -> int:
        return self.attempt.rank // self.attempt.local_world


class Sharded(FSDPStrategy):
    """FSDP on a CPU too, for tests; Fabric keeps its own class for GPUs."""

    def setup_module(self, module: torch.nn.Module) -> torch.nn.Module:
        if self.root_device.type == "cpu":  # Fabric names a device by its index, which a CPU has not
            kwargs = {**self._fsdp_kwargs, "mixed_precision": self.mixed_precision_config}
            module = FullyShardedDataParallel(
                module, sharding_strategy=self.sharding_strategy, device_id=self.root_device, **kwargs
            )
            del self._fsdp_kwargs["auto_wrap_policy"]
        return super().setup_module(module)


class Observed(L.Fabric):
    """Fabric that keeps what the loop hands it: the mean loss and the gradient norm of the update at hand."""

    loss: torch.Tensor | None = None  # of this rank, summed over its micro-batches so far, each a share of the mean
    norm: torch.Tensor | None = None  # of the whole gradient, before clipping
    on_log: Callable[[], None] = staticmethod(lambda: None)

    def backward(self, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        self.loss = tensor.detach() if self.loss is None else self.loss + tensor.detach()
        super().backward(tensor, *args, **kwargs)

    def clip_gradients(self, *args: Any, **kwargs: Any) -> torch.Tensor | None:
        """A norm that is not finite is no error here: it is logged, and ends the job there with what it was."""
        self.norm = super().clip_gradients(*args, **{**kwargs, "error_if_nonfinite": False})
        return self.norm

    def log_dict(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.on_log()

    @property
    def sharded(self) -> bool:
        return isinstance(self.strategy, FSDPStrategy)


def fabric_precision(training: dict[str, Any]) -> str:
    return (training.get("args") or {}).get("precision", PRECISION[training["precision"]])


def make_fabric(training: dict[str, Any], ranks: Ranks, attempt: Attempt) -> Observed:
    """Fabric on this rank's device, launched."""
    local_world, alone = attempt.local_world, ranks.world == 1
    fabric = Observed(
        accelerator=ranks.device.type,
        devices=[attempt.local_rank] if alone and ranks.device.type == "cuda" else local_world,
        num_nodes=attempt.nodes,
        strategy=_strategy(training, ranks, local_world),
        precision=fabric_precision(training),
        plugins=[RanksEnvironment(attempt)],  # or Fabric would look for Slurm's by itself
    )
    fabric.launch()
    return fabric


def _strategy(training: dict[str, Any], ranks: Ranks, local_world: int) -> Strategy | str:
    """auto: litgpt's own choice for several GPUs, FSDP in its hybrid form; DDP on CPUs.

    UserError for the hybrid form with one GPU a node: torch then takes each node for a world of its own.
    """
    args = training.get("args") or {}
    name = args.get("strategy", "auto")
    if name == "auto" and ranks.world == 1:
        return "auto"
    if name == "ddp" or (name == "auto" and ranks.device.type == "cpu"):
        return DDPStrategy()
    sharding = args.get("sharding_strategy") or ("HYBRID_SHARD" if local_world > 1 else "FULL_SHARD")
    if sharding == "HYBRID_SHARD" and local_world == 1 < ranks.world:
        fix = "FULL_SHARD, or more GPUs a node"
        raise UserError(
            "shards within a node of one GPU", key="training.args.sharding_strategy", value=sharding, fix=fix
        )
    return Sharded(
        auto_wrap_policy={Block},
        activation_checkpointing_policy={Block} if training["activation_checkpointing"] else None,
        state_dict_type="full",
        sharding_strategy=sharding,
    )
