"""What a person sees while jobs run: one line a job, with progress, rate, time left and loss.

The lines are fed from files that the jobs write (metrics.jsonl, progress.json), so a job on another machine looks
the same. Where the output is no terminal, a plain sentence is printed when a job starts, every half minute, and when
it ends.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pretrain_exp.executor.base import Job

POLL_SECONDS = 0.5
PLAIN_EVERY = 30.0


class Line:
    """One job's line. Reads the job's files until it is closed."""

    def __init__(self, board: Board, job: Job):
        self.board, self.job = board, job
        self.note = "starting"
        self.completed = job.first
        self._stop = Event()
        self._task: TaskID = board.progress.add_task(
            job.title, total=job.total - job.first, note=self.note, visible=True
        )
        self._thread = Thread(target=self._poll, daemon=True)
        self._thread.start()

    def attempt(self, number: int) -> None:
        steps = [int(path.name.removeprefix("step")) for path in self.job.folder.glob("resume/step*")]
        start = f"going on from step {max(steps)}" if steps else "starting"
        self._say(start if number == 1 else f"attempt {number}, {start}")

    def waiting(self, message: str) -> None:
        self._say(f"failed, will retry: {message.splitlines()[0]}")

    def failed(self, message: str) -> None:
        self._say(f"failed: {message.splitlines()[0]}")

    def done(self) -> None:
        self.completed = self.job.total
        self._say("done")

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._show()

    def _say(self, note: str) -> None:
        self.note = note
        self._show()
        if not self.board.console.is_terminal:
            self.board.console.print(f"{self.job.title}: {note}", highlight=False)

    def _show(self) -> None:
        self.board.progress.update(self._task, completed=self.completed - self.job.first, note=self.note)

    def _poll(self) -> None:
        silent = 0.0
        while not self._stop.wait(POLL_SECONDS):
            found = read_progress(self.job)
            if found is None:
                continue
            self.completed, self.note = found
            self._show()
            silent += POLL_SECONDS
            if not self.board.console.is_terminal and silent >= PLAIN_EVERY:
                silent = 0.0
                text = f"{self.job.title}: {self.job.unit} {self.completed}/{self.job.total}, {self.note}"
                self.board.console.print(text, highlight=False)


class Board:
    """All lines of a call. A context manager, so that the terminal is left in order whatever happens."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=True, markup=False)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),  # a label may hold [a,b]
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Board:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    @contextlib.contextmanager
    def follow(self, job: Job) -> Iterator[Line]:
        line = Line(self, job)
        try:
            yield line
        finally:
            line.close()


def read_progress(job: Job) -> tuple[int, str] | None:
    """How far a job is, in its unit, and a note (loss and rate), from the last lines it wrote.

    None before the first.
    """
    if job.kind == "train":
        row = last_row(job.folder / "metrics.jsonl")
        if row is None:
            return None
        loss, rate = row.get("train/loss"), row.get("train/tokens_per_second")
        parts = [f"loss {loss:.3f}"] if isinstance(loss, float) else []
        parts += [f"{rate:,.0f} tokens/s"] if isinstance(rate, float) else []
        return int(row["step"]) + 1, ", ".join(parts)
    path = job.folder / "progress.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text())
    share = found["done"] / max(1, found["total"])
    return int(job.first + share * (job.total - job.first)), f"{found['done']}/{found['total']} requests"


def last_row(path: Path, block: int = 4096) -> dict | None:
    """The last complete line of a JSON-lines file, read from its end."""
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - block))
        lines = file.read().split(b"\n")[:-1]  # what follows the last newline is still being written
    for line in reversed(lines):
        with contextlib.suppress(json.JSONDecodeError):
            row = json.loads(line)
            if isinstance(row, dict) and "step" in row:
                return row
    return None
