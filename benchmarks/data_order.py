"""Looking up and reading training sequences: a computed order against a materialised one.

Run: python benchmarks/data_order.py. Both ways give a worker the tokens of a slot. Ours computes which sequence a
slot reads (a keyed permutation, O(1) memory); the usual way keeps a shuffled array of all sequence indices (uint32)
and slices a np.memmap. The ratios of one run count; microseconds depend on the machine. The last lines are memory and
start-up time of both at 10^8 sequences.
"""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pretrain_exp.data.order import ShuffledOrder
from pretrain_exp.data.permutation import Permutation
from pretrain_exp.data.token_files import TokenFile, TokenFiles

LENGTH, SEQUENCES = 1024, 50_000  # 205 MB of uint32: in the page cache, so that what is measured is the code
MANY = 10**8
REPEATS, CALLS = 7, 20_000


def microseconds(call: Callable[[int], object], slots: list[int]) -> float:
    """The best of REPEATS, in microseconds a call."""
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        for slot in slots:
            call(slot)
        best = min(best, time.perf_counter() - started)
    return best / len(slots) * 1e6


def start(make: Callable[[], Callable[[int], int]]) -> tuple[float, float]:
    """Seconds until the first slot is known, and the peak of memory in MB."""
    tracemalloc.start()
    started = time.perf_counter()
    make()(12345)
    seconds = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return seconds, peak


def materialised(count: int, seed: int) -> np.ndarray:
    """The usual order: all indices, shuffled by NumPy. uint32 (count,)."""
    indices = np.arange(count, dtype=np.uint32)
    np.random.Generator(np.random.PCG64(seed)).shuffle(indices)
    return indices


def report(name: str, ours: float, usual: float, unit: str) -> None:
    print(f"{name:<44}{ours:>12.3f}{usual:>12.3f} {unit:<4}{ours / usual:>10.4f}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.bin"
        np.arange(LENGTH * SEQUENCES, dtype=np.uint32).tofile(path)
        file = TokenFile(str(path), "uint32", 0, LENGTH * SEQUENCES, "digest", "tokens")
        order = ShuffledOrder(TokenFiles((file,), 0), LENGTH, seed=0)
        indices = materialised(SEQUENCES, 0)
        mapped = np.memmap(path, dtype=np.uint32, mode="r")

        def usual_sequence(slot: int) -> int:
            return int(indices[slot])

        def usual_read(slot: int) -> np.ndarray:
            begin = int(indices[slot]) * LENGTH
            return np.array(mapped[begin : begin + LENGTH])

        slots = np.random.default_rng(1).integers(0, SEQUENCES, CALLS).tolist()
        print(f"{SEQUENCES} sequences of {LENGTH} tokens{'':<10}{'ours':>12}{'usual':>12}{'ratio':>15}")
        lookup = microseconds(order.sequence, slots), microseconds(usual_sequence, slots)
        read = microseconds(order.read, slots), microseconds(usual_read, slots)
        report("slot -> sequence", *lookup, "us")
        report("slot -> tokens (lookup and read)", *read, "us")
        many = np.random.default_rng(1).integers(0, MANY, 10**6)
        permutation = Permutation(MANY, 0, 0)
        started = time.perf_counter()
        permutation.many(many)
        vectorised = time.perf_counter() - started
        ours, usual = start(lambda: Permutation(MANY, 0, 0)), start(lambda: materialised(MANY, 0).item)
        print(f"{MANY:.0e} sequences")
        report("start-up of an epoch, each worker", ours[0], usual[0], "s")
        report("memory of an epoch, each worker", ours[1], usual[1], "MB")
        print(f"{'10^6 slots at once (vectorised)':<44}{vectorised:>12.3f}{'':>12} us a slot")


if __name__ == "__main__":
    main()
