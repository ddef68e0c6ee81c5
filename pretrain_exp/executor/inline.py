"""Runs jobs as child processes of this one, several side by side, each with a progress bar.

    ready jobs --claim--> child process --> done | retried with backoff from its last checkpoint | failed

Nothing is kept in this process: killed at any time, the same command goes on from what the store holds. Its children
end with it (child.py), and a job is started only where no process of an earlier start is left in its folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import ClassVar, Literal

from pretrain_exp.executor.base import PREEMPTED, Job, Outcome, failure_message, fingerprint, users_to_mend
from pretrain_exp.executor.child import GRACE_SECONDS, PROCESS
from pretrain_exp.executor.progress import Board, Line, read_progress
from pretrain_exp.store.claims import Claim, wait_for_claim
from pretrain_exp.store.process import process_lives

LONGEST_WAIT = 600.0
POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Inline:
    """parallel: jobs side by side; auto is one where a GPU is (a job takes them all), else one a core and at most 4.

    save_seconds: what running jobs get after Ctrl-C to write a checkpoint; a second Ctrl-C ends them at once.
    """

    parallel: int | Literal["auto"] = "auto"
    save_seconds: float = 600.0
    waits: ClassVar[bool] = True
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)
    _stop: Event = field(default_factory=Event, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.parallel != "auto" and self.parallel < 1:
            raise ValueError(f"parallel must be auto or at least 1, not {self.parallel}")
        if self.save_seconds < 0:
            raise ValueError(f"save_seconds must be at least 0, not {self.save_seconds}")

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
        lifeline, own_end = os.pipe()
        try:
            with Board() as board, ThreadPoolExecutor(self.slots()) as pool:
                try:
                    while waiting or running:
                        for job in [j for j in waiting.values() if _settled(j, outcomes, waiting, running)]:
                            del waiting[job.id]
                            failed = [n for n in sorted(job.needs) if n in outcomes and outcomes[n].state != "done"]
                            if failed:
                                outcomes[job.id] = Outcome(job, "skipped", f"needs {failed[0]}, which did not finish")
                            else:
                                running[pool.submit(self._run_job, job, store, board, lifeline)] = job
                        if running:
                            finished, _ = wait(running, return_when=FIRST_COMPLETED)
                            for future in finished:
                                job = running.pop(future)
                                outcomes[job.id] = future.result()
                except KeyboardInterrupt:
                    self._interrupt(board)
                    raise
        finally:
            os.close(own_end)
            os.close(lifeline)
        return outcomes

    def _run_job(self, job: Job, store: Path, board: Board, lifeline: int) -> Outcome:
        started = time.time()
        while True:
            claim = wait_for_claim(store, job.id, stop=self._stop)
            if claim is None:
                return Outcome(job, "skipped", "interrupted", time.time() - started)
            with claim, board.follow(job) as line:
                outcome = self._until_settled(job, claim, line, lifeline)
            if outcome is not None:
                outcome.seconds = time.time() - started
                return outcome

    def _until_settled(self, job: Job, claim: Claim, line: Line, lifeline: int) -> Outcome | None:
        """Starts the job until it is done or hopeless; None where another process took the claim over meanwhile."""
        attempts, failures, last_failure, log = 0, 0, "", job.folder / "log.txt"
        while not job.done():
            self._end_former(job)
            if self._stop.is_set():
                return Outcome(job, "skipped", "interrupted", attempts=attempts, log=log)
            attempts += 1
            line.attempt(attempts)
            code = self._child(job, attempts, claim, lifeline)
            if job.done():
                break
            if claim.lost.is_set():
                return None
            if code == PREEMPTED or self._stop.is_set():
                continue
            message, progress = failure_message(job.folder, code), read_progress(job)
            failure = fingerprint(job.folder, code, progress[0] if progress else None)
            # the same failure at the same step will not pass by itself; a kill comes from outside
            hopeless = users_to_mend(job.folder) or (failure == last_failure and code > 0)
            failures, last_failure = failures + 1, failure
            if hopeless or failures > job.retries:
                line.failed(message)
                return Outcome(job, "failed", message, attempts=attempts, log=log)
            line.waiting(message)
            self._stop.wait(min(LONGEST_WAIT, job.retry_seconds * 2 ** (failures - 1)))
        line.done()
        return Outcome(job, "done", attempts=attempts, log=log)

    def _end_former(self, job: Job) -> None:
        """Waits for a process that an earlier start left in the job's folder on this machine; ends it if it stays."""
        path, asked_at = job.folder / PROCESS, 0.0
        while path.is_file() and process_lives(record := json.loads(path.read_text())) and not self._stop.is_set():
            with suppress(ProcessLookupError):
                if not asked_at:
                    asked_at = time.monotonic()
                    os.killpg(record["pid"], signal.SIGTERM)
                elif time.monotonic() > asked_at + GRACE_SECONDS:
                    os.killpg(record["pid"], signal.SIGKILL)
            self._stop.wait(POLL_SECONDS)

    def _child(self, job: Job, attempt: int, claim: Claim, lifeline: int) -> int:
        """Runs the command once to its end and returns its exit status. Ends it at once when the claim is lost."""
        job.write()
        (job.folder / "error.json").unlink(missing_ok=True)
        runner = [sys.executable, "-m", "pretrain_exp.executor.child", str(lifeline), str(job.folder)]
        with open(job.folder / "log.txt", "ab") as log:
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            log.write(f"--- {now}, attempt {attempt}: {' '.join(job.command)}\n".encode())
            log.flush()
            child = subprocess.Popen(
                [*runner, *job.command],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **job.environment, **claim.environment()},
                start_new_session=True,
                pass_fds=[lifeline],
            )
            with self._lock:
                self._children[job.id] = child
            if self._stop.is_set():  # Ctrl-C came while this child was no child yet
                _signal_group(child, signal.SIGTERM)
            code = self._wait(child, claim)
            with self._lock:
                del self._children[job.id]
        if not claim.lost.is_set():  # else it is another's by now
            (job.folder / PROCESS).unlink(missing_ok=True)
        return code

    def _wait(self, child: subprocess.Popen[bytes], claim: Claim) -> int:
        while True:
            try:
                return child.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if claim.lost.is_set():
                    _signal_group(child, signal.SIGKILL)

    def _interrupt(self, board: Board) -> None:
        """Asks every child to save and end; kills what does not, at a second Ctrl-C at once."""
        self._stop.set()
        with self._lock:
            children = list(self._children.values())
        for child in children:
            _signal_group(child, signal.SIGTERM)
        if children:
            text = f"running jobs save and end, for at most {self.save_seconds:.0f} s; Ctrl-C again ends them at once"
            board.console.print(text, highlight=False)
        deadline = time.monotonic() + self.save_seconds
        try:
            for child in children:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.1, deadline - time.monotonic()))
        finally:
            with self._lock:
                children = list(self._children.values())
            for child in children:
                _signal_group(child, signal.SIGKILL)


def _settled(
    job: Job, outcomes: dict[str, Outcome], waiting: dict[str, Job], running: dict[Future[Outcome], Job]
) -> bool:
    """Every need has ended, or is no job of this call (the store holds it already)."""
    busy = {j.id for j in running.values()}
    return all(need in outcomes or (need not in waiting and need not in busy) for need in job.needs)


def _signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        if child.poll() is None:
            os.killpg(child.pid, number)
