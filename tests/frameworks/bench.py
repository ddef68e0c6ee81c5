"""The runs behind the table of promises: few processes a framework; every promise looks at several of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rigs import LAST_STEP, Rig, Run, S, own_order, plant, token_files
from sliced import tokenizer_of_numbers, two_slices

from pretrain_exp.plan.overlay_writer import Ops, write_overlay

NAMES = ("huggingface", "olmo2", "olmo3", "litgpt")


@dataclass
class Bench:
    """One framework with the stream and the plan of the table; every run is made once, when first asked for."""

    rig: Rig
    folder: Path

    @cached_property
    def files(self) -> Any:
        self.folder.mkdir(parents=True, exist_ok=True)
        return token_files(self.folder)

    @cached_property
    def order(self) -> Any:
        return self.rig.order(self.files, self.folder / "orders")

    @cached_property
    def plan(self) -> Any:
        return plant(self.folder / "plans")

    def job(self, name: str, arm: str, saves: tuple[int, ...], **fields: Any) -> Run:
        values = {"order": self.order, "store": self.folder / "store", **fields}
        return Run(self.rig, self.folder / name, arm=arm, saves=saves, **values)

    @property
    def overlay(self) -> Path:
        return self.plan.folder / "overlay"

    @cached_property
    def control(self) -> Run:
        """One rank, one job: states at 0, 3 and 10."""
        tokenizer = tokenizer_of_numbers(self.folder / "tokenizer")
        return self.job("control", "control", (0, 3, 10), tokenizer=tokenizer).run()

    @cached_property
    def first_half(self) -> Run:
        """Treated: two ranks, two loader workers, micro-batches of one row, to step 3."""
        training = {"loader_workers": 2, "micro_batch_size": 1}
        return self.job("first", "split", (3,), overlay=self.overlay, ranks=2, training=training).run()

    @cached_property
    def second_half(self) -> Run:
        """Treated: one rank, no workers, from the state at 3 to 10, into the second epoch."""
        start = (self.first_half.state(3), 3)
        return self.job("second", "split", (10,), overlay=self.overlay, start=start).run()

    @cached_property
    def stopped(self) -> Run:
        """Treated: to the last step in one job that is told to end on its way, and started again."""
        run = self.job("stopped", "stopped", (LAST_STEP,), overlay=self.overlay, training={"loader_workers": 2})
        run.stop_after(2)
        return run.run()

    @cached_property
    def stopped_rank(self) -> Run:
        """The same with two ranks, of which the second alone is told."""
        run = self.job("stopped-rank", "stopped-rank", (LAST_STEP,), overlay=self.overlay, ranks=2)
        run.stop_after(2, rank=1)
        return run.run()

    @cached_property
    def noisy(self) -> dict[int, Run]:
        """The control with noise on embeddings at step 1, by number of ranks."""
        folder = self.folder / "noise" / "overlay"
        ops = Ops.noise(np.array([5, 7]), np.array([3, 0]), np.array([9, S]), np.array([1.0, 2.0]))
        folder.parent.mkdir()
        write_overlay(folder, ops, np.empty(0, np.uint32), S, 7)
        return {
            ranks: self.job(f"noise-{ranks}", f"noise-{ranks}", (2,), overlay=folder, ranks=ranks).run()
            for ranks in (1, 2)
        }

    @cached_property
    def foreign(self) -> Run:
        """Treated, in an order that is no framework's own."""
        return self.job("foreign", "foreign", (4,), overlay=self.overlay, order=own_order(self.files)).run()

    @cached_property
    def sliced(self) -> list[Run]:
        """Both slices of a closed loop from the control's initial weights: states at 2 and 4."""
        return two_slices(self.control, self.folder / "sliced")

    @cached_property
    def converted(self) -> Path:
        """The control's state at 3 as a Hugging Face folder."""
        return self.rig.framework(1).to_hf(self.control.state(3), self.folder / "hf")
