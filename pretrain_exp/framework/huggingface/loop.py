"""The training loop: one segment of a run, step by step.

    at step t:   agree (tokens, signals) -> save? -> seed(t) -> read -> log digests -> forward, backward by micro-batch
                 -> clip -> hooks of t -> learning rate of t -> update -> t + 1

Everything is a function of the step: what is read, the learning rate, what dropout draws. So a segment that was killed
anywhere and goes on from its last checkpoint computes what the undisturbed one would have.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_

from pretrain_exp.framework.huggingface.loader import Batch, Loader
from pretrain_exp.framework.huggingface.schedule import Schedule
from pretrain_exp.framework.huggingface.sharded import ShardedModel
from pretrain_exp.framework.worker.boundary import Boundary
from pretrain_exp.framework.worker.checkpoints import Checkpoints
from pretrain_exp.framework.worker.hooks import add_gradient_noise, local_gradients
from pretrain_exp.framework.worker.main import Attempt
from pretrain_exp.framework.worker.noise import noise_of_rows
from pretrain_exp.framework.worker.steps import PendingSteps, seed_step
from pretrain_exp.tracking import metrics


class Training:
    """Trains a job from `step` to its last save."""

    def __init__(self, checkpoints: Checkpoints, trained: ShardedModel, step: int, attempt: Attempt) -> None:
        self.checkpoints, self.step, self.attempt = checkpoints, step, attempt
        self.job, self.ranks, self.journal = checkpoints.job, checkpoints.ranks, checkpoints.journal
        self.model, self.optimizer = trained.model, trained.optimizer
        self.settings = self.job.training
        self.schedule = Schedule.from_training(self.settings)
        self.pending = PendingSteps(self.job, self.ranks, self.journal, self._named)

    def run(self) -> int:
        """PLANNED when all is saved, INTERRUPTED when a signal came first and a checkpoint to resume from was left."""
        boundary = Boundary(self.checkpoints, self.attempt, self.pending.flush)
        with Loader(self.job, self.ranks.rank, self.ranks.world, self.settings["loader_workers"]) as loader:
            batches = loader.batches(self.step, self.job.saves[-1].step)
            while (status := boundary.reach(self.step)) is None:
                self.train(next(batches))
        return status

    def train(self, batch: Batch) -> None:
        """One update: the mean loss over the tokens that all ranks predict, however they are split."""
        (predicted,) = self.ranks.sum_counts([batch.predicted])
        seed_step(self.job.init_seed, batch.step, self.ranks.rank)
        tokens = torch.from_numpy(batch.tokens)
        self.journal.read(batch.step, batch.rows, batch.slots, tokens.numpy(), batch.noise)
        device, size = self.ranks.device, self.settings["micro_batch_size"] or len(tokens)
        labels = torch.from_numpy(batch.labels)
        positions = None if batch.positions is None else torch.from_numpy(batch.positions)
        scale = self.ranks.world / max(1, predicted)  # gradients are averaged over the ranks
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        for start in range(0, len(tokens), size):
            rows = slice(start, start + size)
            loss, part = self.model(
                tokens[rows].to(device),
                labels[rows].to(device),
                None if positions is None else positions[rows].to(device),
                self._noise(batch, rows),
                self.settings["z_loss"],
                scale,
            )
            loss.backward()
            sums += part
        norm = clip_grad_norm_(self.model.parameters(), self.settings["max_grad_norm"] or math.inf)
        noise = add_gradient_noise(self.job.hooks, batch.step, local_gradients(self.model.hf))
        rate = self.settings["optimizer"]["lr"] * self.schedule.factor(batch.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self.pending.add(
            batch.step, torch.cat([sums / max(1, predicted), norm[None].double() / self.ranks.world]), noise
        )
        self.step += 1
        if self.pending.due:
            self.pending.flush()

    def _noise(self, batch: Batch, rows: slice) -> torch.Tensor | None:
        """(B, S, D) noise on the embeddings of these rows of the batch, None where there is none."""
        dim = self.model.hf.get_input_embeddings().weight.shape[1]
        noise = noise_of_rows(batch.noise, rows, (*batch.tokens[rows].shape, dim))
        return None if noise is None else torch.from_numpy(noise).to(self.ranks.device)

    def _named(self, step: int, numbers: list[float]) -> dict[str, Any]:
        loss, square, norm = numbers
        return {
            metrics.LOSS: loss,
            metrics.Z_LOSS: self.settings["z_loss"] * square,
            metrics.GRAD_NORM: norm,
            metrics.LEARNING_RATE: self.settings["optimizer"]["lr"] * self.schedule.factor(step),
        }
