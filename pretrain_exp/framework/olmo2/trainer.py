"""ai2-olmo's own Trainer, told where a segment begins and ends, and asked what it did at every step.

    fit() --batch--> train_step: log what is read -> upstream's step (forward, backward, clip, hooks, update)
                                 -> log metrics -> boundary of the step: saves, signals -> next batch, or JobEnds

Upstream neither saves nor evaluates: states are the boundary's business. What dropout draws is seeded by the step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from olmo.exceptions import OLMoThreadError
from olmo.train import Trainer
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from pretrain_exp.framework.olmo2.data import EditedDataset, seek
from pretrain_exp.framework.worker.boundary import Boundary, JobEnds
from pretrain_exp.framework.worker.checkpoints import Checkpoints
from pretrain_exp.framework.worker.hooks import acting, add_gradient_noise
from pretrain_exp.framework.worker.main import Attempt
from pretrain_exp.framework.worker.noise import Noise, noise_of_rows, planned_noise
from pretrain_exp.framework.worker.steps import demand_finite, gradient_noise_metric, seed_step
from pretrain_exp.plan.overlay import Overlay
from pretrain_exp.tracking import metrics


class SegmentTrainer(Trainer):
    """Trains one segment. `train` does it all; upstream's attributes keep their names."""

    def train(self, checkpoints: Checkpoints, attempt: Attempt, step: int) -> int:
        """From `step` to the job's last save, or to a signal; returns the exit status."""
        self.job, self.ranks, self.journal = checkpoints.job, checkpoints.ranks, checkpoints.journal
        self.boundary = Boundary(checkpoints, attempt)
        self.overlay = Overlay.open(self.job.overlay) if self.job.overlay else None
        loss: Any = getattr(self, "loss_fn")  # noqa: B009  of a class that mypy does not see
        # upstream leaves the coefficient of its configuration unread: there it is 1e-4, always
        self.loss_fn = partial(loss, z_loss_multiplier=self.cfg.auxiliary_loss_multiplier)
        self._noise: torch.Tensor | None = None
        self._hooked, self._squares, self._elements = -1, 0.0, 0.0
        self.model.transformer.wte.register_forward_hook(self._add_noise)
        self.optim.register_step_pre_hook(self._gradient_hooks)
        self.stand_at(step)
        self._stepped_at = time.monotonic()
        status = self.boundary.reach(step)
        if status is not None:
            return status
        try:
            self.fit()
        except JobEnds as end:
            return end.status
        except OLMoThreadError as error:  # which says only that a reading thread failed
            raise error.__cause__ or error from None
        raise RuntimeError(f"ai2-olmo ended at step {self.global_step}, before the job's last")

    def stand_at(self, step: int) -> None:
        """Goes on after `step` updates: counters, schedule and the place in the stream."""
        dataset, phases = self.dataset, self.job.phases
        assert isinstance(dataset, EditedDataset)
        seek(dataset, phases.first_slot(step))
        self.epoch, self.global_step = dataset.epoch, step
        self.global_train_examples_seen_this_epoch = dataset.start_index
        self.global_train_tokens_seen = phases.position_of_step(step)

    def train_step(self, batch: dict[str, Any], reduce_global_loss: bool = True) -> dict[str, float]:
        """Upstream has counted the step already: this is update `global_step`, of step global_step - 1."""
        step = self.global_step - 1
        slots = batch["index"].numpy()
        noise = planned_noise(self.overlay, slots.tolist())
        self.journal.read(step, slots - self.job.phases.first_slot(step), slots, batch["input_ids"].numpy(), noise)
        (labels,) = self.ranks.sum_counts([int((self.get_labels(batch) != -100).sum())])
        seed_step(self.job.init_seed, step, self.ranks.rank)
        try:
            told = super().train_step(batch, reduce_global_loss=True)
        except ValueError as error:
            if "nan loss" in str(error):
                demand_finite(step, math.nan, math.nan)
            raise
        self._log(step, told, self.job.phases.batch_size(step) * self.job.phases.sequence_length(step) / max(1, labels))
        status = self.boundary.reach(self.global_step)
        if status is not None:
            raise JobEnds(status)
        return told

    def model_forward(self, batch: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Of one micro-batch, whose planned noise is added to its embeddings."""
        noise = planned_noise(self.overlay, batch["index"].tolist())
        with self._noisy_embeddings(noise, batch["input_ids"].shape):
            return super().model_forward(batch, *args, **kwargs)

    @contextmanager
    def _noisy_embeddings(self, noise: tuple[Noise, ...], shape: torch.Size) -> Iterator[None]:
        """Within it, the embeddings of rows of this shape (B, S) get the noise."""
        found = noise_of_rows(noise, slice(0, shape[0]), (*shape, self.cfg.model.d_model))
        self._noise = None if found is None else torch.from_numpy(found)
        yield
        self._noise = None

    def trainer_state_dict(self) -> dict[str, Any]:
        """As upstream's, without random states: every step is seeded anew."""
        return {
            "epoch": self.epoch or 0,
            "global_step": self.global_step,
            "global_train_examples_seen_this_epoch": self.global_train_examples_seen_this_epoch,
            "global_train_tokens_seen": self.global_train_tokens_seen,
            "world_size": self.ranks.world,
            "checkpoints": [],
            "unsharded_checkpoints": [],
            "ephemeral_checkpoints": [],
        }

    def _add_noise(self, module: torch.nn.Module, inputs: Any, embedded: torch.Tensor) -> torch.Tensor:
        return embedded if self._noise is None else embedded + self._noise.to(embedded.device, embedded.dtype)

    def _gradient_hooks(self, *_: Any) -> None:
        """After clipping, before the update; upstream's optimizers come by here twice a step."""
        if self._hooked != self.global_step:
            self._hooked = self.global_step
            named = local_gradients(self.model, self.dist_model)
            told: tuple[float, float] = add_gradient_noise(self.job.hooks, self.global_step - 1, named)
            if acting(self.job.hooks, self.global_step - 1):  # of all ranks: each has met its own shards alone
                squares, elements = self.ranks.sum(torch.tensor(told, dtype=torch.float64)).tolist()
                told = squares, elements
            self._squares, self._elements = told

    def _log(self, step: int, told: dict[str, float], scale: float) -> None:
        """scale: all tokens over those with a label. Upstream divides the loss by the former."""
        loss, norm, z_loss = told["train/CrossEntropyLoss"], told["optim/total_grad_norm"], told.get("train/ZLoss", 0.0)
        if self.cfg.fused_loss:
            loss -= z_loss  # flash-attn's loss includes it
        if self.ranks.first:
            demand_finite(step, loss, norm)
        now = time.monotonic()
        phases = self.job.phases
        read = phases.position_of_step(step + 1) - phases.position_of_step(step)
        self.journal.log(
            step,
            **{
                metrics.LOSS: loss * scale,
                metrics.Z_LOSS: z_loss * scale,
                metrics.GRAD_NORM: norm,
                metrics.LEARNING_RATE: self.optim.param_groups[0]["lr"],
                metrics.TOKENS: phases.position_of_step(step + 1),
                metrics.TOKENS_PER_SECOND: read / (now - self._stepped_at),
                **gradient_noise_metric(self._squares, self._elements),
            },
        )
        self._stepped_at = now


def local_gradients(model: torch.nn.Module, dist_model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor, int]]:
    """(name, this rank's part of the gradient, index of its first element in the whole); of FSDP's flat shards too."""
    if not isinstance(dist_model, FSDP):
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                yield name, parameter.grad, 0
        return
    for prefix, module in dist_model.named_modules():
        handle = getattr(module, "_handle", None) if isinstance(module, FSDP) else None
        if handle is None:
            continue
        flat = handle.flat_param
        for name, parameter, part in zip(flat._fqns, flat._params, flat._shard_param_infos, strict=True):
            if part.in_shard and parameter.grad is not None:
                whole = f"{prefix}.{name}".replace("_fsdp_wrapped_module.", "").replace("_fsdp_wrapped_module", "")
                yield whole.strip("."), parameter.grad, part.intra_param_start_idx
