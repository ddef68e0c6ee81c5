"""Between two steps: what is saved there, and whether the job ends there.

    at step t:  save the state? -> all saved: PLANNED -> signals, time, by all ranks -> save to resume? -> go on

All ranks call it at every step, so that what is saved is of one step on all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pretrain_exp.framework.worker.checkpoints import Checkpoints
from pretrain_exp.framework.worker.main import INTERRUPTED, PLANNED, Attempt


class JobEnds(Exception):
    """Raised through a framework's own loop, which ends no other way, where the job ends. status: of the process."""

    def __init__(self, status: int) -> None:
        self.status = status


class Boundary:
    """flush: called before anything is written, to log what is still to be logged."""

    def __init__(self, checkpoints: Checkpoints, attempt: Attempt, flush: Callable[[], None] = lambda: None) -> None:
        self.checkpoints, self.attempt, self.flush = checkpoints, attempt, flush
        self.job, self.ranks = checkpoints.job, checkpoints.ranks
        self._saves = {save.step: save for save in self.job.saves}
        self._resume_seconds = 60.0 * self.job.training["resume_every_minutes"]
        self._saved_at = time.monotonic()

    def reach(self, step: int) -> int | None:
        """The exit status where the job ends at this step, None where it goes on with it."""
        self.attempt.step = step
        saved = step in self._saves
        if saved:
            self.flush()
            self.checkpoints.save_state(self._saves[step])
            self._saved_at = time.monotonic()
            if step == self.job.saves[-1].step:
                return PLANNED
        due = self.ranks.first and time.monotonic() - self._saved_at > self._resume_seconds
        signals, dues = self.ranks.sum_counts([int(self.attempt.stop_signal.received), int(due)])
        if (signals or dues) and not saved:  # a restart goes on from the state
            self.flush()
            self.checkpoints.save_resume(step)
            self._saved_at = time.monotonic()
        return INTERRUPTED if signals else None
