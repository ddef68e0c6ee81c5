"""Digests of rows: what a worker logs for each row that it consumed, and what the proof recomputes.

In: the tokens of one row, after the edits. Out: 16 bytes, and the record under which a worker stores them. NumPy only.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

READS_DTYPE = np.dtype([("step", "<i4"), ("row", "<i4"), ("slot", "<i8"), ("digest", "V16")])
"""One row that was read: step (0-based), row in the step's whole batch (over all ranks), slot, digest of its tokens."""


def row_digest(tokens: np.ndarray) -> bytes:
    """16 bytes: blake2b-128 of the tokens as little-endian uint32, whatever integer type they came in."""
    return blake2b(np.ascontiguousarray(tokens, dtype="<u4").data, digest_size=16).digest()
