"""The wish that a job end early: remembered when it comes, acted on between two steps.

A module of its own, so that a worker listens before it has loaded torch.
"""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


def leave_signals(worker: int = 0) -> None:
    """In a loader's process: a signal to the process group is the trainer's, who still needs it to finish the step."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class StopSignal:
    """Remembers SIGTERM or SIGUSR2, so that the step at hand can be finished. `listen` needs the main thread."""

    def __init__(self) -> None:
        self.received = False

    def listen(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
