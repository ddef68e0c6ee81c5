"""What a worker logs of each row that it consumed, and what the proof recomputes.

In: the tokens of one row, after the edits. Out: 16 bytes, and the records under which a worker stores them and the
noise on embeddings. NumPy only.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

READS_DTYPE = np.dtype([("step", "<i4"), ("row", "<i4"), ("slot", "<i8"), ("digest", "V16")])
"""One row that was read: step (0-based), row in the step's whole batch (over all ranks), slot, digest of its tokens."""

NOISE_DTYPE = np.dtype(
    [("step", "<i4"), ("row", "<i4"), ("slot", "<i8"), ("column", "<i4"), ("length", "<i4"), ("sigma", "<f4"),
     ("seed", "<i8")]
)  # fmt: skip
"""One span whose embeddings got noise, of scale sigma and keyed by seed, slot and column (`overlay.noise_values`)."""


def row_digest(tokens: np.ndarray) -> bytes:
    """16 bytes: blake2b-128 of the tokens as little-endian uint32, whatever integer type they came in."""
    return blake2b(np.ascontiguousarray(tokens, dtype="<u4").data, digest_size=16).digest()
