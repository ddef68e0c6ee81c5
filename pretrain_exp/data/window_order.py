"""A data order whose window reads its own sequences in another order: the same data at other steps of the run.

    slot s outside [first, last)    what the inner order reads at s
    slot s inside                   what the inner order reads at first + P(s - first)

P is `data.permutation.Permutation(last - first, seed, 0)`. So runs that continue an official checkpoint in its official
order may differ in the order of what they read, and in nothing else. NumPy only: every worker can import it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from pretrain_exp.data.order import DataOrder, Source
from pretrain_exp.data.permutation import Permutation


class WindowOrder:
    """Slots [first_slot, last_slot) of `order` permuted among themselves by `seed`."""

    def __init__(self, order: DataOrder, first_slot: int, last_slot: int, seed: int) -> None:
        if not 0 <= first_slot < last_slot:
            raise ValueError(f"a window holds at least one slot, got [{first_slot}, {last_slot})")
        self.order, self.files = order, order.files
        self.first_slot, self.last_slot, self.seed = first_slot, last_slot, seed
        self.sequence_length, self.num_sequences = order.sequence_length, order.num_sequences
        self._permutation = Permutation(last_slot - first_slot, seed, 0)

    @property
    def remainder(self) -> int:
        """Tokens that the inner order leaves out of every epoch."""
        return getattr(self.order, "remainder", 0)

    def inner_slot(self, slot: int) -> int:
        """The slot of the inner order that is read at `slot`."""
        if not self.first_slot <= slot < self.last_slot:
            return slot
        return self.first_slot + self._permutation(slot - self.first_slot)

    def read(self, slot: int) -> np.ndarray:
        """The tokens of a slot before any edit, a fresh uint32 array (sequence_length,)."""
        return self.order.read(self.inner_slot(slot))

    def source(self, slot: int, column: int) -> Source:
        """Where the token at (slot, column) comes from."""
        return self.order.source(self.inner_slot(slot), column)

    def stream_offset(self, slot: int, column: int) -> int:
        """The offset, in the stream of all token files, of the token at (slot, column)."""
        return self.order.stream_offset(self.inner_slot(slot), column)

    def positions_of(
        self, token_start: int, token_stop: int, first_slot: int, last_slot: int
    ) -> list[tuple[int, int, int]]:
        """The (slot, column, length) of slots [first_slot, last_slot) that read tokens [token_start, token_stop)."""
        low, high = min(max(first_slot, self.first_slot), last_slot), max(min(last_slot, self.last_slot), first_slot)
        if low >= high:
            return self.order.positions_of(token_start, token_stop, first_slot, last_slot)
        before = self.order.positions_of(token_start, token_stop, first_slot, low)
        after = self.order.positions_of(token_start, token_stop, high, last_slot)
        # what the window reads inside, it reads somewhere inside
        inner = np.array(
            self.order.positions_of(token_start, token_stop, self.first_slot, self.last_slot), dtype=np.int64
        ).reshape(-1, 3)
        inner[:, 0] = self.first_slot + self._permutation.inverse_many(inner[:, 0] - self.first_slot)
        inner = inner[(inner[:, 0] >= low) & (inner[:, 0] < high)]
        inside = [(slot, column, length) for slot, column, length in sorted(inner.tolist())]
        return [*before, *inside, *after]

    def fingerprint(self) -> str:
        """32 hex digits of everything that decides what a slot reads."""
        facts = [self.order.fingerprint(), self.first_slot, self.last_slot, self.seed]
        return hashlib.blake2b(json.dumps(["window", 1, *facts]).encode(), digest_size=16).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """What `order_from_json` needs; paths included, so it is for jobs and never for fingerprints."""
        return {
            "kind": "window",
            "order": self.order.to_json(),
            "first_slot": self.first_slot,
            "last_slot": self.last_slot,
            "seed": self.seed,
        }
