"""AdamW (Loshchilov & Hutter 2019) with its state in the open: a checkpoint holds every tensor by its parameter's name.

Matrices decay; vectors (norms, biases) do not. Betas, eps, decay and learning rate are the job's, never a checkpoint's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def build_optimizer(model: nn.Module, settings: dict[str, Any]) -> torch.optim.AdamW:
    """The optimizer of the trained parameters, with zero moments in place from the start.

    Filled now and not at the first step, so that saving before the first step saves what a run would start with.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings["weight_decay"]},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings["lr"],
        betas=tuple(settings["betas"]),
        eps=settings["eps"],
        fused=True,
    )
    for parameter in trained:
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, dict[str, torch.Tensor]]:
    """The live state tensors of every trained parameter, by its name."""
    return {
        name: {moment: optimizer.state[parameter][moment] for moment in MOMENTS}
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
