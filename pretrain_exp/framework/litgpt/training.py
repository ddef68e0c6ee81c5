"""The training of a job: litgpt's own loop, `litgpt.pretrain.fit`, over one segment of steps, watched from outside.

    fit: next batch --> loader: at_step(t): save? stop? --> read: digests, noise --> forward, backward --> clip
         ^                                                                                                 |
         +--- log_dict <--- optimizer <--- before_update: gradient noise, learning rate of t <-------------+

`litgpt.pretrain.main` always compiles, seeds and saves by its own rules, so its parts are composed here: GPT, Fabric,
instantiate_torch_optimizer, get_dataloaders, fit. fit has no end but max_tokens, which decides the learning rate: so it
keeps the whole run's, and a segment ends where the loader, asked for another batch, says that all is saved.
"""

from __future__ import annotations

from typing import Any

import torch
from litgpt.pretrain import fit, get_dataloaders

from pretrain_exp.framework.litgpt.checkpoint import LitModel
from pretrain_exp.framework.litgpt.config import eval_args, learning_rate, train_args
from pretrain_exp.framework.litgpt.data import MicroBatch, PlannedData
from pretrain_exp.framework.worker.boundary import Boundary, JobEnds
from pretrain_exp.framework.worker.checkpoints import Checkpoints
from pretrain_exp.framework.worker.hooks import add_gradient_noise, local_gradients
from pretrain_exp.framework.worker.main import Attempt
from pretrain_exp.framework.worker.noise import noise_of_rows, planned_noise
from pretrain_exp.framework.worker.steps import PendingSteps
from pretrain_exp.plan.overlay import Overlay
from pretrain_exp.tracking import metrics


class Training:
    """Trains a job from `step` to its last save. It is the reader of the loader that it gives to litgpt."""

    def __init__(self, checkpoints: Checkpoints, trained: LitModel, step: int, attempt: Attempt) -> None:
        self.trained, self.step = trained, step
        self.job, self.ranks, self.journal = checkpoints.job, checkpoints.ranks, checkpoints.journal
        self.fabric, self.settings = trained.fabric, self.job.training
        self.pending = PendingSteps(self.job, self.ranks, self.journal, self._named)
        self.boundary = Boundary(checkpoints, attempt, self.pending.flush)
        self.overlay = Overlay.open(self.job.overlay) if self.job.overlay else None
        self.noise: torch.Tensor | None = None  # (M, S, D), on the embeddings of the micro-batch at hand

    def run(self) -> int:
        """PLANNED when all is saved, INTERRUPTED when a signal came first and a checkpoint to resume from was left."""
        assert not (self.job.hooks and self.fabric.sharded)  # refused with the plan: see framework.py
        args, world = train_args(self.job, self.ranks.world), self.ranks.world
        accumulated = args.gradient_accumulation_iters(world)
        self.trained.state |= {"iter_num": self.step * accumulated, "step_count": self.step}
        data = PlannedData(self.job, self.ranks, self.step, self)
        loaders = get_dataloaders(self.fabric, data, None, args, self.job.phases.sequence_length(self.step))
        train, validation = self.fabric.setup_dataloaders(*loaders, use_distributed_sampler=False)
        self.trained.bare.transformer.wte.register_forward_hook(self.add_noise)
        self.trained.optimizer.optimizer.register_step_pre_hook(self.before_update)
        self.fabric.on_log = self.pending.flush
        self.fabric.loss = None
        try:
            fit(self.fabric, world, self.trained.state, train, validation, self.job.live, None, args, eval_args())
        except JobEnds as ended:
            return ended.status
        raise RuntimeError("litgpt's loop ended before the job")

    def at_step(self, step: int) -> None:
        """Between two steps: saves what is due, and ends the loop where the job ends."""
        self.noise = None
        status = self.boundary.reach(step)
        if status is not None:
            raise JobEnds(status)

    def read(self, micro: MicroBatch, tokens: torch.Tensor) -> None:
        """Logs what the model gets now, and makes the noise that belongs to it."""
        spans = planned_noise(self.overlay, micro.slots.tolist())
        self.journal.read(micro.step, micro.rows, micro.slots, tokens[:, :-1].numpy(), spans)
        shape = (len(tokens), tokens.shape[1] - 1, self.trained.bare.config.n_embd)
        noise = noise_of_rows(spans, slice(0, len(tokens)), shape)
        self.noise = None if noise is None else torch.from_numpy(noise).to(self.ranks.device)

    def add_noise(self, module: torch.nn.Module, given: Any, embedded: torch.Tensor) -> torch.Tensor | None:
        """After the embedding, (M, S, D); None leaves it as it is."""
        return None if self.noise is None else embedded + self.noise.to(embedded.dtype)

    def before_update(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """After the clipping: gradient noise, and the learning rate of this step."""
        noise = add_gradient_noise(self.job.hooks, self.step, local_gradients(self.trained.bare))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, self.step)
        assert self.fabric.loss is not None
        assert self.fabric.norm is not None
        numbers = torch.stack([self.fabric.loss.double(), self.fabric.norm.double()])
        self.pending.add(self.step, numbers / self.ranks.world, noise)
        self.fabric.loss = None
        self.step += 1

    def _named(self, step: int, numbers: list[float]) -> dict[str, Any]:
        rate = learning_rate(self.settings, step)
        return {metrics.LOSS: numbers[0], metrics.GRAD_NORM: numbers[1], metrics.LEARNING_RATE: rate}
