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
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, current_thread, main_thread
from types import FrameType
from typing import ClassVar, Literal

from pretrain_exp.executor.base import PREEMPTED, Job, Outcome, failure_message, fingerprint, users_to_mend
from pretrain_exp.executor.child import GRACE_SECONDS, PROCESS
from pretrain_exp.executor.progress import Board, Line, read_progress
from pretrain_exp.framework.worker.launch import OF_A_RANK
from pretrain_exp.store.claims import Claim, Watch, is_free, try_claim
from pretrain_exp.store.process import process_lives

LONGEST_WAIT = 600.0
POLL_SECONDS = 0.5
CLAIM_POLL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Inline:
    """parallel: jobs side by side; auto is one where a GPU is (a job takes them all), else one a core and at most 4.

    save_seconds: what running jobs get to write a checkpoint after Ctrl-C, SIGTERM or SIGHUP; a second one ends them
    at once.
    """

    parallel: int | Literal["auto"] = "auto"
    save_seconds: float = 600.0
    waits: ClassVar[bool] = True
    local: ClassVar[bool] = True
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

    def run(self, jobs: Sequence[Job], store: Path, planned: Callable[[], None] | None = None) -> dict[str, Outcome]:
        """Runs all jobs; returns how each ended. Jobs that another process runs are waited for, and taken over.

        On Ctrl-C, SIGTERM and SIGHUP the children save, end, and KeyboardInterrupt goes on.
        """
        if planned is not None:
            planned()  # they were announced, and are run as long as this process lives
        outcomes: dict[str, Outcome] = {}
        lifeline, own_end = os.pipe()
        try:
            with _ended_alike(), Board() as board, ThreadPoolExecutor(self.slots()) as pool:
                try:
                    self._run_all({job.id: job for job in jobs}, outcomes, store, board, pool, lifeline)
                except KeyboardInterrupt:
                    self._interrupt(board)
                    raise
        finally:
            os.close(own_end)
            os.close(lifeline)
        return outcomes

    def _run_all(
        self,
        waiting: dict[str, Job],
        outcomes: dict[str, Outcome],
        store: Path,
        board: Board,
        pool: ThreadPoolExecutor,
        lifeline: int,
    ) -> None:
        """Starts what is ready and claimed by nobody else, until all has ended; fills `outcomes`."""
        running: dict[Future[Outcome | None], Job] = {}
        watches, former = {job: Watch() for job in waiting}, _Former()
        slots = self.slots()
        while waiting or running:
            for job in _ready(waiting, running.values(), outcomes):
                if len(running) == slots:
                    break
                if not is_free(store, job.id, watches[job.id]) or former.lives(job):
                    continue
                claim = try_claim(store, job.id, watches[job.id])
                if claim is not None:
                    del waiting[job.id]
                    running[pool.submit(self._run_job, job, claim, board, lifeline)] = job
            if waiting and not running:
                time.sleep(CLAIM_POLL_SECONDS)  # all that is ready is run by others
            for future in wait(running, CLAIM_POLL_SECONDS if waiting else None, FIRST_COMPLETED).done:
                job, outcome = running.pop(future), future.result()
                if outcome is None:
                    waiting[job.id] = job
                else:
                    outcomes[job.id] = outcome

    def _run_job(self, job: Job, claim: Claim, board: Board, lifeline: int) -> Outcome | None:
        """How a job ended; None where another process took its claim over."""
        started = time.time()
        with claim, board.follow(job) as line:
            try:
                outcome = self._until_settled(job, claim, line, lifeline)
            except OSError as error:  # no space for its log, no process for its command: of this job, not of the others
                line.failed(str(error))
                outcome = Outcome(job, "failed", f"cannot be started: {error}", log=job.folder / "log.txt")
        if outcome is not None:
            outcome.seconds = time.time() - started
        return outcome

    def _until_settled(self, job: Job, claim: Claim, line: Line, lifeline: int) -> Outcome | None:
        """Starts the job until it is done or hopeless; None where another process took the claim over meanwhile."""
        attempts, failures, last_failure, log = 0, 0, "", job.folder / "log.txt"
        while not job.done():
            if self._stop.is_set():
                return Outcome(job, "skipped", "interrupted", attempts=attempts, log=log)
            if claim.lost.is_set():  # while this one waited to try again
                return None
            attempts += 1
            line.attempt(attempts)
            started = time.time()
            code = self._child(job, attempts, claim, lifeline)
            if job.done():
                job.write_took(time.time() - started)
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

    def _child(self, job: Job, attempt: int, claim: Claim, lifeline: int) -> int:
        """Runs the command once to its end and returns its exit status. Ends it at once when the claim is lost."""
        job.write()
        (job.folder / "error.json").unlink(missing_ok=True)
        runner = [sys.executable, "-m", "pretrain_exp.executor.child", str(lifeline), str(job.folder)]
        inherited = {name: value for name, value in os.environ.items() if name not in OF_A_RANK}
        with open(job.folder / "log.txt", "ab") as log:
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            log.write(f"--- {now}, attempt {attempt}: {' '.join(job.command)}\n".encode())
            log.flush()
            child = subprocess.Popen(
                [*runner, *job.command],
                cwd=job.directory,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**inherited, **job.environment, **claim.environment()},
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
        try:
            self._stop.set()
            with self._lock:
                children = list(self._children.values())
            for child in children:
                _signal_group(child, signal.SIGTERM)
            if children:
                until = f"for at most {self.save_seconds:.0f} s; Ctrl-C again ends them at once"
                board.console.print(f"running jobs save and end, {until}", highlight=False)
            deadline = time.monotonic() + self.save_seconds
            for child in children:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.1, deadline - time.monotonic()))
        finally:
            with self._lock:
                children = list(self._children.values())
            for child in children:
                _signal_group(child, signal.SIGKILL)


class _Former:
    """Processes that an earlier start, whose controller is gone, left in the folders of jobs on this machine."""

    def __init__(self) -> None:
        self._asked_at: dict[int, float] = {}

    def lives(self, job: Job) -> bool:
        """Asks one to save and end; insists later. It still has its claim then, so what it saves is not lost."""
        path = job.folder / PROCESS
        record = json.loads(path.read_text()) if path.is_file() else {}
        if not record or not process_lives(record):
            return False
        pid, now = record["pid"], time.monotonic()
        with suppress(ProcessLookupError, PermissionError):  # another user's is waited for
            if pid not in self._asked_at:
                self._asked_at[pid] = now
                os.killpg(pid, signal.SIGTERM)
            elif now > self._asked_at[pid] + GRACE_SECONDS:
                os.killpg(pid, signal.SIGKILL)
        return True


def _ready(waiting: dict[str, Job], running: Collection[Job], outcomes: dict[str, Outcome]) -> list[Job]:
    """The waiting jobs that can start: every need has ended, or is no job of this call (the store holds it already), or
    what it reads is there before its needs have ended.

    What is done by now, by whomever, and what needs a failed job is moved to `outcomes` instead.
    """
    busy = {job.id for job in running}
    ready: list[Job] = []
    settled = True
    while settled:
        settled, ready = False, []
        unended = waiting.keys() | busy
        for job in [job for job in waiting.values() if not job.needs & unended or job.readable()]:
            failed = [need for need in sorted(job.needs) if need in outcomes and outcomes[need].state != "done"]
            if job.done():
                outcomes[job.id] = Outcome(job, "done", log=job.folder / "log.txt")
            elif failed and not job.readable():
                outcomes[job.id] = Outcome(job, "skipped", f"needs {failed[0]}, which did not finish")
            else:
                ready.append(job)
                continue
            del waiting[job.id]
            settled = True
    return ready


@contextmanager
def _ended_alike() -> Iterator[None]:
    """SIGTERM (of a batch system, of a machine that goes down) and SIGHUP (a closed terminal) act as Ctrl-C does.

    But where they are ignored, as nohup has it.
    """
    if current_thread() is not main_thread():
        yield
        return
    heard = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    former = {number: signal.signal(number, _interrupt_main) for number in heard}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _interrupt_main(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        if child.poll() is None:
            os.killpg(child.pid, number)
