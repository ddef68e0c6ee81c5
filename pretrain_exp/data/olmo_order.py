"""The data orders of ai2-olmo and OLMo-core: which instance of the token files every slot of their runs reads.

    file       | instance 0 | instance 1 | ... | remainder      each file begins anew; its remainder is never read
    instances  all files' in order, N of them: instance i holds S tokens
    epoch e    a seeded shuffle of N instances (or of their chunks), cut to N // G * G: whole batches of G
    slot       epoch * (N // G * G) + place in the epoch

    kind       shuffled                        generator                           instances of a file of n tokens
    olmo2      instances                       PCG64(seed + e), e = 0, 1, ...      n // S
    olmo_core  chunks of c instances in a row  PCG64(seed + e), e = 1, 2, ...      n // (c S) * c

with c = max_target_sequence_length / S. Sources: `olmo.data.IterableDataset` and `MemMapDataset` of ai2-olmo 0.6.0;
`NumpyFSLDataLoader` and `NumpyFSLDataset` of ai2-olmo-core 3.0.0. Both shuffle an array of uint32 in memory; that of a
large epoch is kept as a file of raw uint32 and mapped by all who read it. NumPy only: every worker can import it.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from pretrain_exp.data.order import Source
from pretrain_exp.data.token_files import TokenFiles
from pretrain_exp.errors import UserError
from pretrain_exp.store.publish import beside

LARGE = 1 << 20  # entries from which an epoch's index is kept as a file: it takes a few milliseconds to make below


class OlmoOrder:
    """The order of ai2-olmo, `kind: olmo2`.

    batch_size: sequences, over all ranks. seed: ai2-olmo's `data.seed` or, where that is null, its `seed`.
    cache: where the index of a large epoch is kept; None: made in memory by every process.
    """

    kind: ClassVar[str] = "olmo2"
    first_epoch: ClassVar[int] = 0
    chunk: int = 1  # instances in a row that stay together

    def __init__(
        self, files: TokenFiles, sequence_length: int, batch_size: int, seed: int, cache: Path | str | None = None
    ) -> None:
        """UserError where the files hold less than one batch, or more instances than their index can count."""
        if sequence_length < 1 or batch_size < 1 or seed < 0:
            raise UserError(
                "a data order needs a sequence length and a batch size of at least 1 and a seed of at least 0",
                value=[sequence_length, batch_size, seed],
            )
        self.files, self.sequence_length, self.batch_size, self.seed = files, sequence_length, batch_size, seed
        self.cache = None if cache is None else Path(cache)
        unit = sequence_length * self.chunk
        counts = [file.num_tokens // unit * self.chunk for file in files.files]
        self._first_instance = [0, *accumulate(counts)]  # of each file, then their number
        self._first_token = [0, *accumulate(file.num_tokens for file in files.files)]
        self.num_instances = self._first_instance[-1]
        self.num_sequences = self.num_instances // batch_size * batch_size  # slots of an epoch
        if not self.num_sequences:
            raise UserError(
                f"the {len(files.files)} token files hold {self.num_instances} whole sequences of {sequence_length} "
                f"tokens ({self.kind} begins each file anew), less than one batch of {batch_size}",
                fix="give more data, shorter sequences or a smaller batch",
            )
        if self.num_instances >= np.iinfo(np.uint32).max:
            raise UserError(f"{self.num_instances:,} sequences are more than {self.kind} counts in 32 bits")
        self._documents: np.ndarray | None = None
        self._window: tuple[tuple[int, int], np.ndarray, np.ndarray] | None = None
        self._epoch: tuple[int, np.ndarray] | None = None  # the first slot of the one in use, and its chunks

    def prepare(self, first_slot: int, last_slot: int) -> None:
        """Makes the index of each epoch that slots [first_slot, last_slot) lie in, for all who share `cache`."""
        for epoch in range(first_slot // self.num_sequences, max(last_slot - 1, first_slot) // self.num_sequences + 1):
            self._chunks(epoch * self.num_sequences)

    def sequence(self, slot: int) -> int:
        """Which instance of the files a slot reads, in [0, num_instances)."""
        known = self._epoch  # looked at here and not in a call: a loader asks for each item, within a microsecond
        if known is None or not 0 <= slot - known[0] < self.num_sequences:
            known = self._chunks(slot)
        if self.chunk == 1:
            return known[1].item(slot - known[0])
        chunk, inside = divmod(slot - known[0], self.chunk)
        return known[1].item(chunk) * self.chunk + inside

    def sequences(self, slots: np.ndarray) -> np.ndarray:
        """Which instance each slot reads: int64 (n,) -> int64 (n,)."""
        slots = np.asarray(slots, dtype=np.int64)
        if slots.size and slots.min() < 0:
            raise IndexError(f"slots are counted from 0, got {slots.min()}")
        epochs, places = np.divmod(slots, self.num_sequences)
        chunks, inside = np.divmod(places, self.chunk)
        found = np.empty_like(slots)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            _, shuffled = self._chunks(int(epoch) * self.num_sequences)
            found[here] = shuffled[chunks[here]].astype(np.int64) * self.chunk + inside[here]
        return found

    def read(self, slot: int) -> np.ndarray:
        """The tokens of a slot before any edit, a fresh uint32 array (sequence_length,)."""
        start = self._start(self.sequence(slot))
        return self.files.read(start, start + self.sequence_length)

    def source(self, slot: int, column: int) -> Source:
        """Where the token at (slot, column) comes from."""
        offset = self.stream_offset(slot, column)
        index, offset_in_file = self.files.locate(offset)
        name = self.files.files[index].name
        if self.files.documents is None:
            return Source(name, offset_in_file, None, None)
        if self._documents is None:
            self._documents = np.load(self.files.documents, mmap_mode="r", allow_pickle=False)
        document = int(np.searchsorted(self._documents, offset, side="right")) - 1
        return Source(name, offset_in_file, document, offset - int(self._documents[document]))

    def stream_offset(self, slot: int, column: int) -> int:
        """The offset, in the stream of all token files, of the token at (slot, column)."""
        if not 0 <= column < self.sequence_length:
            raise IndexError(f"column {column} lies outside a sequence of {self.sequence_length} tokens")
        return self._start(self.sequence(slot)) + column

    def positions_of(
        self, token_start: int, token_stop: int, first_slot: int, last_slot: int
    ) -> list[tuple[int, int, int]]:
        """The (slot, column, length) of slots [first_slot, last_slot) that read tokens [token_start, token_stop).

        Sorted by slot. Offsets are the stream's. Nothing where only remainders of files, or sequences that the window's
        epochs leave out, hold them. The first question about a window sorts its slots; others are looked up.
        """
        if not 0 <= token_start <= token_stop <= self.files.num_tokens:
            raise IndexError(f"tokens [{token_start}, {token_stop}) lie outside the stream of {self.files.num_tokens}")
        if token_start == token_stop or first_slot >= last_slot:
            return []
        read, slots = self._read_in(first_slot, last_slot)
        found = []
        for first, last in self._instances_in(token_start, token_stop):
            low, high = np.searchsorted(read, [first, last])
            for instance, slot in zip(read[low:high].tolist(), slots[low:high].tolist(), strict=True):
                start = self._start(instance)
                begin, end = max(start, token_start), min(start + self.sequence_length, token_stop)
                found.append((slot, begin - start, end - begin))
        return sorted(found)

    def fingerprint(self) -> str:
        """32 hex digits of everything that decides what a slot reads."""
        text = json.dumps([self.kind, 1, self.files.fingerprint(), *self._facts().values()])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """What `order_from_json` needs; paths included, so it is for jobs and never for fingerprints."""
        cache = None if self.cache is None else str(self.cache)
        return {"kind": self.kind, "files": self.files.to_json(), **self._facts(), "cache": cache}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The order that `to_json` wrote."""
        fields = {name: value for name, value in values.items() if name not in ("kind", "files")}
        return cls(TokenFiles.from_json(values["files"]), **fields)

    def _facts(self) -> dict[str, int]:
        return {"sequence_length": self.sequence_length, "batch_size": self.batch_size, "seed": self.seed}

    def _chunks(self, slot: int) -> tuple[int, np.ndarray]:
        """The first slot of the epoch that a slot lies in, and the epoch's chunks in order: uint32, counted from 0."""
        if slot < 0:
            raise IndexError(f"slots are counted from 0, got {slot}")
        epoch = slot // self.num_sequences
        known = self._epoch
        if known is None or known[0] != epoch * self.num_sequences:
            found = _shuffled(self.num_instances // self.chunk, self.seed + self.first_epoch + epoch, self.cache)
            known = self._epoch = epoch * self.num_sequences, found
        return known

    def _start(self, instance: int) -> int:
        """The stream's offset of an instance's first token."""
        file = bisect_right(self._first_instance, instance) - 1
        return self._first_token[file] + (instance - self._first_instance[file]) * self.sequence_length

    def _instances_in(self, token_start: int, token_stop: int) -> list[tuple[int, int]]:
        """Ranges of instances that hold tokens [token_start, token_stop), one for each file that has some."""
        found = []
        file = bisect_right(self._first_token, token_start) - 1
        while file < len(self.files.files) and self._first_token[file] < token_stop:
            base, instances = self._first_token[file], self._first_instance[file]
            first = instances + max(token_start - base, 0) // self.sequence_length
            last = min(self._first_instance[file + 1], instances - (base - token_stop) // self.sequence_length)
            if first < last:
                found.append((first, last))
            file += 1
        return found

    def _read_in(self, first_slot: int, last_slot: int) -> tuple[np.ndarray, np.ndarray]:
        """The instances that a window reads, sorted, and the slot of each; kept for the next question."""
        window = self._window
        if window is None or window[0] != (first_slot, last_slot):
            slots = np.arange(first_slot, last_slot, dtype=np.int64)
            read = self.sequences(slots)
            by_instance = np.argsort(read, kind="stable")
            window = self._window = (first_slot, last_slot), read[by_instance], slots[by_instance]
        return window[1], window[2]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {
            "_documents": None,
            "_window": None,
            "_epoch": None,
        }  # each process maps files for itself


class OlmoCoreOrder(OlmoOrder):
    """The order of OLMo-core's `NumpyFSLDataset`, `kind: olmo_core`. seed: its data loader's.

    max_target_sequence_length: a multiple of the sequence length; None: the sequence length itself.
    """

    kind: ClassVar[str] = "olmo_core"
    first_epoch: ClassVar[int] = 1

    def __init__(
        self,
        files: TokenFiles,
        sequence_length: int,
        batch_size: int,
        seed: int,
        cache: Path | str | None = None,
        max_target_sequence_length: int | None = None,
    ) -> None:
        """UserError as in `OlmoOrder`, and where max_target_sequence_length is no multiple of the sequence length."""
        self.max_target_sequence_length = max_target_sequence_length or sequence_length
        if self.max_target_sequence_length % max(1, sequence_length):
            raise UserError(
                f"max_target_sequence_length must be a multiple of the sequence length, {sequence_length}",
                value=max_target_sequence_length,
            )
        self.chunk = self.max_target_sequence_length // max(1, sequence_length)
        super().__init__(files, sequence_length, batch_size, seed, cache)

    def _facts(self) -> dict[str, int]:
        return {**super()._facts(), "max_target_sequence_length": self.max_target_sequence_length}


@lru_cache(maxsize=4)
def _shuffled(n: int, seed: int, cache: Path | None) -> np.ndarray:
    """uint32 (n,): 0 ... n - 1 as both frameworks shuffle them; from `cache` where it is large."""
    path = None if cache is None or n < LARGE else cache / f"pcg64-{n}-{seed}.u32"
    if path is not None and path.is_file() and path.stat().st_size == 4 * n:
        return _mapped(path)
    indices = np.arange(n, dtype=np.uint32)
    np.random.Generator(np.random.PCG64(seed=seed)).shuffle(indices)
    if path is None:
        return indices
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = beside(path)
    indices.astype("<u4", copy=False).tofile(writing)
    os.replace(writing, path)
    return _mapped(path)


def _mapped(path: Path) -> np.ndarray:
    return np.memmap(path, dtype="<u4", mode="r").view(np.ndarray)  # indexing np.memmap itself costs a microsecond more
