"""Scans of what a run reads, on all cores against one: the search for documents (removal) and for holdouts' n-grams.

python benchmarks/scan.py             32 M tokens in memory
python benchmarks/scan.py --full      256 M tokens
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np

from pretrain_exp.insertion.scan import Find, searched
from pretrain_exp.plan.holdouts import Holdouts
from pretrain_exp.plan.search import RunSearch

S, VOCABULARY = 4096, 50_000


class Rows:
    """A data order that holds its rows in memory."""

    sequence_length = S

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def read(self, slot: int) -> np.ndarray:
        return self.rows[slot]


def seconds(rows: np.ndarray, find: Find, threads: int, findings: int) -> float:
    """The shortest of three scans."""
    took = []
    for _ in range(3):
        start = time.perf_counter()
        found = searched(Rows(rows), range(len(rows)), find, threads)  # type: ignore[arg-type]
        took.append(time.perf_counter() - start)
        assert len(found["slot"]) >= findings
    return min(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    tokens = 1 << (28 if parser.parse_args().full else 25)
    generator = np.random.default_rng(0)
    rows = generator.integers(0, VOCABULARY, (tokens // S, S), dtype=np.uint32)
    documents = [rows[i % len(rows), 100:150].copy() for i in range(1000)]
    held = np.concatenate([documents[0], generator.integers(0, VOCABULARY, 10_000 * 50 - 50, dtype=np.uint32)])
    searches: dict[str, Find] = {
        "1,000 documents": RunSearch(documents),
        "10,000 holdouts": Holdouts(["holdouts"] * 10_000, held, np.arange(10_001, dtype=np.int64) * 50).search,
    }
    cores = len(os.sched_getaffinity(0))
    for name, find in searches.items():
        one, all_of = (seconds(rows, find, threads, 1) for threads in (1, cores))
        rate = f"{tokens / all_of / 1e6:.0f} M tokens/s"
        print(f"scan for {name}: {rate} on {cores} cores, {one / all_of:.2f} times one thread")


if __name__ == "__main__":
    main()
