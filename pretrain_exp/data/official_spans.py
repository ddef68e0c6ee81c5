"""Which bytes of which token files some slots read: a data order and slots in, spans by path out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from pretrain_exp.data.order import DataOrder
from pretrain_exp.data.token_files import DTYPES
from pretrain_exp.store.spans import Span, join


def spans_of(order: DataOrder, slots: Iterable[int]) -> dict[str, list[Span]]:
    """The bytes [start, stop) of each file that hold the tokens of the slots, joined, by the file's path."""
    files = order.files
    found: dict[str, list[Span]] = defaultdict(list)
    for slot in slots:
        at = order.stream_offset(slot, 0)
        left = order.sequence_length
        while left:
            index, start = files.locate(at)
            file = files.files[index]
            count = min(left, file.num_tokens - start)
            size = np.dtype(DTYPES[file.dtype]).itemsize
            found[file.path].append((file.offset_bytes + start * size, file.offset_bytes + (start + count) * size))
            at, left = at + count, left - count
    return {path: join(spans) for path, spans in found.items()}
