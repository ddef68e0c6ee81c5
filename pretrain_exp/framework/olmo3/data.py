"""OLMo-core's own data loaders, addressed by the slot of the run, with the plan's edits where they yield an item.

    slot --index of the epoch--> instance --dataset--> item --rows.py--> edited item, and what derives from it

A slot means the same to every plan, rank and restart. Index files, batches over ranks and workers stay the framework's:
only which slots are local, and what the item of a slot is, are overridden. Rows of another order than OLMo-core's, and
of files that it cannot read, come through the same override.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from olmo_core.data import DataCollator, NumpyFSLDataLoader, NumpyFSLDataset, TokenizerConfig
from olmo_core.data.composable import ComposableDataLoader, ConcatAndChunkInstanceSource, NumpyDocumentSource
from olmo_core.data.numpy_dataset import NumpyFSLDatasetBase
from olmo_core.distributed.utils import barrier, get_fs_local_rank, get_rank, get_world_size

from pretrain_exp.data.olmo_order import OlmoCoreOrder
from pretrain_exp.data.order import DataOrder
from pretrain_exp.data.token_files import TokenFiles
from pretrain_exp.errors import UserError
from pretrain_exp.framework.olmo3.config import arguments, tokenizer_config
from pretrain_exp.framework.olmo3.rows import Rows
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.stop import leave_signals

DTYPES = {"uint16": np.uint16, "uint32": np.uint32}
ENDLESS = 1 << 31  # slots of an order that has no epochs here: more than a run reads


class Slots:
    """Mixed into a data loader of OLMo-core, before its class. The index of an item is its slot in the epoch."""

    rows: Rows
    batch_slots: int  # sequences of a batch, over all ranks
    own: bool  # items come from the framework's dataset, by its index; else from the rows' order
    _index: tuple[int, np.ndarray] | None = None  # of an epoch
    _first: tuple[int, int] | None = None  # an epoch and its first slot

    # of the loader:
    epoch: int
    global_batch_size: int
    total_batches: int
    batches_processed: int
    tokens_processed: int
    dp_rank: int
    dp_world_size: int
    worker_info: Any
    get_global_indices: Any
    reshuffle: Any

    def go_to(self, slot: int) -> None:
        """Goes on at this slot of the run, the first of a batch. All ranks together: the epoch's index is made."""
        epoch, place = divmod(slot, self.total_batches * self.batch_slots)
        self.reshuffle(epoch + 1)
        self.batches_processed = place // self.batch_slots
        self.tokens_processed = self.batches_processed * self.global_batch_size

    def slot_of(self, index: int) -> int:
        """The slot of the run of a slot of the current epoch."""
        if self._first is None or self._first[0] != self.epoch:
            self._first = self.epoch, (self.epoch - 1) * self.total_batches * self.batch_slots
        return self._first[1] + index

    def local_slots(self) -> Iterator[int]:
        """The slots that this rank and worker read from here on, batch after batch, none of them materialised."""
        first, stride = 0, 1
        if self.worker_info is not None:
            first, stride = self.worker_info.id, self.worker_info.num_workers
            leave_signals()
        size = self.batch_slots
        last = -((self.slot_of(0) - self.rows.last_slot) // size)  # what is behind the end may not be here
        batches = range(self.batches_processed + first, min(self.total_batches, last), stride)
        return (slot for b in batches for slot in range(b * size + self.dp_rank, (b + 1) * size, self.dp_world_size))

    def instance_of(self, index: int) -> int:
        """The framework's instance at a slot of the current epoch, by its own index file."""
        if self._index is None or self._index[0] != self.epoch:
            self._index = self.epoch, np.asarray(self.get_global_indices())
        return int(self._index[1][index])


class NumpyLoader(Slots, NumpyFSLDataLoader):
    """OLMo-core's loader of NumpyFSLDataset, or of the rows of another order."""

    def _get_local_instance_indices(self, indices: np.ndarray) -> Iterator[int]:
        return self.local_slots()

    def _get_dataset_item(self, idx: int) -> dict[str, Any]:
        slot = self.slot_of(idx)
        item = self.dataset[self.instance_of(idx)] if self.own else self.rows.read(slot)
        return self.rows.finish(slot, idx, item)

    def build_and_save_global_indices(self, in_memory: bool = False) -> None:
        if self.own:
            super().build_and_save_global_indices(in_memory)
        else:
            barrier()

    def get_global_indices(self) -> np.ndarray:
        return super().get_global_indices() if self.own else np.empty(0, np.uint32)


class ComposableLoader(Slots, ComposableDataLoader):
    """OLMo-core's composable loader, one source a file, shuffled over all of them: the order of NumpyLoader."""

    def get_local_indices(self) -> Iterator[int]:
        return self.local_slots()

    def get_instance(self, idx: int) -> dict[str, Any]:
        return self.rows.finish(self.slot_of(idx), idx, super().get_instance(self.instance_of(idx)))

    def get_mock_batch(self) -> dict[str, Any]:
        """Random instances, for the trainer's dry run, which comes before there is an index."""
        count = self.rank_batch_size // self.sequence_length
        picked = np.random.default_rng(self.seed + self.dp_rank).integers(0, self.total_instances, count)
        return self.collator([ComposableDataLoader.get_instance(self, int(i)) for i in picked])


class Shape(NumpyFSLDatasetBase):
    """The shape of an order that is not OLMo-core's own, for NumpyLoader, which reads its rows past this dataset."""

    identity: str

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> dict[str, Any]:
        raise IndexError("rows are read by slot")

    @property
    def fingerprint(self) -> str:
        return self.identity


def build_loader(job: Job, vocab_size: int, group: Any, device_type: str) -> NumpyLoader | ComposableLoader:
    """The loader that training.args.data_loader asks for, over the job's order. group: of the data-parallel ranks.

    UserError where the composable loader or label masks are asked for and the order or the files are not OLMo-core's.
    """
    tokenizer = tokenizer_config(job, vocab_size)
    rows = Rows(job, tokenizer)
    order = rows.order
    args, masks = dict(arguments(job, "data_loader")), arguments(job, "dataset").get("label_mask_paths")
    kind = args.pop("type", "numpy")
    ids = {"pad_token_id": tokenizer.pad_token_id, "vocab_size": vocab_size}
    length = order.sequence_length
    common: dict[str, Any] = {
        "collator": DataCollator(**ids),
        "global_batch_size": job.phases.batch_size(job.start_step) * length,
        "work_dir": _index_folder(job, order),
        "num_workers": job.training["loader_workers"],
        "target_device_type": device_type,
        "dp_world_size": get_world_size(group),
        "dp_rank": get_rank(group),
        "fs_local_rank": get_fs_local_rank(),
        **args,
    }
    loader: Any
    own = isinstance(order, OlmoCoreOrder) and is_plain(order.files)
    if kind == "composable":
        _demand(own and masks is None, "data_loader.type", kind, "and label_mask_paths by the numpy loader")
        assert isinstance(order, OlmoCoreOrder)
        sources = _sources(order, tokenizer, common["work_dir"])
        loader = ComposableLoader(
            *sources, tokenizer=tokenizer, seed=order.seed, display_source_visualization=False, **common
        )
    elif own:
        assert isinstance(order, OlmoCoreOrder)
        dataset = _dataset(order, tokenizer, ids, masks)
        loader = NumpyLoader(dataset, chunk_size=order.chunk, seed=order.seed, **common)
    else:
        _demand(masks is None, "dataset.label_mask_paths", masks, "")
        shape = Shape("order", sequence_length=length, eos_token_id=tokenizer.eos_token_id, **ids)
        shape.identity = order.fingerprint()
        loader = NumpyLoader(shape, **common)
    loader.rows, loader.own, loader.batch_slots = rows, own, job.phases.batch_size(job.start_step)
    return loader


def is_plain(files: TokenFiles) -> bool:
    """Whether OLMo-core's datasets read these files: whole, without headers, all of one unsigned type."""
    dtype = files.files[0].dtype
    if dtype not in DTYPES:
        return False
    size = np.dtype(DTYPES[dtype]).itemsize
    return all(
        file.dtype == dtype
        and file.offset_bytes == 0
        and file.coverage is None
        and Path(file.path).stat().st_size == file.num_tokens * size
        for file in files.files
    )


def _dataset(
    order: OlmoCoreOrder, tokenizer: TokenizerConfig, ids: dict[str, Any], masks: list[str] | None
) -> NumpyFSLDataset:
    """As an official run's: what its fingerprint hangs on comes from training.args.dataset.tokenizer."""
    files = order.files.files
    dataset = NumpyFSLDataset(
        *(file.path for file in files),
        sequence_length=order.sequence_length,
        max_target_sequence_length=order.max_target_sequence_length,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        dtype=DTYPES[files[0].dtype],
        label_mask_paths=masks,
        **{**ids, "vocab_size": tokenizer.vocab_size},
    )
    dataset.prepare()
    return dataset


def _sources(order: OlmoCoreOrder, tokenizer: TokenizerConfig, folder: Path) -> list[ConcatAndChunkInstanceSource]:
    files = order.files.files
    return [
        ConcatAndChunkInstanceSource(
            NumpyDocumentSource(
                source_paths=[file.path], tokenizer=tokenizer, dtype=DTYPES[file.dtype], work_dir=folder
            ),
            sequence_length=order.sequence_length,
            max_sequence_length=order.max_target_sequence_length,
            work_dir=folder,
        )
        for file in files
    ]


def _index_folder(job: Job, order: DataOrder) -> Path:
    """Where OLMo-core keeps the index of an epoch: beside the plan's, for all jobs, or with the job."""
    cache = getattr(order, "cache", None)
    return (cache or job.live) / "olmo_core"


def _demand(there: bool, key: str, value: object, more: str) -> None:
    if not there:
        problem = f"needs OLMo-core's own order over whole files without headers {more}".rstrip()
        raise UserError(problem, key=f"training.args.{key}", value=value, fix="leave it out")
