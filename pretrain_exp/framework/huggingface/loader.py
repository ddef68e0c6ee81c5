"""What a rank reads at every step: its rows of the data order, with the plan's edits, and all that derives from them.

    step --phases--> slots r::W --order.read--> tokens --overlay.apply--> tokens --derive--> labels, document positions

Keyed by the step: nothing to restore after a restart, the same for any number of threads. Threads, not processes: a row
costs tens of microseconds, and a signal to the process group then meets one process, which can finish its step.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from pretrain_exp.data.order import DataOrder, order_from_json
from pretrain_exp.framework.huggingface.head import IGNORED
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.noise import Noise, planned_noise
from pretrain_exp.plan.overlay import Overlay

AHEAD = 2  # steps that each thread reads ahead


@dataclass(frozen=True)
class Batch:
    """What one rank reads at one step. R = rows of this rank, S = sequence length."""

    step: int
    rows: np.ndarray  # (R,) row in the step's whole batch
    slots: np.ndarray  # (R,)
    tokens: np.ndarray  # (R, S) int64, after the edits
    labels: np.ndarray  # (R, S) int64: the token that column c predicts; IGNORED where none
    positions: np.ndarray | None  # (R, S) int64: column in the document, with document masking
    noise: tuple[Noise, ...]

    @property
    def predicted(self) -> int:
        """Tokens that this rank predicts."""
        return int((self.labels != IGNORED).sum())


def derive(tokens: np.ndarray, eos_token_id: int, document_masking: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels and, with document masking, positions in the document: (R, S) each.

    A document ends with its EOS. With document masking that predicts nothing: the next document does not continue it.
    """
    labels = np.full_like(tokens, IGNORED)
    labels[:, :-1] = tokens[:, 1:]
    if not document_masking:
        return labels, None
    ends = tokens == eos_token_id
    labels[ends] = IGNORED
    columns = np.arange(tokens.shape[1])
    first = np.zeros_like(tokens)
    first[:, 1:] = np.where(ends[:, :-1], columns[1:], 0)
    return labels, columns - np.maximum.accumulate(first, axis=1)


class Loader(AbstractContextManager["Loader"]):
    """Batches of one rank. `threads` 0 reads when asked; more read ahead, in order."""

    def __init__(self, job: Job, rank: int, world: int, threads: int) -> None:
        self.job, self.rank, self.world, self.threads = job, rank, world, threads
        self._opened = threading.local()  # a data order caches its current epoch: one for each thread
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="loader") if threads else None

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps [start, stop)."""
        if self._pool is None:
            yield from map(self.read, range(start, stop))
            return
        pending: deque[Future[Batch]] = deque()
        for step in range(start, stop):
            pending.append(self._pool.submit(self.read, step))
            if len(pending) > AHEAD * self.threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def read(self, step: int) -> Batch:
        order, overlay = self._open()
        rows = np.arange(self.rank, self.job.phases.batch_size(step), self.world)
        slots = self.job.phases.first_slot(step) + rows
        if overlay is not None and not overlay.touches_any(int(slots[0]), int(slots[-1]) + 1):
            overlay = None  # most steps: nothing is planted in any of their rows
        tokens = np.empty((len(rows), self.job.phases.sequence_length(step)), dtype=np.int64)
        for row, slot in enumerate(slots.tolist()):
            tokens[row] = order.read(slot) if overlay is None else overlay.apply(slot, order.read(slot), order.read)
        labels, positions = derive(tokens, self.job.eos_token_id, self.job.training["document_masking"])
        return Batch(step, rows, slots, tokens, labels, positions, planned_noise(overlay, slots.tolist()))

    def _open(self) -> tuple[DataOrder, Overlay | None]:
        if not hasattr(self._opened, "order"):
            self._opened.order = order_from_json(self.job.order)
            self._opened.overlay = Overlay.open(self.job.overlay) if self.job.overlay else None
        return self._opened.order, self._opened.overlay
