"""What every training loop does at a step beside training: seeding what is drawn there, and telling its numbers.

    numbers of a step, on the device --add--> pending --fetched together, summed over the ranks--> metrics.jsonl

A step whose loss or gradient norm is not finite ends the job there.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from hashlib import blake2b

import numpy as np
import torch

from pretrain_exp.errors import UserError
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.journal import Journal
from pretrain_exp.framework.worker.ranks import Ranks
from pretrain_exp.tracking import metrics


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seeds all that dropout and the like may draw from, by what they may depend on."""
    key = int.from_bytes(blake2b(np.array([seed, step, rank], dtype="<i8").data, digest_size=8).digest(), "little")
    random.seed(key)
    np.random.seed(key & 0xFFFFFFFF)
    torch.manual_seed(key & 0x7FFFFFFFFFFFFFFF)


def demand_finite(step: int, loss: float, norm: float) -> None:
    """UserError where training has diverged."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise UserError(
            f"at step {step} the loss is {loss} and the gradient norm {norm}: training diverged",
            fix="lower training.optimizer.lr, lengthen the warm-up or lower training.max_grad_norm",
        )


class PendingSteps:
    """Steps whose numbers still lie on the device: one wait for it tells of many.

    named: (step, its numbers, summed over the ranks) -> metrics, of which loss and gradient norm must be finite.
    """

    def __init__(self, job: Job, ranks: Ranks, journal: Journal, named: Callable[[int, list[float]], dict]) -> None:
        self.job, self.ranks, self.journal, self.named = job, ranks, journal, named
        self._steps: list[tuple[int, torch.Tensor]] = []
        self._flushed_at = time.monotonic()

    def add(self, step: int, numbers: torch.Tensor, noise: tuple[float, int]) -> None:
        """numbers: this rank's, float64 (n,). noise: on its gradients, the sum of squares and their number."""
        self._steps.append((step, torch.cat([numbers, torch.tensor(noise, dtype=torch.float64).to(numbers.device)])))

    @property
    def due(self) -> bool:
        """Whether as many wait as training.log_every says."""
        return len(self._steps) >= self.job.training["log_every"]

    def flush(self) -> None:
        """Fetches and logs them. All ranks together; UserError where one is not finite."""
        if not self._steps:
            return
        rows = self.ranks.sum(torch.stack([numbers for _, numbers in self._steps])).tolist()
        position, first, last = self.job.phases.position_of_step, self._steps[0][0], self._steps[-1][0]
        rate = (position(last + 1) - position(first)) / (time.monotonic() - self._flushed_at)
        for (step, _), (*numbers, squares, elements) in zip(self._steps, rows, strict=True):
            values = self.named(step, numbers)
            demand_finite(step, values[metrics.LOSS], values.get(metrics.GRAD_NORM, 0.0))
            values |= {metrics.TOKENS: position(step + 1), metrics.TOKENS_PER_SECOND: rate}
            self.journal.log(step, **values, **gradient_noise_metric(squares, elements))
        self._steps.clear()
        self._flushed_at = time.monotonic()


def gradient_noise_metric(squares: float, elements: float) -> dict[str, float]:
    """The scale of the noise that gradients got; nothing where they got none."""
    return {metrics.GRADIENT_NOISE: math.sqrt(squares / elements)} if elements else {}
