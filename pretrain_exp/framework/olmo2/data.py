"""What a rank reads: ai2-olmo's own loader over its own dataset, with instances addressed by slot and edited there.

    slot in the epoch --order--> instance --MemMapDataset--> item --overlay--> edited tokens --> masks and lengths anew

Upstream's `IterableDataset` splits an epoch among ranks, workers and threads as ever; what it hands around are places
in the epoch instead of indices. Its index file is not made: the data order holds the same index (data/olmo_order.py).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
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
from pretrain_exp.plan.overlay import Overlay

DTYPES = {"uint16": "uint16", "uint32": "uint32", "int32": "uint32", "int64": "uint64"}  # ids are never negative


class Places:
    """The places of an epoch, as the index array that upstream slices by start, rank, worker and thread."""

    def __init__(self, places: range) -> None:
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[int]:
        return iter(self.places)

    def __getitem__(self, part: slice) -> Places:
        return Places(self.places[part])

    def reshape(self, shape: tuple[int, ...]) -> np.ndarray:
        """As an array: what a loader worker asks for, of the rest of an epoch."""
        return np.arange(self.places.start, self.places.stop, self.places.step, dtype=np.int64).reshape(shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.reshape((-1,)), dtype=dtype)


class EditedDataset(IterableDataset):
    """Items of the training stream in order, each with the edits of its slot; item["index"] is the slot."""

    def __init__(self, dataset: MemMapDataset, job: Job, batch_size: int) -> None:
        """dataset: of the job's files, for its own order and for what it derives from tokens."""
        self.job = job
        self._opened = threading.local()  # a data order caches its current epoch: one for each thread
        self.length = _epoch_length(order_from_json(job.order), batch_size)
        self.native = reads_natively(job.order)
        super().__init__(dataset, batch_size, shuffle=False, drop_last=True)
        self.total_size = self.length  # of whole batches, so the same for any number of ranks

    def get_global_indices(self) -> Any:
        """Up to where the job ends: a loader worker makes an array of all that it may read."""
        last = self.job.phases.first_slot(self.job.saves[-1].step) - self.epoch * self.length
        return Places(range(min(self.total_size, last)))

    def _get_dataset_item(self, idx: int) -> dict[str, Any]:
        order, overlay = self._open()
        slot = self.epoch * self.length + idx
        if self.native:
            item = super()._get_dataset_item(order.sequence(slot))
        else:
            item = self._derived(torch.from_numpy(order.read(slot).astype(np.int64)))
        item["index"] = slot
        if overlay is not None:
            tokens = item["input_ids"].numpy()
            edited = overlay.apply(slot, tokens, order.read)
            if edited is not tokens:
                item |= self._derived(torch.from_numpy(edited))
        return item

    def _derived(self, tokens: torch.Tensor) -> dict[str, Any]:
        """An item of these tokens, as `MemMapDataset` makes it of those in its files."""
        dataset, item = self.dataset, {"input_ids": tokens}
        if dataset.instance_filter_config is not None:
            item["instance_mask"] = dataset._validate_instance(tokens)
        if dataset._generate_attention_mask:
            item["attention_mask"] = (tokens != dataset._pad_token_id).to(tokens.dtype)
        if dataset._generate_doc_lengths:
            item["doc_lens"] = get_document_lengths(tokens, dataset._eos_token_id)
        return item

    def _open(self) -> tuple[Any, Overlay | None]:
        if not hasattr(self._opened, "order"):
            self._opened.order = order_from_json(self.job.order)
            self._opened.overlay = Overlay.open(self.job.overlay) if self.job.overlay else None
        return self._opened.order, self._opened.overlay

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _opened=threading.local())


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
    dataset = EditedDataset(
        build_memmap_dataset(config, config.data, include_instance_metadata=False), job, config.global_train_batch_size
    )
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
        worker_init_fn=_leave_signals if workers else None,
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


def _leave_signals(worker: int) -> None:
    """A signal to the process group is the trainer's, who still needs this worker to finish its step."""
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _epoch_length(order: DataOrder, batch_size: int) -> int:
    """Slots of an epoch, in whole batches: where upstream begins a new one. Other orders just count on."""
    return order.num_sequences // batch_size * batch_size
