"""What the table of promises needs of a framework, and the jobs that it runs.

Two files of tokens below 500, 37 rows of 32 beside remainders, 4 rows a step: an epoch is 9 steps, and a run goes
through several. The plan plants tokens from 500 on, which the files never hold: across the end of a row, across that
of a step, in the second epoch. And it has a part of a row read from another slot of the stream.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pretrain_exp.control.launch import RESOLVED, wrapped
from pretrain_exp.data.order import DataOrder, ShuffledOrder
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.data.token_files import TokenFile, TokenFiles
from pretrain_exp.framework.ranked import RankedFramework
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import EditItem, Edits, Window
from pretrain_exp.plan.folder import Plan
from pretrain_exp.store.states import state_dir

VOCAB, EOS, S, G = 512, 499, 32, 4
FIRST_PLANTED = 500
LAST_STEP, SCHEDULE_STEPS = 200, 300
PHASES = Phases([Phase(0, G, S)])
TRAINING: dict[str, Any] = {
    "num_steps": LAST_STEP,
    "sequence_length": S,
    "batch_size": G,
    "micro_batch_size": None,
    "precision": "fp32",
    "optimizer": {"lr": 3e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1},
    "schedule": {
        "name": "cosine", "warmup_steps": 4, "total_steps": SCHEDULE_STEPS, "decay_steps": 6, "min_lr_ratio": 0.1
    },
    "max_grad_norm": 1.0,
    "z_loss": 0.0,
    "document_masking": False,
    "compile": False,
    "activation_checkpointing": False,
    "loader_workers": 0,
    "log_every": 1,
    "resume_every_minutes": 15.0,
    "args": {},
}  # fmt: skip
PLANTED = {  # position -> length
    5: 3,  # step 0, row 0
    S - 2: 4,  # across the end of a row
    3 * G * S - 3: 6,  # across the end of step 2, where a job ends too
    5 * G * S + 2 * S: S,  # a whole row
    12 * G * S + 7: 5,  # in the second epoch
}
TAKEN = (1 * G * S + 2 * S + 3, 20, 30, 7)  # position and length in step 1; slot (of step 7) and column of what is read


@dataclass(frozen=True)
class Rig:
    """framework(ranks): an instance for the CPU. model: the fields of the model section; training: what differs.

    loss_tolerance: between two ways to compute the same steps; hf_loss: whether a row's loss in training is the mean
    over its S - 1 predicted tokens, as a converted model says it.
    """

    name: str
    framework: Callable[[int], RankedFramework]
    model: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)
    loss_tolerance: float = 2e-5

    @property
    def settings(self) -> dict[str, Any]:
        return {**TRAINING, **self.training}

    def order(self, files: TokenFiles, cache: Path) -> DataOrder:
        """The framework's own."""
        return self.framework(1).order(files, self.model, self.settings, 3, cache)


def token_files(folder: Path) -> TokenFiles:
    """Two raw uint32 files, random below 499, with an EOS here and there."""
    generator = np.random.default_rng(0)
    files = []
    for name, size in (("a", 20 * S + 7), ("b", 17 * S + 11)):
        tokens = generator.integers(0, EOS, size).astype("<u4")
        tokens[generator.random(size) < 0.02] = EOS
        tokens.tofile(folder / f"{name}.npy")
        files.append(TokenFile(str(folder / f"{name}.npy"), "uint32", 0, size, name, name))
    return TokenFiles(tuple(files), EOS, None)


def plant(root: Path) -> Plan:
    """The plan of PLANTED and TAKEN."""
    items = [
        EditItem(f"at {position}", (FIRST_PLANTED + np.arange(length) % (VOCAB - FIRST_PLANTED)).astype(np.uint32))
        for position, length in PLANTED.items()
    ]
    n = np.arange(len(items), dtype=np.int32)
    positions = np.array(list(PLANTED), dtype=np.int64)
    edits = Edits("planted", items, n, np.zeros_like(n), mode="explicit", position=positions)
    position, length, slot, column = TAKEN
    one = np.zeros(1, dtype=np.int32)
    taken = Edits("taken", [EditItem("a span", np.zeros(0, np.uint32), dose=1)], one, one, mode="explicit",
                  position=np.array([position]), kind="base", length=np.array([length]),
                  source=np.array([[slot, column]]))  # fmt: skip
    return compile_plan([edits, taken], PHASES, Window(0, LAST_STEP), 0, "treated", root)


def own_order(files: TokenFiles) -> DataOrder:
    """One that is no framework's."""
    return ShuffledOrder(files, S, 11)


@dataclass
class Run:
    """A job in a folder of its own, over a store that it may share. Keys are `<arm>-<step>`.

    loop: what it is told of the closed loop that plans it; its keys are aliases then.
    """

    rig: Rig
    root: Path
    order: DataOrder
    arm: str
    saves: tuple[int, ...]
    start: tuple[Path | None, int] = (None, 0)
    store: Path | None = None
    overlay: Path | None = None
    training: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] | None = None
    tokenizer: Path | None = None
    ranks: int = 1
    loop: dict[str, Any] | None = None

    def write(self) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)
        start, step = self.start
        job = {
            "schema": 1,
            "start": {"state": str(start) if start else None, "step": step},
            "stop": self.saves[-1],
            "save": [
                {"step": at, "key": f"{self.arm}-{at}", "record": {"step": at, "base": self.arm, "parent": None}}
                for at in self.saves
            ],
            "store": str(self.store or self.root / "store"),
            "live": str(self.root),
            "order": self.order.to_json(),
            "phases": PHASES.to_json(),
            "overlay": str(self.overlay) if self.overlay else None,
            "model": self.model or self.rig.model,
            "training": {**self.rig.settings, **self.training},
            "tokenizer": str(self.tokenizer) if self.tokenizer else None,
            "eos_token_id": EOS,
            "seeds": {"init": 0},
            "hooks": [],
            **({"loop": self.loop} if self.loop else {}),
        }
        path = self.root / "job.json"
        path.write_text(json.dumps(job))
        return path

    def begin(self) -> subprocess.Popen[str]:
        framework, job = self.rig.framework(self.ranks), self.write()
        command = framework.command(job)
        if self.loop:
            command = wrapped(job, sys.executable, framework.command(job.with_name(RESOLVED)))
        return subprocess.Popen(
            command,
            env={**os.environ, **framework.environment()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            cwd=self.root,
        )

    def run(self, status: int = 0) -> Run:
        """Runs to the end and demands the exit status."""
        process = self.begin()
        printed, _ = process.communicate(timeout=600)
        assert process.returncode == status, printed[-6000:]
        self.printed = printed
        return self

    def stop_after(self, lines: int, rank: int | None = None) -> None:
        """Runs until so many steps are logged, then has it end by SIGTERM, and demands that it saved itself, once.

        rank: which one is told, and no other; None: the process that starts them.
        """
        process, live = self.begin(), self.root / "metrics.jsonl"
        deadline = time.monotonic() + 600
        while not live.is_file() or live.read_bytes().count(b"\n") < lines:
            assert process.poll() is None, process.communicate()[0][-6000:]
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid if rank is None else rank_process(process.pid, rank), signal.SIGTERM)
        printed, _ = process.communicate(timeout=600)
        assert process.returncode == 75, printed[-6000:]
        (saved,) = (self.root / "resume").iterdir()
        assert (saved / "progress.json").is_file()

    def state(self, step: int) -> Path:
        return state_dir(self.store or self.root / "store", f"{self.arm}-{step}")


def rank_process(launcher: int, rank: int) -> int:
    """The id of the child that is this rank, by its command line, see proc(5)."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    told = [Path(f"/proc/{child}/cmdline").read_text().split("\0") for child in children]
    (found,) = (int(child) for child, words in zip(children, told, strict=True)
                if f"--rank {rank}" in " ".join(words))  # fmt: skip
    return found


def metrics(*states: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for state in states for line in (state / "metrics.jsonl").read_text().splitlines()]


def losses(*states: Path) -> list[float]:
    return [row["train/loss"] for row in metrics(*states)]


def reads(*states: Path) -> list[np.ndarray]:
    return [np.load(path) for state in states for path in sorted((state / "reads").iterdir())]
