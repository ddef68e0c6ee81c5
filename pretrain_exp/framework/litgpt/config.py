"""From a job to what litgpt's pretraining takes: Config, TrainArgs, the optimizer, the learning rate of every update.

litgpt counts micro-batches ("iterations") and derives its schedule from max_tokens, so max_tokens is always that of the
whole run; a segment ends early by other means (training.py). Its learning rate moves with every micro-batch; here an
update has the one of its first micro-batch, which depends on nothing but the step. With one micro-batch a step that is
litgpt's own, bit for bit.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from litgpt.args import EvalArgs, TrainArgs
from litgpt.pretrain import get_lr
from litgpt.utils import instantiate_torch_optimizer

from pretrain_exp.errors import UserError
from pretrain_exp.framework.litgpt.checks import ADAMW, OPTIMIZER
from pretrain_exp.framework.worker.job import Job

NEVER = 10**12  # steps


def micro_batch_size(job: Job, world: int) -> int:
    """Rows of a rank in one forward pass."""
    return job.training["micro_batch_size"] or job.phases.batch_size(job.start_step) // world


def train_args(job: Job, world: int) -> TrainArgs:
    """litgpt's settings of the whole run. UserError for a run with several phases: litgpt's batch has one size."""
    if len(job.phases.phases) > 1:
        raise UserError("litgpt trains with one batch size and sequence length", key="phases", value=job.phases)
    batch, length = job.phases.batch_size(0), job.phases.sequence_length(0)
    training, schedule = job.training, job.training["schedule"]
    return TrainArgs(
        save_interval=None,
        log_interval=training["log_every"],
        global_batch_size=batch,
        micro_batch_size=micro_batch_size(job, world),
        lr_warmup_steps=schedule.get("warmup_steps") or None,
        max_tokens=schedule["total_steps"] * batch * length,
        max_seq_length=length,
        max_norm=training["max_grad_norm"] or math.inf,
        min_lr=minimum(training),
    )


def eval_args() -> EvalArgs:
    """No validation: a job evaluates states, outside of the loop."""
    return EvalArgs(interval=NEVER, max_iters=1, initial_validation=False, final_validation=False)


def minimum(training: dict[str, Any]) -> float:
    """The learning rate at the end; that of the peak where it is constant after the warm-up."""
    peak, schedule = training["optimizer"]["lr"], training["schedule"]
    return peak if schedule["name"] == "constant" else peak * (schedule.get("min_lr_ratio") or 0.0)


def learning_rate(training: dict[str, Any], step: int) -> float:
    """Of the update that step `step` (0-based) makes."""
    schedule = training["schedule"]
    warmup = min(schedule.get("warmup_steps") or 0, schedule["total_steps"])
    return get_lr(training["optimizer"]["lr"], step, warmup, schedule["total_steps"], minimum(training))


def build_optimizer(training: dict[str, Any], parameters: Any, device: torch.device) -> torch.optim.Optimizer:
    """AdamW, or what training.args.optimizer names, with litgpt's own function: all parameters in one group.

    Another class gets of our fields what its arguments have. UserError where it takes not what it is given.
    """
    given = (training.get("args") or {}).get("optimizer") or {}
    path = given.get("class_path", ADAMW)
    settings = {name: training["optimizer"][name] for name in (OPTIMIZER if path == ADAMW else ("lr", "weight_decay"))}
    spec = {"class_path": path, "init_args": {**settings, **(given.get("init_args") or {})}}
    try:
        return instantiate_torch_optimizer(spec, parameters, fused=device.type == "cuda")
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        raise UserError(f"no such optimizer: {error}", key="training.args.optimizer", value=given) from None
