"""Edits cut where sequences end: positions and lengths in, one piece for each sequence that an edit touches out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pretrain_exp.data.phases import Phases


@dataclass(frozen=True)
class Pieces:
    """Edits cut where sequences end. row: which edit; offset: tokens of it that lie in earlier pieces; (m,) each."""

    row: np.ndarray
    slot: np.ndarray
    column: np.ndarray
    length: np.ndarray
    offset: np.ndarray

    def take(self, which: np.ndarray) -> Pieces:
        """Those of the mask or the indices."""
        return Pieces(self.row[which], self.slot[which], self.column[which], self.length[which], self.offset[which])


def split_at_sequences(position: np.ndarray, length: np.ndarray, phases: Phases) -> Pieces:
    """The pieces of edits at global positions, one for each sequence that an edit touches, ordered by edit."""
    row = np.arange(len(position))
    offset = np.zeros(len(position), dtype=np.int64)
    parts: list[tuple[np.ndarray, ...]] = []
    while len(row) or not parts:
        at = position[row] + offset
        slot, column = phases.locate(at)
        room = phases.position(slot + 1, np.zeros_like(slot)) - at
        part = np.minimum(length[row] - offset, room)
        parts.append((row, slot, column, part, offset))
        offset = offset + part
        row, offset = row[offset < length[row]], offset[offset < length[row]]
    if len(parts) == 1:  # no edit crosses a sequence
        return Pieces(*parts[0])
    found = Pieces(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    return found.take(np.lexsort((found.offset, found.row)))
