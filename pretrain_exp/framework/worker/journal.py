"""What a worker tells about the steps since the last state: its metrics and a digest of every row that it read.

<live>/metrics.jsonl    every step at once, over all attempts (the first rank)
<state>/metrics.jsonl   the steps that led from the state before to this one
<state>/reads/rankNNNNN.npy   READS_DTYPE, the rows that rank N read on these steps
<state>/noise/rankNNNNN.npy   NOISE_DTYPE, the noise that it put on their embeddings; no folder without any
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from pretrain_exp.framework.worker.noise import Noise
from pretrain_exp.framework.worker.ranks import Ranks
from pretrain_exp.plan.digest import NOISE_DTYPE, READS_DTYPE, row_digest


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
        self.noise: list[np.ndarray] = []
        self._live: TextIO | None = None
        self.attempt = 1
        if ranks.first:
            path = live / "metrics.jsonl"
            self.attempt = _last_attempt(path) + 1
            self._live = open(path, "a", buffering=1)  # noqa: SIM115  open as long as the worker lives

    def read(
        self, step: int, rows_of_step: np.ndarray, slots: np.ndarray, tokens: np.ndarray, noise: Sequence[Noise] = ()
    ) -> None:
        """rows_of_step, slots: (R,); tokens: (R, S), a view of the very tensor that the model gets.

        noise: on the embeddings of these rows, as the model gets it.
        """
        rows = np.empty(len(tokens), dtype=READS_DTYPE)
        rows["step"], rows["row"], rows["slot"] = step, rows_of_step, slots
        rows["digest"] = [row_digest(row) for row in tokens]
        self.reads.append(rows)
        spans = [(step, rows_of_step[n.row], slots[n.row], n.column, n.length, n.sigma, n.key[0]) for n in noise]
        if spans:
            self.noise.append(np.array(spans, dtype=NOISE_DTYPE))

    def log(self, step: int, **values: float) -> None:
        """One line of metrics; the first rank's business."""
        if self._live is None:
            return
        line = json.dumps({"step": step, "time": round(time.time(), 3), "attempt": self.attempt, **values})
        self.lines.append(line)
        self._live.write(line + "\n")

    def write(self, folder: Path) -> None:
        """Writes this rank's part into a folder that is being filled."""
        for name, parts, dtype in (("reads", self.reads, READS_DTYPE), ("noise", self.noise, NOISE_DTYPE)):
            if parts or name == "reads":
                (folder / name).mkdir(exist_ok=True)
                path = folder / name / f"rank{self.ranks.rank:05d}.npy"
                np.save(path, np.concatenate([np.empty(0, dtype), *parts]))
        if self.ranks.first:
            (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in self.lines))

    def begin(self, origin: Origin, folder: Path | None = None) -> None:
        """A new journal from a state on; `folder`: with what any number of ranks wrote there before a restart."""
        self.origin, self.lines, self.reads, self.noise = origin, [], [], []
        if folder is None:
            return
        mine = slice(self.ranks.rank, None, self.ranks.world)
        self.reads, self.noise = (
            [np.load(path, allow_pickle=False) for path in sorted((folder / name).glob("rank*.npy"))[mine]]
            for name in ("reads", "noise")
        )
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
