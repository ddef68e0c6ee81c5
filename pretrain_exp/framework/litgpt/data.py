"""What a rank reads, as litgpt takes it: a DataModule whose loader addresses rows by slot.

    slot --order.read--> tokens --overlay.apply--> S tokens --+ sentinel--> (M, S + 1) int64, a micro-batch of litgpt
                                                                  input  = columns 0 .. S - 1: the row, all of it
                                                                  labels = columns 1 .. S: the next token, then -100

litgpt cuts input and labels out of S + 1 tokens. A row here has S, as in every framework, and its last label is the
ignore_index of litgpt's own loss, which leaves it out of the mean: exact, since every row predicts S - 1 tokens. The
sentinel is never an input, so the digest is taken of the very columns that the model gets.
Step t reads slots [tG, (t + 1)G), rank r its rows r::W, in micro-batches of M; nothing to restore after a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import numpy as np
import torch
from litgpt.data import DataModule
from torch.utils.data import DataLoader, Dataset

from pretrain_exp.data.order import DataOrder, order_from_json
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.ranks import Ranks
from pretrain_exp.framework.worker.stop import leave_signals
from pretrain_exp.plan.overlay import Overlay

SENTINEL = -100  # the ignore_index of litgpt.utils.chunked_cross_entropy


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one forward pass of one rank."""

    step: int
    first: bool  # of its step
    rows: np.ndarray  # (M,) row in the step's whole batch
    slots: np.ndarray  # (M,)


def micro_batches(job: Job, rank: int, world: int, size: int, start: int, stop: int) -> Iterator[MicroBatch]:
    """The micro-batches of one rank in steps [start, stop), in order."""
    for step in range(start, stop):
        rows = np.arange(rank, job.phases.batch_size(step), world)
        slots = job.phases.first_slot(step) + rows
        for i in range(0, len(rows), size):
            yield MicroBatch(step, i == 0, rows[i : i + size], slots[i : i + size])


class Rows(Dataset[torch.Tensor]):
    """slots -> (M, S + 1) int64: their rows after the edits, and the sentinel.

    Opened where it is used: each loader process maps its own files.
    """

    def __init__(self, job: Job) -> None:
        self._order_json, self._overlay_folder = job.order, job.overlay
        self._opened: tuple[DataOrder, Overlay | None] | None = None

    def __getitems__(self, slots: list[int]) -> torch.Tensor:
        """What a DataLoader asks a dataset for that makes its batches itself."""
        order, overlay = self._open()
        batch = np.full((len(slots), order.sequence_length + 1), SENTINEL, dtype=np.int64)
        for row, slot in enumerate(slots):
            tokens = order.read(slot)
            batch[row, :-1] = tokens if overlay is None else overlay.apply(slot, tokens, order.read)
        return torch.from_numpy(batch)

    def _open(self) -> tuple[DataOrder, Overlay | None]:
        if self._opened is None:
            overlay = Overlay.open(self._overlay_folder) if self._overlay_folder else None
            self._opened = order_from_json(self._order_json), overlay
        return self._opened


class Reader(Protocol):
    """Who is told what litgpt's loop is about to get, in the process that trains."""

    def at_step(self, step: int) -> None:
        """`step` updates are made; nothing of the next is read. Also after the last one."""
        ...

    def read(self, micro: MicroBatch, tokens: torch.Tensor) -> None:
        """tokens: (M, S + 1), what the loop gets now."""
        ...


class SlotLoader(DataLoader):
    """The micro-batches of steps [start, stop) of one rank, and word of each to its reader."""

    def __init__(self, job: Job, ranks: Ranks, size: int, start: int, reader: Reader) -> None:
        stop = job.saves[-1].step
        self.plan = partial(micro_batches, job, ranks.rank, ranks.world, size, start, stop)
        self.stop, self.reader = stop, reader
        self.rows, self.slots = Rows(job), _Slots(self.plan)
        super().__init__(
            self.rows,
            batch_sampler=self.slots,
            num_workers=job.training["loader_workers"],
            collate_fn=_as_it_is,
            worker_init_fn=leave_signals,
        )

    def __iter__(self) -> Iterator[torch.Tensor]:  # type: ignore[override]
        # without processes, what torch's iterator does around a batch would cost as much as a fifth of reading it
        batches = super().__iter__() if self.num_workers else map(self.rows.__getitems__, self.slots)
        for micro, tokens in zip(self.plan(), batches, strict=True):
            if micro.first:
                self.reader.at_step(micro.step)
            self.reader.read(micro, tokens)
            yield tokens
        self.reader.at_step(self.stop)


class _Slots:
    """A batch sampler over the same plan."""

    def __init__(self, plan: Callable[[], Iterator[MicroBatch]]) -> None:
        self.plan = plan

    def __iter__(self) -> Iterator[list[int]]:
        return (micro.slots.tolist() for micro in self.plan())


class PlannedData(DataModule):
    """What `litgpt.pretrain.get_dataloaders` asks for; its validation is zeros, which the loop wants to see."""

    def __init__(self, job: Job, ranks: Ranks, start: int, reader: Reader) -> None:
        super().__init__()
        self.job, self.ranks, self.start, self.reader = job, ranks, start, reader

    def connect(
        self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int | None = None, **kwargs: Any
    ) -> None:
        assert max_seq_length is not None
        self.size, self.length = batch_size, max_seq_length

    def train_dataloader(self) -> SlotLoader:
        return SlotLoader(self.job, self.ranks, self.size, self.start, self.reader)

    def val_dataloader(self) -> DataLoader:
        zeros = torch.zeros(self.size, self.length + 1, dtype=torch.int64)
        return DataLoader(cast("Dataset[torch.Tensor]", [zeros]), batch_size=None)


def _as_it_is(batch: Any) -> Any:
    return batch
