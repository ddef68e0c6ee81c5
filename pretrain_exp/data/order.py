"""Data order: what every slot of a run reads, and where that came from.

In: a stream of tokens (`TokenFiles`), a sequence length S, a seed. Out: the tokens of any slot, their file and document
(and back). Nothing here knows of ranks, workers or restarts: a slot means the
same to all of them.

    stream    | sequence 0 | sequence 1 | ... | sequence N-1 | remainder (never read, and reported)
              sequence j = tokens [j * S, (j + 1) * S) of the stream;  N = number of tokens // S
    slot s    epoch e = s // N;  reads sequence P_e(s - e * N);  without a seed, sequence s - e * N

P_e is `data.permutation.Permutation(N, seed, e)`, whose docstring defines it. NumPy only: every worker can import it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from pretrain_exp.data.permutation import MAX_N, Permutation
from pretrain_exp.data.token_files import TokenFiles
from pretrain_exp.errors import UserError


@dataclass(frozen=True)
class Source:
    """Where one token comes from. The last two are None where the stream does not know its documents."""

    file_name: str
    offset_in_file: int  # tokens
    document_index: int | None  # in the order of the stream
    offset_in_document: int | None  # tokens


class DataOrder(Protocol):
    """What a run reads, slot by slot. Each framework brings its own, or takes `ShuffledOrder`."""

    files: TokenFiles
    sequence_length: int
    num_sequences: int

    def read(self, slot: int) -> np.ndarray:
        """The tokens of a slot before any edit, a fresh uint32 array (sequence_length,)."""
        ...

    def source(self, slot: int, column: int) -> Source:
        """Where the token at (slot, column) comes from."""
        ...

    def stream_offset(self, slot: int, column: int) -> int:
        """The offset, in the stream of all token files, of the token at (slot, column)."""
        ...

    def positions_of(
        self, token_start: int, token_stop: int, first_slot: int, last_slot: int
    ) -> list[tuple[int, int, int]]:
        """The (slot, column, length) of slots [first_slot, last_slot) that read tokens [token_start, token_stop)."""
        ...

    def fingerprint(self) -> str:
        """32 hex digits of everything that decides what a slot reads."""
        ...

    def to_json(self) -> dict[str, Any]:
        """What `order_from_json` needs."""
        ...


class ShuffledOrder:
    """Every whole sequence of the stream once an epoch, in a new seeded order each epoch (seed None: as they stand)."""

    def __init__(self, files: TokenFiles, sequence_length: int, seed: int | None) -> None:
        """UserError if the stream is shorter than one sequence, or the seed is not in [0, 2^64)."""
        if sequence_length < 1:
            raise UserError("the sequence length must be at least 1 token", value=sequence_length)
        if seed is not None and not 0 <= seed < 1 << 64:
            raise UserError("the seed of a data order must be a whole number from 0 to 2**64 - 1", value=seed)
        self.files = files
        self.sequence_length = sequence_length
        self.seed = seed
        self.num_sequences = files.num_tokens // sequence_length
        self.remainder = files.num_tokens - self.num_sequences * sequence_length  # tokens that no slot reads
        if not 1 <= self.num_sequences <= MAX_N:
            raise UserError(
                f"the token stream has {files.num_tokens} tokens, less than one sequence of {sequence_length}",
                fix="give more data, or a shorter sequence length",
            )
        self._documents: np.ndarray | None = None
        self._latest: tuple[int, Permutation | None] = (-1, None)  # one value: loaders read in several threads

    def permutation(self, epoch: int) -> Permutation | None:
        """P_epoch; None where the order is sequential."""
        latest = self._latest
        if epoch != latest[0]:
            found = None if self.seed is None else _permutation(self.num_sequences, self.seed, epoch)
            latest = self._latest = (epoch, found)
        return latest[1]

    def sequence(self, slot: int) -> int:
        """Which sequence of the stream a slot reads, in [0, num_sequences)."""
        if slot < 0:
            raise IndexError(f"slots are counted from 0, got {slot}")
        epoch, index = divmod(slot, self.num_sequences)
        permutation = self.permutation(epoch)
        return index if permutation is None else permutation(index)

    def sequences(self, slots: np.ndarray) -> np.ndarray:
        """Which sequence each slot reads: int64 (n,) -> int64 (n,)."""
        slots = np.asarray(slots, dtype=np.int64)
        if slots.size and slots.min() < 0:
            raise IndexError(f"slots are counted from 0, got {slots.min()}")
        epochs, indices = np.divmod(slots, self.num_sequences)
        if self.seed is not None:
            for epoch in np.unique(epochs):
                chosen = epochs == epoch
                indices[chosen] = _permutation(self.num_sequences, self.seed, int(epoch)).many(indices[chosen])
        return indices

    def slots_of(self, sequences: np.ndarray, epoch: int) -> np.ndarray:
        """Which slot of an epoch reads each sequence: int64 (n,) in [0, num_sequences) -> int64 (n,)."""
        permutation = self.permutation(epoch)
        sequences = np.asarray(sequences, dtype=np.int64)
        indices = sequences if permutation is None else permutation.inverse_many(sequences)
        return indices + epoch * self.num_sequences

    def read(self, slot: int) -> np.ndarray:
        """The tokens of a slot before any edit, a fresh uint32 array (sequence_length,)."""
        start = self.sequence(slot) * self.sequence_length
        return self.files.read(start, start + self.sequence_length)

    def source(self, slot: int, column: int) -> Source:
        """Where the token at (slot, column) comes from."""
        offset = self.stream_offset(slot, column)
        index, offset_in_file = self.files.locate(offset)
        documents = self._document_starts()
        if documents is None:
            return Source(self.files.files[index].name, offset_in_file, None, None)
        document = int(np.searchsorted(documents, offset, side="right")) - 1
        return Source(self.files.files[index].name, offset_in_file, document, offset - int(documents[document]))

    def stream_offset(self, slot: int, column: int) -> int:
        """The offset in the stream of the token at (slot, column)."""
        if not 0 <= column < self.sequence_length:
            raise IndexError(f"column {column} lies outside a sequence of {self.sequence_length} tokens")
        return self.sequence(slot) * self.sequence_length + column

    def positions_of(
        self, token_start: int, token_stop: int, first_slot: int, last_slot: int
    ) -> list[tuple[int, int, int]]:
        """The (slot, column, length) of slots [first_slot, last_slot) that read tokens [token_start, token_stop).

        Sorted by slot. Token offsets are the stream's; every epoch that the window touches counts. No slot reads the
        remainder.
        """
        if not 0 <= token_start <= token_stop <= self.files.num_tokens:
            raise IndexError(f"tokens [{token_start}, {token_stop}) lie outside the stream of {self.files.num_tokens}")
        length, total = self.sequence_length, self.num_sequences
        token_stop = min(token_stop, total * length)
        if token_start >= token_stop or first_slot >= last_slot:
            return []
        sequences = np.arange(token_start // length, (token_stop - 1) // length + 1, dtype=np.int64)
        begins = np.maximum(sequences * length, token_start)
        lengths = np.minimum((sequences + 1) * length, token_stop) - begins
        columns = begins - sequences * length
        found: list[tuple[int, int, int]] = []
        for epoch in range(first_slot // total, (last_slot - 1) // total + 1):
            slots = self.slots_of(sequences, epoch)
            inside = np.flatnonzero((slots >= first_slot) & (slots < last_slot))
            inside = inside[np.argsort(slots[inside])]
            found += zip(slots[inside].tolist(), columns[inside].tolist(), lengths[inside].tolist(), strict=True)
        return found

    def _document_starts(self) -> np.ndarray | None:
        if self._documents is None and self.files.documents is not None:
            self._documents = np.load(self.files.documents, mmap_mode="r", allow_pickle=False)
        return self._documents

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_documents": None}  # each process maps it for itself

    def fingerprint(self) -> str:
        """32 hex digits of everything that decides what a slot reads: the stream, the sequence length, the seed."""
        text = json.dumps(["shuffled", 1, self.files.fingerprint(), self.sequence_length, self.seed])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """What `order_from_json` needs; paths included, so it is for jobs and never for fingerprints."""
        return {
            "kind": "shuffled",
            "files": self.files.to_json(),
            "sequence_length": self.sequence_length,
            "seed": self.seed,
        }


@lru_cache(maxsize=16)
def _permutation(n: int, seed: int, epoch: int) -> Permutation:
    return Permutation(n, seed, epoch)


def order_from_json(values: dict[str, Any]) -> DataOrder:
    """The data order that `to_json` of any kind wrote; UserError for a kind that this version does not know."""
    if values["kind"] == "shuffled":
        return ShuffledOrder(TokenFiles.from_json(values["files"]), values["sequence_length"], values["seed"])
    from pretrain_exp.data.olmo_order import OlmoCoreOrder, OlmoOrder  # which imports this module

    for order in (OlmoOrder, OlmoCoreOrder):
        if values["kind"] == order.kind:
            return order.from_json(values)
    if values["kind"] == "window":
        from pretrain_exp.data.window_order import WindowOrder  # likewise

        inner = order_from_json(values["order"])
        return WindowOrder(inner, values["first_slot"], values["last_slot"], values["seed"])
    raise UserError(
        "unknown kind of data order", value=values["kind"], fix="known kinds: shuffled, olmo2, olmo_core, window"
    )
