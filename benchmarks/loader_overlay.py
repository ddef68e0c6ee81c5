"""What an overlay costs a loader: items a second with 1 % of the sequences edited, against the framework's own loader.

Run: python benchmarks/loader_overlay.py [FRAMEWORK ...] [--pairs 40] [--length 4096], where the environments are.
Each framework is measured in its own interpreter. A pair is one pass of each loader over the same slots of the same
files, batch by batch in turns, in one process without threads; the clock is that process's CPU time, so that what else
runs on the machine counts little. The ratio is the median over the pairs of one run, its bound a one-sided bootstrap
interval.

    framework          its own                                       with an overlay
    huggingface        our loader without an overlay                 the same with one
    olmo2              olmo.data.build_train_dataloader              EditedDataset in the same DataLoader
    olmo2-unfiltered   the same without its filter of repetitions    the same without
    olmo3              olmo_core NumpyFSLDataLoader                  NumpyLoader, over the same dataset
    litgpt             a torch DataLoader over blocks of S + 1       SlotLoader
                       tokens at a shuffled index, as its own
                       data modules hand it to litgpt.pretrain

The filter is half a millisecond of an item, in whose noise a microsecond cannot be seen: hence the row without it.

Shorter sequences make an item cheaper, and the same fraction of a microsecond a larger share of it. Digests of what was
read are no part of a loader and not measured here.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 16  # sequences a step
STEPS, WARM = 256, 4  # of an epoch, which is a pass; not timed, at its beginning: files are opened there
SEQUENCES, EDITED, EDIT = STEPS * BATCH, 0.01, 100  # 67 MB of uint32; share of slots; tokens of an edit
VOCAB, EOS = 50_304, 0
TARGET = 0.97
FRAMEWORKS = ("huggingface", "olmo2", "olmo2-unfiltered", "olmo3", "litgpt")
Pass = Callable[[], Iterable[Any]]


# The parent: files, plan, one child a framework, and the table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frameworks", nargs="*", default=FRAMEWORKS, help=f"of {', '.join(FRAMEWORKS)}")
    parser.add_argument("--pairs", type=int, default=40, help="of passes; at least 20")
    parser.add_argument("--length", type=int, default=4096, help="tokens of a sequence; 4096 is OLMo-2's")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.frameworks[0], Path(options.child), options.pairs, options.length)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, options.length)
        print(f"{options.pairs} pairs of passes over items of {options.length} tokens; per item:")
        print(f"{'':<18}{'own':>10}{'edited':>10}{'ratio':>10}{'lower 95 %':>12}{'added':>12}{'upper 95 %':>12}")
        for framework in options.frameworks:
            report(framework, times_of(framework, folder, options), (steps_of(framework) - WARM) * BATCH)


def write_inputs(folder: Path, length: int) -> None:
    """Token files and an overlay over the slots of all passes."""
    from pretrain_exp.plan.overlay_writer import Ops, write_overlay

    generator = np.random.default_rng(0)
    tokens = generator.integers(1, VOCAB, length * SEQUENCES, dtype=np.uint32)
    tokens[generator.integers(0, len(tokens), len(tokens) // 500)] = EOS
    tokens.tofile(folder / "tokens.npy")
    slots = np.flatnonzero(generator.random(SEQUENCES) < EDITED).astype(np.int64)
    columns = generator.integers(0, length - EDIT, len(slots)).astype(np.int32)
    pool = generator.integers(1, VOCAB, EDIT * len(slots)).astype(np.uint32)
    lengths, refs = np.full(len(slots), EDIT, np.int32), np.arange(len(slots), dtype=np.int64) * EDIT
    write_overlay(folder / "overlay", Ops.tokens(slots, columns, lengths, refs), pool, length)


def times_of(framework: str, folder: Path, options: argparse.Namespace) -> list[list[float]] | str:
    """Seconds of (own, edited) passes, pair by pair; or why there are none."""
    python = interpreter(framework)
    if python is None:
        return "not installed here"
    command = [python, __file__, framework, "--child", str(folder), "--pairs", str(options.pairs)]
    command += ["--length", str(options.length)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return "failed: " + " | ".join(done.stderr.strip().splitlines()[-3:])
    return json.loads(done.stdout.splitlines()[-1])


def interpreter(framework: str) -> str | None:
    """The Python that has the framework, None where there is none."""
    from pretrain_exp.framework.huggingface.framework import HuggingFace
    from pretrain_exp.framework.litgpt.framework import LitGPT
    from pretrain_exp.framework.olmo2.framework import Olmo2
    from pretrain_exp.framework.olmo3.framework import Olmo3

    found = {kind.name: kind() for kind in (HuggingFace, Olmo2, Olmo3, LitGPT)}[framework.partition("-")[0]]
    return found.interpreter if found.packages[-1] in found.versions else None


def report(framework: str, pairs: list[list[float]] | str, items: int) -> None:
    if isinstance(pairs, str):
        print(f"{framework:<18}{pairs}")
        return
    own, edited = np.array(pairs).T / items * 1e6  # us
    ratio, lower = median(own / edited, 0.05)
    added, upper = median(edited - own, 0.95)
    shown = "at least" if lower >= TARGET else "NOT SHOWN TO BE"
    print(
        f"{framework:<18}{np.median(own):>7.1f} us{np.median(edited):>7.1f} us{ratio:>10.4f}"
        f"{lower:>12.4f}{added:>9.2f} us{upper:>9.2f} us"
        f"   {shown} {TARGET}"
    )


def median(values: np.ndarray, quantile: float) -> tuple[float, float]:
    """The median, and a quantile of it over 10,000 bootstrap samples of the pairs: one pass that was disturbed counts
    no more than another."""
    resampled = np.random.default_rng(0).choice(values, (10_000, len(values)))
    return float(np.median(values)), float(np.quantile(np.median(resampled, axis=1), quantile))


# A child: two loaders of one framework, pass after pass


def measure(framework: str, folder: Path, pairs: int, length: int) -> list[list[float]]:
    """CPU seconds of (own, edited), pair by pair; the first pair fills caches and is not counted."""
    makers = (huggingface, olmo2, olmo2_unfiltered, olmo3, litgpt)
    make = {maker.__name__.replace("_", "-"): maker for maker in makers}[framework]
    own, edited = make(folder, length)
    return [pair(own, edited) for _ in range(pairs + 1)][1:]


def pair(own: Pass, edited: Pass) -> list[float]:
    """One pass of both, a batch of each in turns."""
    gc.collect()
    iterators, spent = (iter(own()), iter(edited())), [0.0, 0.0]
    step, batch = 0, None
    while step == 0 or batch is not None:
        for side in (0, 1) if step % 2 else (1, 0):
            started = time.process_time()
            batch = next(iterators[side], None)
            if step >= WARM:
                spent[side] += time.process_time() - started
        step += 1
    return spent


def steps_of(framework: str) -> int:
    """Of a pass: ai2-olmo's filter of repetitive instances takes half a millisecond an item."""
    return STEPS // 8 if framework == "olmo2" else STEPS


def job(folder: Path, order: Any, overlay: bool, steps: int = STEPS, **args: Any) -> Any:
    """A job of one pass over the files."""
    from pretrain_exp.data.phases import Phase, Phases
    from pretrain_exp.framework.worker.job import Job, Save

    settings = {
        "sequence_length": order.sequence_length,
        "batch_size": BATCH,
        "micro_batch_size": None,
        "precision": "fp32",
        "optimizer": {"lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1},
        "schedule": {"name": "cosine", "warmup_steps": 0, "total_steps": STEPS, "decay_steps": 0, "min_lr_ratio": 0.1},
        "max_grad_norm": 1.0,
        "z_loss": 0.0,
        "document_masking": False,
        "compile": False,
        "activation_checkpointing": False,
        "log_every": 1,
        "args": args,
        "loader_workers": 0,
    }
    live = folder / f"live-{overlay}"
    live.mkdir(exist_ok=True)
    return Job(
        path=live / "job.json",
        start_state=None,
        start_step=0,
        saves=(Save(steps, "none", {}),),
        store=folder / "store",
        live=live,
        order=order.to_json(),
        phases=Phases([Phase(0, BATCH, order.sequence_length)]),
        overlay=folder / "overlay" if overlay else None,
        model={"config": None},
        training=settings,
        tokenizer=None,
        eos_token_id=EOS,
        init_seed=0,
    )


def files(folder: Path, length: int) -> Any:
    from pretrain_exp.data.token_files import TokenFile, TokenFiles

    path = folder / "tokens.npy"
    return TokenFiles((TokenFile(str(path), "uint32", 0, length * SEQUENCES, "digest", "tokens"),), EOS)


def huggingface(folder: Path, length: int) -> tuple[Pass, Pass]:
    from pretrain_exp.data.order import ShuffledOrder
    from pretrain_exp.framework.huggingface.loader import Loader

    order = ShuffledOrder(files(folder, length), length, 0)

    def passes(overlay: bool) -> Pass:
        loader = Loader(job(folder, order, overlay), 0, 1, 0)
        return lambda: loader.batches(0, STEPS)

    return passes(False), passes(True)


def olmo2(folder: Path, length: int, name: str = "olmo2") -> tuple[Pass, Pass]:
    from dataclasses import replace

    from olmo.data import build_train_dataloader

    from pretrain_exp.data.olmo_order import OlmoOrder
    from pretrain_exp.framework.olmo2.config import train_config
    from pretrain_exp.framework.olmo2.data import build_loader

    order = OlmoOrder(files(folder, length), length, BATCH, 0, folder / "orders")
    steps = steps_of(name)
    ours = job(folder, order, True, steps)
    sizes = {"d_model": 32, "n_heads": 2, "n_layers": 2, "mlp_ratio": 4, "vocab_size": VOCAB, "embedding_size": VOCAB}
    config = train_config(
        replace(ours, model={"config": {**sizes, "eos_token_id": EOS, "pad_token_id": EOS}}), 1, "cpu"
    )
    config.device_train_batch_size = BATCH
    edited: Any = build_loader(config, ours)  # which sets the paths of the config
    config.save_overwrite = True
    own: Any = build_train_dataloader(config)
    own.dataset.max_examples = steps * BATCH
    own.dataset.num_threads = edited.dataset.num_threads = 0
    return lambda: own, lambda: edited


def olmo2_unfiltered(folder: Path, length: int) -> tuple[Pass, Pass]:
    own, edited = olmo2(folder, length, "olmo2-unfiltered")
    for loader in (own(), edited()):
        loader.dataset.dataset.instance_filter_config = None
    return own, edited


def olmo3(folder: Path, length: int) -> tuple[Pass, Pass]:
    from olmo_core.data import DataCollator, NumpyFSLDataLoader

    from pretrain_exp.data.olmo_order import OlmoCoreOrder
    from pretrain_exp.framework.olmo3.data import build_loader

    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    order = OlmoCoreOrder(files(folder, length), length, BATCH, 0, folder / "orders")
    edited: Any = build_loader(job(folder, order, True, data_loader={"num_threads": 0}), VOCAB, None, "cpu")
    own = NumpyFSLDataLoader(
        edited.dataset,
        collator=DataCollator(pad_token_id=EOS, vocab_size=VOCAB),
        global_batch_size=BATCH * length,
        work_dir=folder / "olmo_core",
        seed=0,
        num_threads=0,
        target_device_type="cpu",
    )

    def passes(loader: Any) -> Pass:
        def batches() -> Iterable[Any]:
            loader.reset()
            loader.reshuffle(1)
            return iter(loader)

        return batches

    return passes(own), passes(edited)


def litgpt(folder: Path, length: int) -> tuple[Pass, Pass]:
    import torch
    from torch.utils.data import DataLoader, Dataset

    from pretrain_exp.data.order import ShuffledOrder
    from pretrain_exp.framework.litgpt.data import SlotLoader
    from pretrain_exp.framework.worker.ranks import Ranks

    class Blocks(Dataset):
        """Blocks of S + 1 tokens of a mapped file, in shuffled order."""

        def __init__(self) -> None:
            self.tokens = np.memmap(folder / "tokens.npy", dtype=np.uint32, mode="r")
            self.order = np.random.default_rng(0).permutation(len(self.tokens) // (length + 1))

        def __len__(self) -> int:
            return len(self.order)

        def __getitem__(self, index: int) -> torch.Tensor:
            start = int(self.order[index]) * (length + 1)
            return torch.from_numpy(self.tokens[start : start + length + 1].astype(np.int64))

    class Silent:
        def at_step(self, step: int) -> None:
            pass

        def read(self, micro: Any, tokens: torch.Tensor) -> None:
            pass

    ranks = Ranks(0, 1, torch.device("cpu"))
    order = ShuffledOrder(files(folder, length), length, 0)
    own = DataLoader(Blocks(), batch_size=BATCH)
    edited = SlotLoader(job(folder, order, True), ranks, BATCH, 0, Silent())
    return lambda: own, lambda: edited


if __name__ == "__main__":
    sys.exit(main())
