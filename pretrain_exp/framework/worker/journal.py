"""What a worker tells about the steps since the last state: its metrics and a digest of every row that it read.

<live>/metrics.jsonl    every step at once, over all attempts (the first rank)
<state>/metrics.jsonl   the steps that led from the state before to this one
<state>/reads/rankNNNNN.npy   READS_DTYPE, the rows that rank N read on these steps
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from pretrain_exp.framework.worker.ranks import Ranks
from pretrain_exp.plan.digest import READS_DTYPE, row_digest


@dataclass(frozen=True)
class Origin:
    """Where a journal begins: after `step` updates, at the state of this key; None: at the initial weights."""

    step: int
    state: str | None


class Journal:
    """One rank's journal of the steps since a state."""

    origin: Origin

    def __init__(self, live: Path, ranks: Ranks) -> None:
        self.ranks = ranks
        self.lines: list[str] = []
        self.reads: list[np.ndarray] = []
        self._live: TextIO | None = None
        self.attempt = 1
        if ranks.first:
            path = live / "metrics.jsonl"
            self.attempt = _last_attempt(path) + 1
            self._live = open(path, "a", buffering=1)  # noqa: SIM115  open as long as the worker lives

    def read(self, step: int, rows_of_step: np.ndarray, slots: np.ndarray, tokens: np.ndarray) -> None:
        """rows_of_step, slots: (R,); tokens: (R, S), a view of the very tensor that the model gets."""
        rows = np.empty(len(tokens), dtype=READS_DTYPE)
        rows["step"], rows["row"], rows["slot"] = step, rows_of_step, slots
        rows["digest"] = [row_digest(row) for row in tokens]
        self.reads.append(rows)

    def log(self, step: int, **values: float) -> None:
        """One line of metrics; the first rank's business."""
        if self._live is None:
            return
        line = json.dumps({"step": step, "time": round(time.time(), 3), "attempt": self.attempt, **values})
        self.lines.append(line)
        self._live.write(line + "\n")

    def write(self, folder: Path) -> None:
        """Writes this rank's part into a folder that is being filled."""
        reads = folder / "reads"
        reads.mkdir(exist_ok=True)
        np.save(reads / f"rank{self.ranks.rank:05d}.npy", np.concatenate([np.empty(0, READS_DTYPE), *self.reads]))
        if self.ranks.first:
            (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in self.lines))

    def begin(self, origin: Origin, folder: Path | None = None) -> None:
        """A new journal from a state on; `folder`: with what any number of ranks wrote there before a restart."""
        self.origin, self.lines, self.reads = origin, [], []
        if folder is None:
            return
        files = sorted((folder / "reads").glob("rank*.npy"))
        self.reads = [np.load(path, allow_pickle=False) for path in files[self.ranks.rank :: self.ranks.world]]
        if self.ranks.first:
            self.lines = (folder / "metrics.jsonl").read_text().splitlines()


def _last_attempt(path: Path) -> int:
    """The attempt of the last line, 0 without one. Cuts off a line that a kill left unfinished."""
    if not path.is_file():
        return 0
    whole, _, rest = path.read_bytes().rpartition(b"\n")
    if rest:
        os.truncate(path, path.stat().st_size - len(rest))
    return int(json.loads(whole.rpartition(b"\n")[2])["attempt"]) if whole else 0
