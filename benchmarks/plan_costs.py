"""What a plan costs, beside a plain re-implementation of the usual way, as ratios measured in one run.

    python benchmarks/plan_costs.py            10 k and 100 k edits, within a minute
    python benchmarks/plan_costs.py --full     and 1 M
    python benchmarks/plan_costs.py --distinct 1000000     so many items, each planted once: ours alone

The usual way: one shared random stream, draws rejected against a tree of intervals, a dict of lists of tokens by
sequence, pickled, and unpickled by every rank. Each side runs in a process of its own, one after the other. The run has
steps of 512 x 4,096 tokens, 4e12 in all; texts have 100-500 tokens, each of 10 k distinct items planted equally often.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pickle
import resource
import tempfile
import time
from bisect import bisect_left, insort
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import EditItem, Edits, Window
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.overlay import Overlay
from pretrain_exp.plan.placement import place

S, BATCH, TOKENS, ITEMS = 4096, 512, 4_000_000_000_000, 10_000
PHASES = Phases([Phase(0, BATCH, S)])
WINDOW = Window(0, TOKENS // (BATCH * S))
PROBES = 20_000  # sequences read for the cost of one read
POOLED = 500_000  # from this many edits on the usual way shares the lists of one item, else it needs 36 bytes a token
Numbers = dict[str, float]


def items(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 100_000, length, dtype=np.uint32) for length in generator.integers(100, 501, count)]


def request(count: int, distinct: int = ITEMS) -> Edits:
    """`count` edits; fewer than one of each item: that many items."""
    texts, copies = items(distinct)[:count], max(count // distinct, 1)
    entries = [EditItem(f"item{i}", tokens, dose=copies) for i, tokens in enumerate(texts)]
    item = np.repeat(np.arange(len(texts), dtype=np.int32), copies)
    copy = np.tile(np.arange(copies, dtype=np.int32), len(texts))
    return Edits("bench", entries, item, copy, "random", (0, WINDOW.last_step * BATCH * S))


def timed(what: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    value = what()
    return time.perf_counter() - start, value


def peak() -> float:
    """Peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def private() -> float:
    """Memory that this process shares with nobody, in MB; mapped files do not count, Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def size_of(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 2**20


def read_cost(apply: Callable[[int, np.ndarray], np.ndarray], slots: np.ndarray) -> float:
    """Microseconds for one sequence, the loop's own cost taken off; the best of three passes."""
    row, wanted = np.arange(S, dtype=np.uint32), slots.tolist()
    empty = min(timed(lambda: [None for _ in wanted])[0] for _ in range(3))
    full = min(timed(lambda: [apply(slot, row) is None for slot in wanted])[0] for _ in range(3))
    return 1e6 * (full - empty) / len(wanted)


def probes(edited: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Random sequences of the run, and random ones among the edited."""
    generator = np.random.default_rng(1)
    anywhere = generator.integers(0, WINDOW.last_step * BATCH, PROBES)
    return np.setdiff1d(anywhere, edited), generator.choice(edited, min(PROBES, len(edited)), replace=False)


# ours


def ours_write(count: int, folder: Path) -> Numbers:
    with tempfile.TemporaryDirectory() as other:  # imports are not the plan's cost
        compile_plan([request(200)], PHASES, WINDOW, 0, "treated", other)
    asked, before = request(count), peak()
    placing, _ = timed(lambda: place([asked], PHASES, WINDOW, 0))
    compiling, plan = timed(lambda: compile_plan([asked], PHASES, WINDOW, 0, "treated", folder))
    return {
        "place_s": placing,
        "write_s": compiling - placing,
        "write_mb": peak() - before,
        "disk_mb": size_of(plan.folder),
    }


def ours_read(count: int, folder: Path) -> Numbers:
    plan_folder = next(path for path in folder.iterdir() if path.is_dir())
    untouched, edited = probes(np.unique(Plan.open(plan_folder).overlay.arrays["slot"]))
    before = private()
    opening, overlay = timed(lambda: Overlay.open(plan_folder / "overlay"))
    costs = {"untouched_us": read_cost(overlay.apply, untouched), "edited_us": read_cost(overlay.apply, edited)}
    return costs | {"open_s": opening, "rank_mb": max(private() - before, 0.0)}


# the usual way


class Intervals:
    """Disjoint intervals in sorted blocks: what an interval tree does, with less Python for each step of it."""

    BLOCK = 1000

    def __init__(self) -> None:
        self.blocks: list[list[tuple[int, int]]] = [[]]
        self.firsts = [-1]

    def add(self, start: int, stop: int) -> bool:
        """Takes the interval unless it meets a taken one."""
        at = max(bisect_left(self.firsts, start + 1) - 1, 0)
        block = self.blocks[at]
        i = bisect_left(block, (start, 0))
        before = block[i - 1] if i else (self.blocks[at - 1][-1] if at else (-1, -1))
        if i < len(block):
            after = block[i][0]
        else:
            after = self.blocks[at + 1][0][0] if at + 1 < len(self.blocks) else stop
        if before[1] > start or after < stop:
            return False
        insort(block, (start, stop))
        if len(block) > self.BLOCK:
            half = len(block) // 2
            self.blocks[at : at + 1] = [block[:half], block[half:]]
            self.firsts.insert(at + 1, block[half][0])
        return True


def usual_place(texts: list[list[int]]) -> list[int]:
    generator, intervals, positions = np.random.default_rng(0), Intervals(), []
    for tokens in texts:
        while True:
            sequence = int(generator.integers(0, WINDOW.last_step * BATCH))
            position = sequence * S + int(generator.integers(0, S - len(tokens) + 1))
            if intervals.add(position, position + len(tokens)):
                positions.append(position)
                break
    return positions


def usual_write(count: int, folder: Path) -> Numbers:
    asked, before = request(count), peak()
    shared = [item.tokens.tolist() for item in asked.items]
    texts = [shared[i] if count >= POOLED else list(map(int, asked.items[i].tokens)) for i in asked.item]
    placing, positions = timed(lambda: usual_place(texts))

    def write() -> None:
        by_sequence: dict[int, list[tuple[int, list[int]]]] = {}
        for position, tokens in zip(positions, texts, strict=True):
            sequence, offset = divmod(position, S)
            by_sequence.setdefault(sequence, []).append((offset, tokens))
        with open(folder / "edits.pkl", "wb") as file:
            pickle.dump(by_sequence, file)

    writing, _ = timed(write)
    mb = peak() - before
    return {"place_s": placing, "write_s": writing, "write_mb": mb, "disk_mb": size_of(folder / "edits.pkl")}


def usual_read(count: int, folder: Path) -> Numbers:
    before = private()

    def load() -> dict[int, list[tuple[int, list[int]]]]:
        with open(folder / "edits.pkl", "rb") as file:
            return pickle.load(file)

    opening, by_sequence = timed(load)
    rank = private() - before

    def apply(slot: int, row: np.ndarray) -> np.ndarray:
        edits = by_sequence.get(slot)
        if edits is None:
            return row
        row = row.copy()
        for offset, tokens in edits:
            row[offset : offset + len(tokens)] = tokens
        return row

    untouched, edited = probes(np.array(sorted(by_sequence)))
    out = {"open_s": opening, "rank_mb": rank}
    return out | {"untouched_us": read_cost(apply, untouched), "edited_us": read_cost(apply, edited)}


SIDES = {"ours": (ours_write, ours_read), "usual": (usual_write, usual_read)}
ROWS = [
    ("place_s", "place", "s"),
    ("write_s", "write overlay, ledger, items, audit | pickle", "s"),
    ("write_mb", "memory while planning", "MB"),
    ("disk_mb", "on disk", "MB"),
    ("open_s", "open in one rank", "s"),
    ("rank_mb", "memory of each rank, not shared", "MB"),
    ("untouched_us", "one sequence, untouched", "us"),
    ("edited_us", "one sequence, edited", "us"),
]


def measure(count: int) -> dict[str, Numbers]:
    """Both sides at one size, each step in a fresh process."""
    context = multiprocessing.get_context("spawn")
    out: dict[str, Numbers] = {}
    for side, steps in SIDES.items():
        with tempfile.TemporaryDirectory() as folder:
            found: Numbers = {}
            for step in steps:
                with context.Pool(1) as pool:
                    found |= pool.apply(step, (count, Path(folder)))
            out[side] = found
    return out


def planning(count: int) -> tuple[Numbers, int]:
    """A plan of so many items, each planted once: its costs, and the tokens of the items."""
    with tempfile.TemporaryDirectory() as folder:
        compile_plan([request(200)], PHASES, WINDOW, 0, "treated", Path(folder) / "small")  # imports are not its cost
        asked, before, used = request(count, count), peak(), time.process_time()
        seconds, _ = timed(lambda: compile_plan([asked], PHASES, WINDOW, 0, "treated", folder))
        costs = {"clock_s": seconds, "processor_s": time.process_time() - used, "items_mb": before, "peak_mb": peak()}
        return costs, asked.num_tokens


def show(count: int, sides: dict[str, Numbers]) -> None:
    pooled = ", lists of one item shared by its copies in the usual way" if count >= POOLED else ""
    print(f"\n{count:,} edits of 100-500 tokens from {ITEMS:,} items into a run of 4e12 tokens{pooled}")
    print(f"  {'':46} {'ours':>12} {'usual way':>12} {'ratio':>8}")
    for key, label, unit in ROWS:
        ours, usual = sides["ours"][key], sides["usual"][key]
        ratio = f"{usual / ours:.3g}" if ours > 0 else "-"
        print(f"  {label:46} {ours:>9.4g} {unit:2} {usual:>9.4g} {unit:2} {ratio:>8}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000], help="numbers of edits, x 10,000")
    parser.add_argument("--full", action="store_true", help="1,000,000 edits as well (minutes, some GB)")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--distinct", type=int, help="only this: a plan of so many different items")
    options = parser.parse_args()
    if options.distinct:
        costs, tokens = planning(options.distinct)
        print(f"{options.distinct:,} different items of {tokens / 1e6:.0f} M tokens, planned, audited and written")
        print(f"  {costs['processor_s']:.0f} s of processor time, {costs['clock_s']:.0f} s by the clock")
        print(f"  peak {costs['peak_mb']:.0f} MB, of which {costs['items_mb']:.0f} MB are the items as given")
        return
    sizes = [*options.sizes, 1_000_000] if options.full else options.sizes
    found = {}
    for count in sizes:
        if count < ITEMS or count % ITEMS:
            parser.error(f"sizes must be multiples of {ITEMS:,}, got {count:,}")
        found[count] = measure(count)
        show(count, found[count])
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
