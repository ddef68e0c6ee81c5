"""The pool of the tokens that a plan plants: runs of tokens in, the slices of all of them in a row out.

The runs stay where their owners hold them. An array of tokens is a pool as well: what takes one asks for nothing but
its length and its slices.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_BLOCK = 1 << 20  # tokens written at once: 4 MB


class Pool:
    """Runs of tokens in a row, none of them copied; `len` is the number of tokens."""

    def __init__(self, runs: Sequence[np.ndarray]) -> None:
        self._runs = [run for run in runs if len(run)]
        self._edges = memoryview(np.cumsum([0] + [len(run) for run in self._runs], dtype=np.int64).data)

    def __len__(self) -> int:
        return self._edges[-1]

    def __getitem__(self, where: slice) -> np.ndarray:
        """The tokens [start, stop), uint32: a view where they lie in one run."""
        start, stop, _ = where.indices(len(self))
        parts = [np.zeros(0, dtype=np.uint32)]
        i = bisect_right(self._edges, start) - 1
        while start < stop:
            begin, end = self._edges[i], min(self._edges[i + 1], stop)
            parts.append(np.asarray(self._runs[i][start - begin : end - begin], dtype=np.uint32))
            start, i = end, i + 1
        return parts[1] if len(parts) == 2 else np.concatenate(parts)


def write_pool(pool: np.ndarray | Pool, path: Path) -> None:
    """Writes the tokens as a .npy file of little-endian uint32, block by block."""
    header = {"descr": "<u4", "fortran_order": False, "shape": (len(pool),)}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for low in range(0, len(pool), _BLOCK):
            file.write(np.ascontiguousarray(pool[low : low + _BLOCK], dtype="<u4").data)
