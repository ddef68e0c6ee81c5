"""Planning of all ten experiments of "Train Once, Answer All" at the paper's scale: time and memory of the whole plan.

    python benchmarks/plan_all_experiments.py                 3.7 B tokens in 210 B
    python benchmarks/plan_all_experiments.py --scale 0.01    a hundredth of the edits

Edits are as many and as long as the paper's (arXiv:2509.23383, table of experiments); their tokens are random numbers
and their lengths the mean of each experiment, so nothing is tokenized or read from a stream. What that costs is timed
apart, as rates: a byte-level BPE of 2,048 tokens on made-up words, and the search of 1,000 documents by removal.
The promise is held against the processor time of all threads, since the clock counts what else the machine does.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import EditItem, Edits, Window
from pretrain_exp.plan.search import RunSearch

S, BATCH, STEPS, VOCABULARY = 4096, 512, 100_000, 100_000
STOP = STEPS * BATCH * S
UNSEEN = (STOP, STOP + (1 << 33))  # what the run does not read: 2 million sequences after its last
SAMPLE = 1 << 24  # tokens searched for the rate of a scan


def texts(name: str, groups: Sequence[tuple[int, int]], length: int, holdout: int = 0) -> Edits:
    """groups: (items, copies of each), one text of `length` tokens an item."""
    counts = np.concatenate([np.full(items, copies) for items, copies in [*groups, (holdout, 0)]]).astype(np.int64)
    generator = np.random.default_rng(sum(name.encode()))
    tokens = generator.integers(0, VOCABULARY, (len(counts), length), dtype=np.uint32)
    items = [EditItem(f"{name}/{i}", run, dose=int(n)) for i, (run, n) in enumerate(zip(tokens, counts, strict=True))]
    first = np.repeat(np.cumsum(counts) - counts, counts)
    copy = (np.arange(counts.sum()) - first).astype(np.int32)
    return Edits(name, items, np.repeat(np.arange(len(counts), dtype=np.int32), counts), copy, span=(0, STOP))


def sequences(name: str, slots: np.ndarray | int, kind: str = "base") -> Edits:
    """Whole sequences, at these slots or so many at random: replaced by unseen ones, or with noise on them."""
    count = slots if isinstance(slots, int) else len(slots)
    rows, fixed = np.arange(count, dtype=np.int32), not isinstance(slots, int)
    return Edits(
        name,
        [EditItem(f"{name}/{i}", np.zeros(0, np.uint32), dose=1) for i in range(count)],
        rows,
        np.zeros_like(rows),
        "explicit" if fixed else "random",
        (0, STOP),
        position=np.asarray(slots, np.int64) * S if fixed else None,
        kind="noise" if kind == "noise" else "base",
        length=np.full(count, S, dtype=np.int64),
        sigma=np.full(count, 0.075, np.float32) if kind == "noise" else None,
        unseen=None if kind == "noise" else UNSEEN,
    )


def experiments(scale: float) -> Iterator[Edits]:
    """The ten, in the paper's order; `scale` of their items."""

    def n(count: int) -> int:
        return max(1, round(count * scale))

    doses = [(n(8000), 4), (n(5000), 12), (n(2000), 36), (n(2000), 144)]
    yield texts("knowledge", [(n(40_000), 4)], 163)
    yield texts("reasoning", [(n(500_000), 1)], 360)
    yield texts("contamination", doses, 117, holdout=n(10_000))
    yield texts("contamination_early", doses, 117)
    yield texts("canaries", [(n(38_700), 1), (n(38_700), 4), (n(38_600), 16)], 303, holdout=n(34_907))
    generator = np.random.default_rng(0)
    batches = np.arange(10_001, 100_000, 10_000)
    noisy = np.arange(999, 100_000, 1000)
    taken = np.concatenate([batches, noisy])
    free = generator.choice(STEPS * BATCH, n(268_554) + 100_000, replace=False)
    free = free[~np.isin(free // BATCH, taken)][: n(268_554)]
    yield sequences("removal", np.sort(free))
    yield sequences("gaussian_poisoning", _slots(noisy[: n(len(noisy))]), "noise")
    yield texts("poisoning", [(n(783_000), 1)], 300)
    yield sequences("batches", _slots(batches[: n(len(batches))]))
    yield texts("documents_whole", [(n(380), 1), (n(380), 10), (n(380), 100)], 1200)
    yield texts("documents_split", [(n(2660), 1), (n(2660), 10), (n(2660), 100)], 171)
    yield texts("documents_resplit", [(n(295_260), 1)], 171)
    yield sequences("iid_replacement", n(366_000))


def _slots(steps: np.ndarray) -> np.ndarray:
    return (steps[:, None] * BATCH + np.arange(BATCH)).reshape(-1)


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def apart() -> None:
    """The rates of what a plan of real data costs besides."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    generator = np.random.default_rng(0)
    sizes = generator.integers(2, 9, 5000)
    words = np.array(["".join(chr(97 + c) for c in generator.integers(0, 26, size)) for size in sizes])
    lines = [" ".join(words[generator.zipf(1.3, 200) % len(words)]) for _ in range(5000)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=2048, show_progress=False))
    start = time.perf_counter()
    count = sum(len(each.ids) for each in tokenizer.encode_batch(lines))
    rate = count / (time.perf_counter() - start)
    print(f"tokenizing, apart: {rate / 1e6:.1f} M tokens/s; 2 B planted tokens of text take {2e9 / rate / 60:.0f} min")
    rows = generator.integers(0, VOCABULARY, (SAMPLE // S, S), dtype=np.uint32)
    search = RunSearch([rows[i, 100:150].copy() for i in range(1000)])
    start = time.perf_counter()
    found = search(rows, np.arange(len(rows)))
    rate = SAMPLE / (time.perf_counter() - start)
    took = f"{rate / 1e6:.0f} M tokens/s in memory, {len(found['run'])} found"
    print(f"scan for removal, apart: {took}; 210 B take {STOP / rate / 3600:.1f} h")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    scale = parser.parse_args().scale
    start = time.perf_counter()
    asked = list(experiments(scale))
    rows, tokens = sum(len(each) for each in asked), sum(int(each.lengths.sum()) for each in asked)
    print(f"{rows:,} edits of {tokens / 1e9:.2f} B tokens in {STOP / 1e9:.0f} B (synthetic tokens, mean lengths)")
    print(f"made in {time.perf_counter() - start:.0f} s, {peak_gib():.2f} GiB", flush=True)
    phases = Phases([Phase(0, BATCH, S)])
    with tempfile.TemporaryDirectory() as folder:
        start, used = time.perf_counter(), time.process_time()
        plan = compile_plan(asked, phases, Window(0, STEPS), 0, "treated", folder)
        seconds, processor = time.perf_counter() - start, time.process_time() - used
        bytes_written = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        assert plan.audit["ok"], plan.audit["findings"]
        size = f"{bytes_written / 2**30:.2f} GiB on disk"
        took = f"{processor:.0f} s of processor time, {seconds:.0f} s by the clock"
        print(f"planned, audited and written in {took}, peak {peak_gib():.2f} GiB, {size}")
        print(f"promised: 300 s, 6 GB: {'kept' if processor < 300 and peak_gib() * 2**30 < 6e9 else 'NOT kept'}")
    apart()


if __name__ == "__main__":
    main()
