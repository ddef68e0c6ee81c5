"""Planned noise on embeddings, as a worker finds it in the overlay: made again from (seed, slot, column)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pretrain_exp.plan.overlay import Overlay, noise_values


@dataclass(frozen=True)
class Noise:
    """Gaussian noise on the embeddings of one span."""

    row: int  # of this rank
    column: int
    length: int
    sigma: float
    key: tuple[int, int]  # seed of the plan, slot

    def values(self, dim: int) -> np.ndarray:
        """(length, dim) float32; the same for any ranks and micro-batches."""
        return self.sigma * noise_values(*self.key, self.column, self.length, dim)


def planned_noise(overlay: Overlay | None, slots: Iterable[int]) -> tuple[Noise, ...]:
    """The noise of the rows that read these slots, row by row."""
    if overlay is None:
        return ()
    return tuple(
        Noise(row, *span, (overlay.seed, slot))
        for row, slot in enumerate(slots)
        if overlay.touches(slot)
        for span in overlay.noise(slot)
    )


def noise_of_rows(noise: Iterable[Noise], rows: slice, shape: tuple[int, int, int]) -> np.ndarray | None:
    """The noise on rows [start, stop) of a rank's batch, float32 of this shape (B, S, D); None where there is none."""
    spans = [span for span in noise if rows.start <= span.row < rows.stop]
    if not spans:
        return None
    total = np.zeros(shape, dtype=np.float32)
    for span in spans:
        total[span.row - rows.start, span.column : span.column + span.length] += span.values(shape[2])
    return total
