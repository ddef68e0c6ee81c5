"""What a rank reads: ai2-olmo's own loader over its own dataset, with instances addressed by slot and edited there.

    slot in the epoch --order--> instance --MemMapDataset--> item                                     where no edit lies
                                          --MemMapDataset--> bare tokens --overlay--> masks, lengths  where one lies

So what derives from tokens, the filter of repetitions above all, is made once, of the tokens that the model gets.
Upstream's `IterableDataset` splits an epoch among ranks, workers and threads as ever; what it hands around are slots
instead of indices. Its index file is not made: the data order holds the same index (data/olmo_order.py).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from olmo.config import TrainConfig
from olmo.data import DataCollator, IterableDataset, build_memmap_dataset
from olmo.data.memmap_dataset import MemMapDataset
from olmo.data.util import get_document_lengths
from torch.utils.data import DataLoader

from pretrain_exp.data.olmo_order import OlmoOrder
from pretrain_exp.data.order import DataOrder, order_from_json
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.ranks import Ranks
from pretrain_exp.framework.worker.stop import leave_signals
from pretrain_exp.plan.overlay import Overlay

DTYPES = {"uint16": "uint16", "uint32": "uint32", "int32": "uint32", "int64": "uint64"}  # ids are never negative


class Slots:
    """The slots of an epoch, as the index array that upstream slices by start, rank, worker and thread."""

    def __init__(self, slots: range) -> None:
        self.slots = slots

    def __len__(self) -> int:
        return len(self.slots)

    def __iter__(self) -> Iterator[int]:
        return iter(self.slots)

    def __getitem__(self, part: slice) -> Slots:
        return Slots(self.slots[part])

    def reshape(self, shape: tuple[int, ...]) -> np.ndarray:
        """As an array: what a loader worker asks for, of the rest of an epoch."""
        return np.arange(self.slots.start, self.slots.stop, self.slots.step, dtype=np.int64).reshape(shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.reshape((-1,)), dtype=dtype)


class EditedDataset(IterableDataset):
    """Items of the training stream in order, each with the edits of its slot; item["index"] is the slot."""

    def __init__(self, dataset: MemMapDataset, bare: MemMapDataset, job: Job, batch_size: int) -> None:
        """dataset: of the job's files, for its own order and what it derives from tokens; bare: for tokens alone."""
        self.job, self.bare = job, bare
        self._opened = threading.local()  # a data order caches its current epoch: one for each thread
        self.length = _epoch_length(order_from_json(job.order), batch_size)
        self.native = reads_natively(job.order)
        super().__init__(dataset, batch_size, shuffle=False, drop_last=True)
        len(bare)  # upstream finds the files' lengths when first asked, which threads may not do at once
        self.total_size = self.length  # of whole batches, so the same for any number of ranks

    def get_global_indices(self) -> Any:
        """Up to where the job ends: a loader worker makes an array of all that it may read."""
        first, last = self.epoch * self.length, self.job.phases.first_slot(self.job.saves[-1].step)
        return Slots(range(first, min(first + self.total_size, last)))

    def _get_dataset_item(self, idx: int) -> dict[str, Any]:
        order, overlay = self._open()
        edited = overlay is not None and overlay.touches(idx)
        if self.native and not edited:
            return dict(self.dataset[order.sequence(idx)], index=idx)
        if self.native:
            tokens = self.bare[order.sequence(idx)]["input_ids"]
        else:
            tokens = torch.from_numpy(order.read(idx).astype(np.int64))
        if edited:
            tokens = torch.from_numpy(overlay.apply(idx, tokens.numpy(), order.read))
        return dict(self._item(tokens), index=idx)

    def _item(self, tokens: torch.Tensor) -> dict[str, Any]:
        """An item of these tokens, as `MemMapDataset` makes it of those in its files."""
        dataset, item = self.dataset, {"input_ids": tokens}
        if dataset.instance_filter_config is not None:
            item["instance_mask"] = dataset._validate_instance(tokens)
        if dataset._generate_attention_mask:
            item["attention_mask"] = (tokens != dataset._pad_token_id).to(tokens.dtype)
        if dataset._generate_doc_lengths:
            item["doc_lens"] = get_document_lengths(tokens, dataset._eos_token_id)
        return item

    def _open(self) -> tuple[Any, Any]:
        """The data order and the overlay, None without one, of this thread."""
        try:
            return self._opened.both
        except AttributeError:
            overlay = Overlay.open(self.job.overlay) if self.job.overlay else None
            self._opened.both = order_from_json(self.job.order), overlay
            return self._opened.both


def reads_natively(order: dict[str, Any]) -> bool:
    """Whether ai2-olmo reads this order's instances from its files by itself: flat, of one type, without headers."""
    files = order["files"]["files"] if order["kind"] == OlmoOrder.kind else []
    return (
        bool(files) and len({file["dtype"] for file in files}) == 1 and not any(file["offset_bytes"] for file in files)
    )


def build_loader(config: TrainConfig, job: Job) -> DataLoader:
    """The training loader, at the beginning of the stream; `seek` moves it."""
    files = job.order.get("files", {"files": []})["files"]
    config.data.paths = [file["path"] for file in files] or [str(job.path)]  # any file, where nothing is read from it
    config.data.memmap_dtype = DTYPES[files[0]["dtype"]] if files else "uint32"
    config.data.seed = job.order["seed"] if job.order["kind"] == OlmoOrder.kind else None
    plain = replace(config.data, instance_filter=None, generate_attention_mask=False, generate_doc_lengths=False)
    made, bare = (build_memmap_dataset(config, data, include_instance_metadata=False) for data in (config.data, plain))
    dataset = EditedDataset(made, bare, job, config.global_train_batch_size)
    workers = config.data.num_workers
    return DataLoader(
        dataset,
        batch_size=config.device_train_batch_size,
        drop_last=True,
        collate_fn=DataCollator.from_train_config(config),
        num_workers=workers,
        pin_memory=config.data.pin_memory,
        prefetch_factor=config.data.prefetch_factor if workers else None,
        timeout=config.data.timeout,
        multiprocessing_context="fork" if workers else None,  # a fresh interpreter would not find this package
        worker_init_fn=leave_signals if workers else None,
    )


def prepare_order(job: Job, ranks: Ranks, step: int) -> None:
    """Makes what the epochs of a segment need to be found, once for all ranks."""
    order = order_from_json(job.order.get("order", job.order))  # of a window that is permuted: what it permutes
    if ranks.first and isinstance(order, OlmoOrder):
        order.prepare(job.phases.first_slot(step), job.phases.first_slot(job.saves[-1].step))
    ranks.barrier()


def seek(dataset: EditedDataset, slot: int) -> None:
    """Goes on at this slot of the stream."""
    dataset.epoch, dataset.start_index = divmod(slot, dataset.length)


def _epoch_length(order: DataOrder, batch_size: int) -> int:
    """Slots of an epoch, in whole batches: where upstream begins a new one. Other orders just count on."""
    return order.num_sequences // batch_size * batch_size
