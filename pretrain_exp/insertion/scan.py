"""Reading the data once: the rows of some slots in, whatever a search finds in them out, kept by content.

    slots --order.read--> chunks of rows (k, S) --find, in threads--> columns of findings --> one table, cached

    <cache>/scan-<key>.npz     key: data order, slots, and all that the search depends on

`find_runs` is the search that removal and scans for holdouts need: every place where one of many token runs occurs.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from pretrain_exp.data.order import DataOrder
from pretrain_exp.data.progress import progress_bar
from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.search import RunSearch
from pretrain_exp.store.keys import digest

Find = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
_CHUNK_TOKENS = 1 << 20


@dataclass(frozen=True)
class Runs:
    """Where token runs occur: run `run[i]` begins at column[i] of slot[i]; each int64 (n,), by slot and column."""

    run: np.ndarray
    slot: np.ndarray
    column: np.ndarray


def scan(order: DataOrder, slots: range, identity: Any, find: Find, cache: Path | None = None) -> dict[str, np.ndarray]:
    """Everything that `find` finds in the rows of the slots before any edit: columns, in the order of the slots.

    find: rows uint32 (k, S) and their slots int64 (k,) -> columns of findings, the same names each time, also where
    nothing is found; several threads call it at once. identity: JSON of all that it depends on, its version included.
    cache: folder in which the result is kept and found again.
    """
    key = digest([order.fingerprint(), slots.start, slots.stop, slots.step, identity])
    path = None if cache is None else Path(cache) / f"scan-{key}.npz"
    if path is not None and path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            return dict(kept)
    found = searched(order, slots, find, progress=True)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.npz")
        try:
            np.savez(temporary, allow_pickle=False, **found)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return found


def find_runs(order: DataOrder, slots: range, runs: Sequence[np.ndarray], cache: Path | None = None) -> Runs:
    """Every place in the slots where one of the token runs stands whole, in one sequence. Equal runs each count.

    runs: uint32 (n_i,), none empty (ValueError).
    """
    if not all(len(run) for run in runs):
        raise ValueError("an empty run occurs everywhere")
    names = blake2b(b"".join(row_digest(run) for run in runs), digest_size=16).hexdigest()
    found = scan(order, slots, ["runs", 1, names], RunSearch(runs), cache)
    return Runs(found["run"], found["slot"], found["column"])


def searched(
    order: DataOrder, slots: Sequence[int] | np.ndarray, find: Find, threads: int | None = None, progress: bool = False
) -> dict[str, np.ndarray]:
    """What `find` finds in the rows of the slots, in their order. One thread reads, `threads` search (None: as many as
    there are cores): NumPy lets them run side by side."""
    threads = len(os.sched_getaffinity(0)) if threads is None else threads
    size = max(1, _CHUNK_TOKENS // order.sequence_length)
    chunks = (slots[low : low + size] for low in range(0, max(len(slots), 1), size))
    parts: list[dict[str, np.ndarray]] = []
    waiting: deque[Future[dict[str, np.ndarray]]] = deque()
    bar = progress_bar("reading the data of the run", len(slots), "sequences", progress and sys.stderr.isatty())
    with bar as advance, ThreadPoolExecutor(threads, "scan") as pool:
        for chunk in chunks:
            rows = np.empty((len(chunk), order.sequence_length), dtype=np.uint32)
            for i, slot in enumerate(chunk):
                rows[i] = order.read(int(slot))
            waiting.append(pool.submit(find, rows, np.array(chunk, dtype=np.int64)))
            if len(waiting) > threads or not parts:  # the first alone: what a search makes once is then there
                parts.append(waiting.popleft().result())
            advance(len(chunk))
        parts += [each.result() for each in waiting]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
