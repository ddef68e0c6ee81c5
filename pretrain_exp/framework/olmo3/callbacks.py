"""What this package does inside OLMo-core's trainer, at the places that it gives callbacks.

    pre_step: seed, log the batch's digests, lay planned noise -> forward, backward -> clip -> noise on gradients
    -> update -> post_step: collect the step's numbers; save, or end the job, where the boundary says so

The trainer counts the step that it makes from 1; this package counts it from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from olmo_core.distributed.utils import get_local_tensor
from olmo_core.optim import SkipStepOptimizer
from olmo_core.train.callbacks import Callback
from olmo_core.train.common import TRAIN_CE_LOSS_METRIC
from olmo_core.utils import cuda_sync_debug_mode

from pretrain_exp.framework.worker.boundary import Boundary
from pretrain_exp.framework.worker.checkpoints import Checkpoints
from pretrain_exp.framework.worker.hooks import add_gradient_noise, local_gradients
from pretrain_exp.framework.worker.main import Attempt
from pretrain_exp.framework.worker.noise import Noise, noise_of_rows, planned_noise
from pretrain_exp.framework.worker.steps import PendingSteps, seed_step
from pretrain_exp.tracking import metrics

WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.")  # what strategies put into the names of parameters


class Segment(Callback):
    """One segment of a run. status: how the job ended, once it has."""

    priority: ClassVar[int] = -1  # after the framework's own callbacks

    def __init__(self, checkpoints: Checkpoints, attempt: Attempt) -> None:
        self.attempt = attempt
        self.job, self.ranks, self.journal = checkpoints.job, checkpoints.ranks, checkpoints.journal
        self.boundary = Boundary(checkpoints, attempt, self.flush)
        self.status: int | None = None
        self.pending = PendingSteps(self.job, self.ranks, self.journal, self._named)
        self._noise_added = (0.0, 0)  # to gradients: sum of squares, elements

    def post_attach(self) -> None:
        module = self.trainer.train_module
        self.embeddings = EmbeddingNoise()
        module.model.embeddings.register_forward_hook(self.embeddings.add)
        if self.job.hooks:
            module.optim.register_step_pre_hook(self._add_gradient_noise)

    def pre_train(self) -> None:
        self.attempt.stop_signal.listen()  # again: the trainer has just put handlers of its own in place

    def pre_step(self, batch: dict[str, Any]) -> None:
        step, loader = self.step - 1, self.trainer.data_loader
        seed_step(self.job.init_seed, step, self.ranks.rank)
        slots = np.array([loader.slot_of(index) for index in batch["index"].tolist()], dtype=np.int64)
        noise = planned_noise(loader.rows.overlay, slots.tolist())
        rows = slots - self.job.phases.first_slot(step)
        self.journal.read(step, rows, slots, batch["input_ids"].numpy(), noise)
        self.embeddings.lay(noise)

    def post_step(self) -> None:
        self.embeddings.lay(())
        self.pending.add(self.step - 1, self._numbers(), self._noise_added)
        self._noise_added = (0.0, 0)
        if self.pending.due:
            self.flush()
        self.status = self.boundary.reach(self.step)
        if self.status is not None:
            self.trainer.cancel_run(f"the job ends at step {self.step}", no_sync=True)  # all ranks say so

    def _numbers(self) -> torch.Tensor:
        """(4,) float64, this rank's share of: loss, z-loss, gradient norm, learning rate."""
        names = (TRAIN_CE_LOSS_METRIC, "train/Z loss", "optim/total grad norm", "optim/LR (group 0)")
        found = [self.trainer.get_metric(name) for name in names]
        values = [torch.zeros(()) if value is None else get_local_tensor(value.detach()) for value in found]
        return torch.stack([value.to(self.ranks.device, torch.float64) for value in values]) / self.ranks.world

    def _add_gradient_noise(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        named = local_gradients(self.trainer.train_module.model)
        plain = ((_without_wrappers(name), gradient, start) for name, gradient, start in named)
        self._noise_added = add_gradient_noise(self.job.hooks, self.step - 1, plain)

    def flush(self) -> None:
        """Logs the steps since the last time; UserError where one is not finite."""
        with cuda_sync_debug_mode(0):
            self.pending.flush()

    def _named(self, step: int, numbers: list[float]) -> dict[str, Any]:
        loss, z_loss, norm, rate = numbers
        clipped = {metrics.GRAD_NORM: norm} if self.job.training["max_grad_norm"] is not None else {}
        return {metrics.LOSS: loss, metrics.Z_LOSS: z_loss, metrics.LEARNING_RATE: rate, **clipped}


class SkipHistory(Callback):
    """The losses and gradient norms by which an optimizer of OLMo-core decides to skip a step.

    Its own state does not hold them: without them a run that goes on would not skip where the undisturbed one does.
    """

    def state_dict(self) -> dict[str, Any]:
        optimizer = self.trainer.train_module.optim
        if not isinstance(optimizer, SkipStepOptimizer):
            return {}
        kept = {"losses": optimizer._losses, "grad_norms": optimizer._grad_norms}
        return {name: torch.stack(values).cpu() for name, values in kept.items() if values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        optimizer = self.trainer.train_module.optim
        if isinstance(optimizer, SkipStepOptimizer):
            for loss in state_dict.get("losses", ()):
                optimizer.latest_loss = loss.to(optimizer.device)
            for norm in state_dict.get("grad_norms", ()):
                optimizer.latest_grad_norm = norm.to(optimizer.device)


class EmbeddingNoise:
    """Adds planned noise to the embeddings of a batch, micro-batch by micro-batch."""

    def __init__(self) -> None:
        self.noise: Sequence[Noise] = ()
        self.start = 0

    def lay(self, noise: Sequence[Noise]) -> None:
        """For the batch that comes; () takes it away."""
        self.noise, self.start = noise, 0

    def add(self, module: Any, inputs: Any, embedded: torch.Tensor) -> torch.Tensor:
        """A forward hook of the embeddings: (B, S, D) of the next B rows of the batch."""
        if not self.noise:
            return embedded
        rows = slice(self.start, self.start + embedded.shape[0])
        self.start = rows.stop
        batch, length, dim = embedded.shape
        noise = noise_of_rows(self.noise, rows, (batch, length, dim))
        return embedded if noise is None else embedded + torch.from_numpy(noise).to(embedded.device, embedded.dtype)


def _without_wrappers(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name
