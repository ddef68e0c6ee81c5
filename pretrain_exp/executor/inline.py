"""Runs jobs as child processes of this one, several side by side, each with a progress bar.

    ready jobs --claim--> child process --> done | retried with backoff from its last checkpoint | failed

Nothing is kept in this process: killed at any time, the same command goes on from what the store holds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import ClassVar, Literal

from pretrain_exp.executor.base import PREEMPTED, Job, Outcome, failure_message
from pretrain_exp.executor.progress import Board
from pretrain_exp.store.claims import claimed
from pretrain_exp.store.states import write_json

LONGEST_WAIT = 600.0
KILL_SECONDS = 30.0  # what a child gets to save after the first signal


@dataclass(frozen=True, kw_only=True)
class Inline:
    """parallel: jobs side by side; auto is one where a GPU is (a job takes them all), else one a core and at most 4."""

    parallel: int | Literal["auto"] = "auto"
    waits: ClassVar[bool] = True
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)
    _stop: Event = field(default_factory=Event, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.parallel != "auto" and self.parallel < 1:
            raise ValueError(f"parallel must be auto or at least 1, not {self.parallel}")

    def slots(self) -> int:
        if self.parallel != "auto":
            return self.parallel
        if any(Path("/dev").glob("nvidia[0-9]*")):
            return 1
        return max(1, min(4, len(os.sched_getaffinity(0))))

    def run(self, jobs: Sequence[Job], store: Path) -> dict[str, Outcome]:
        """Runs all jobs; returns how each ended. On Ctrl-C the children save, end, and KeyboardInterrupt goes on."""
        outcomes: dict[str, Outcome] = {}
        waiting = {job.id: job for job in jobs}
        running: dict[Future[Outcome], Job] = {}
        with Board() as board, ThreadPoolExecutor(self.slots()) as pool:
            try:
                while waiting or running:
                    for job in [j for j in waiting.values() if _settled(j, outcomes, waiting, running)]:
                        del waiting[job.id]
                        failed = [
                            need for need in sorted(job.needs) if need in outcomes and outcomes[need].state != "done"
                        ]
                        if failed:
                            outcomes[job.id] = Outcome(job, "skipped", f"needs {failed[0]}, which did not finish")
                        else:
                            running[pool.submit(self._run_job, job, store, board)] = job
                    if running:
                        finished, _ = wait(running, return_when=FIRST_COMPLETED)
                        for future in finished:
                            job = running.pop(future)
                            outcomes[job.id] = future.result()
            except KeyboardInterrupt:
                self._interrupt()
                raise
        return outcomes

    def _run_job(self, job: Job, store: Path, board: Board) -> Outcome:
        started = time.time()
        with claimed(store, job.id), board.follow(job) as line:
            attempts, failures = 0, 0
            while not job.done():
                if self._stop.is_set():
                    return Outcome(
                        job, "skipped", "interrupted", time.time() - started, attempts, job.folder / "log.txt"
                    )
                if not attempts:
                    job.write()
                attempts += 1
                line.attempt(attempts)
                before = _last_step(job.folder)
                code = self._child(job, attempts)
                if job.done():
                    break
                if code == PREEMPTED or self._stop.is_set():
                    continue
                message = failure_message(job.folder, code)
                # the same failure without a step of progress will not pass by itself
                hopeless = _is_hopeless(job.folder) or (failures and _last_step(job.folder) == before and code > 0)
                failures += 1
                if hopeless or failures > job.retries:
                    line.failed(message)
                    seconds = time.time() - started
                    return Outcome(job, "failed", message, seconds, attempts, job.folder / "log.txt")
                line.waiting(message)
                self._stop.wait(min(LONGEST_WAIT, job.retry_seconds * 2 ** (failures - 1)))
            line.done()
        return Outcome(job, "done", "", time.time() - started, attempts, job.folder / "log.txt")

    def _child(self, job: Job, attempt: int) -> int:
        """Runs the command once to its end and returns its exit status."""
        (job.folder / "error.json").unlink(missing_ok=True)
        with open(job.folder / "log.txt", "ab") as log:
            log.write(f"--- attempt {attempt}: {' '.join(job.command)}\n".encode())
            log.flush()
            child = subprocess.Popen(
                job.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **job.environment},
                start_new_session=True,
            )
            with self._lock:
                self._children[job.id] = child
            write_json(job.folder / "process.json", {"pid": child.pid, "started": time.time()})
            code = child.wait()
            with self._lock:
                del self._children[job.id]
        (job.folder / "process.json").unlink(missing_ok=True)
        return code

    def _interrupt(self) -> None:
        """Asks every child to save and end; kills what does not."""
        self._stop.set()
        with self._lock:
            children = list(self._children.values())
        for child in children:
            _signal_group(child, signal.SIGTERM)
        deadline = time.time() + KILL_SECONDS
        for child in children:
            try:
                child.wait(max(0.1, deadline - time.time()))
            except subprocess.TimeoutExpired:
                _signal_group(child, signal.SIGKILL)


def _settled(
    job: Job, outcomes: dict[str, Outcome], waiting: dict[str, Job], running: dict[Future[Outcome], Job]
) -> bool:
    """Every need has ended, or is no job of this call (the store holds it already)."""
    busy = {j.id for j in running.values()}
    return all(need in outcomes or (need not in waiting and need not in busy) for need in job.needs)


def _signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    if child.poll() is None:
        os.killpg(child.pid, number)


def _last_step(folder: Path) -> int:
    """How far the live log goes, in lines: a measure of progress between two attempts."""
    path = folder / "metrics.jsonl"
    return path.stat().st_size if path.is_file() else 0


def _is_hopeless(folder: Path) -> bool:
    """A failure that the worker itself calls the user's to mend."""
    path = folder / "error.json"
    return path.is_file() and json.loads(path.read_text())["kind"] == "user"
