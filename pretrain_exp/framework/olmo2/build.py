"""The model of a worker: ai2-olmo's OLMo, in DDP or FSDP as its configuration says, and its optimizer.

    TrainConfig --> OLMo (no weights yet) --compile, checkpointing--> DDP | FSDP --> optimizer

It composes what upstream's training script does, for any device; weights come from checkpoint.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from olmo.config import TrainConfig
from olmo.model import OLMo
from olmo.optim import Optimizer, build_optimizer
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp import ShardingStrategy
from torch.nn.parallel import DistributedDataParallel as DDP

from pretrain_exp.errors import UserError
from pretrain_exp.framework.worker.ranks import Ranks

HYBRID = (ShardingStrategy.HYBRID_SHARD, ShardingStrategy._HYBRID_SHARD_ZERO2)


def build_model(config: TrainConfig, ranks: Ranks, nodes: int) -> tuple[OLMo, nn.Module]:
    """The model and its wrapping, with memory for its weights and nothing in it."""
    model = OLMo(config.model, init_params=False)
    for block in model.transformer.blocks if config.compile is not None else ():
        block.compile(**config.compile.asdict())
    model.set_activation_checkpointing(config.activation_checkpointing)
    if config.distributed_strategy == "ddp":
        return model, DDP(model.to(ranks.device), find_unused_parameters=config.ddp.find_unused_params)
    return model, FSDP(
        model,
        sharding_strategy=config.fsdp.sharding_strategy,
        mixed_precision=config.fsdp_precision,
        auto_wrap_policy=model.get_fsdp_wrap_policy(config.fsdp.wrapping_strategy),
        use_orig_params=config.fsdp.use_orig_params,
        limit_all_gathers=True,
        device_id=ranks.device,
        param_init_fn=_materialise(ranks.device),
        **_replicas(config, ranks, nodes),
    )


def build_optimizer_of(config: TrainConfig, model: OLMo, dist_model: nn.Module) -> Optimizer:
    """Its parameters bear their names in the model, whatever it is wrapped in: so a checkpoint fits both wrappings."""
    return build_optimizer(config, model if isinstance(dist_model, DDP) else dist_model)


def fill(dist_model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Puts whole weights, which every rank holds, into the wrapped model. UserError where they do not fit it."""
    try:
        if isinstance(dist_model, DDP):
            dist_model.module.load_state_dict(weights)
        else:
            with FSDP.state_dict_type(dist_model, torch.distributed.fsdp.StateDictType.FULL_STATE_DICT):
                dist_model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"the checkpoint does not fit the model: {error}", key="model.checkpoint") from None


def _materialise(device: torch.device) -> Callable[[nn.Module], None]:
    """Memory for the parameters of a module on meta."""

    def give(module: nn.Module) -> None:
        module.to_empty(device=device, recurse=False)

    return give


def _replicas(config: TrainConfig, ranks: Ranks, nodes: int) -> dict[str, Any]:
    """Which ranks hold a whole model together, where several models are kept alike (HSDP): one a node by itself."""
    if config.fsdp.sharding_strategy not in HYBRID:
        return {}
    copies = config.fsdp.hybrid_sharding_num_model_replicas or nodes
    return {"device_mesh": init_device_mesh(ranks.device.type, (copies, ranks.world // copies))}
