"""The batch side of a job: runs its command as steps of the allocation until it is done, hopeless, or to be requeued.

    sbatch --> run_job --srun--> attempt --> done                            exit status 0: what needs it may start
                  ^                |-------> saved on a signal --> scontrol requeue, goes on from there
                  |--- backoff ----|-------> failed, may pass
                                   |-------> hopeless                        exit status 1: what needs it is cancelled
                                   |-------> claim lost --> waits for it again: another process writes here

Slurm's USR2 (time is nearly over), a preemption's SIGTERM and `scancel --signal` reach the processes of the step and
not this one, which outlives them; SIGTERM here means that Slurm itself ends the job. Whether a job was completed, Slurm
sees by the exit status of this process, which is 0 only when what the job makes is there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import IO, Literal

from pretrain_exp.executor.base import PREEMPTED, failure_message, fingerprint, users_to_mend
from pretrain_exp.executor.progress import read_progress
from pretrain_exp.executor.slurm_files import Attempts, Spec, read_attempts, read_spec, write_attempts
from pretrain_exp.executor.slurm_queue import look
from pretrain_exp.executor.slurm_site import SlurmError, ask
from pretrain_exp.framework.ranked import START
from pretrain_exp.store.claims import Claim, claimed

LONGEST_WAIT = 600.0
POLL_SECONDS = 0.5
LATE_STOPS, IDLE_STOPS = 2, 20  # so often in a row may a job be stopped without a step: time over, any signal
OTHERS_SECONDS = 60  # what the other nodes get to end after the first has
REQUEUE_SECONDS = 300.0
_SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
# a process that dies of the signal was not training yet; a launcher may pass its rank's status on as a byte
_STOPPED = {PREEMPTED, *(128 + n for n in _SIGNALS), *(256 - n for n in _SIGNALS)}

Verdict = Literal["done", "stopped", "failed", "lost"]


def run_job(folder: str) -> None:
    """What submitit calls, once, on the first node of the allocation. Leaves with the job's exit status."""
    status = Batch(Path(folder)).run()
    if status:
        raise SystemExit(status)  # submitit would turn another exception into a status of its own


class Batch:
    """One run of the batch script, from its start or restart to its end."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.spec: Spec = read_spec(folder)
        self.job = self.spec.job
        self.attempts: Attempts = read_attempts(folder)
        self.number = os.environ["SLURM_JOB_ID"]
        self.deadline = time.time() + 60 * self.spec.minutes - self.spec.signal_delay_s
        self.ending = False  # Slurm ends this job
        self.claim: Claim

    def run(self) -> int:
        """Returns the exit status."""
        signal.signal(
            signal.SIGTERM, self._on_end
        )  # in place of submitit's handlers, which save and requeue by themselves
        signal.signal(signal.SIGUSR2, self._pass_on)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        self._child: subprocess.Popen[bytes] | None = None
        verdict: Verdict = "lost"
        while verdict == "lost":
            with claimed(self.spec.store, self.job.id) as self.claim:
                verdict = self._until_settled()
        if verdict == "stopped" and not self.ending and not self._cancelled():
            return self._requeue()
        return {"done": 0, "stopped": PREEMPTED}.get(verdict, 1)

    def _until_settled(self) -> Verdict:
        while not self.job.done():
            if self.ending or self._cancelled():
                return "stopped"
            before = self.attempts.furthest
            self._count_attempt()
            started = time.time()
            code = self._attempt()
            progressed = self._note_progress(before)
            if self.job.done():
                self.job.write_took(time.time() - started)
                break
            if self.claim.lost.is_set():
                return "lost"
            if self.ending or self._cancelled() or code in _STOPPED:
                return self._stopped(progressed)
            if not self._may_pass(code):
                return "failed"
            wait = min(LONGEST_WAIT, self.job.retry_seconds * 2 ** (self.attempts.failures - 1))
            if time.time() + wait > self.deadline:
                return "stopped"  # a requeued job has all its time again
            self._sleep(wait)
        return "done"

    def _count_attempt(self) -> None:
        self.attempts.attempts += 1
        write_attempts(self.folder, self.attempts)
        (self.folder / "error.json").unlink(missing_ok=True)

    def _attempt(self) -> int:
        """Runs the command on all nodes to its end and returns the highest exit status."""
        with open(self.folder / "log.txt", "ab") as log:
            command = step_command(self.spec, self.number, self.attempts.attempts)
            log.write(f"--- attempt {self.attempts.attempts}, Slurm job {self.number}: {' '.join(command)}\n".encode())
            log.flush()
            self._child = self._start(command, log)
            asked_at = None
            while self._child.poll() is None:
                time.sleep(POLL_SECONDS)
                if asked_at is None and self.claim.lost.is_set():
                    self._child.send_signal(signal.SIGTERM)  # srun ends the step at once
                    asked_at = time.time()
                if asked_at is None and self._cancelled():
                    asked_at = time.time()
                if asked_at is not None and time.time() > asked_at + self.spec.signal_delay_s:
                    self._child.send_signal(signal.SIGTERM)  # srun ends the step
                    asked_at = time.time()
            code, self._child = self._child.returncode, None
        return code

    def _start(self, command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self.job.environment, **self.claim.environment()}  # asked for before a commit
        return subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
        )

    def _note_progress(self, before: int | None) -> bool:
        found = read_progress(self.job)
        reached = self.job.first if found is None else found[0]
        self.attempts.furthest = max(reached, self.job.first if before is None else before)
        return before is None or self.attempts.furthest > before

    def _stopped(self, progressed: bool) -> Verdict:
        """On a signal. A job that never gets anywhere within its time would be requeued for ever."""
        kept = self.attempts
        kept.idle_stops = 0 if progressed else kept.idle_stops + 1
        kept.late_stops = 0 if progressed else kept.late_stops + (time.time() >= self.deadline)
        without = "times in a row without a step of progress"
        if kept.late_stops >= LATE_STOPS:
            key = "executor.time" if self.job.kind == "train" else f"executor.{self.job.kind}.time"
            return self._give_up(f"{self.spec.minutes} min were over {LATE_STOPS} {without}: raise {key}")
        if kept.idle_stops >= IDLE_STOPS:
            return self._give_up(f"stopped by a signal {IDLE_STOPS} {without}")
        write_attempts(self.folder, kept)
        return "stopped"

    def _may_pass(self, code: int) -> bool:
        """Notes a failure; False where trying again is no use."""
        message, failure = failure_message(self.folder, code), fingerprint(self.folder, code, self.attempts.furthest)
        self.attempts.failures += 1
        again = failure == self.attempts.last_failure
        self.attempts.last_failure = failure
        if users_to_mend(self.folder):
            self._give_up(message)
        elif again:
            self._give_up(f"failed twice in the same way at the same step, so it was not tried again\n{message}")
        elif self.attempts.failures > self.job.retries:
            self._give_up(f"failed {self.attempts.failures} times\n{message}" if self.job.retries else message)
        write_attempts(self.folder, self.attempts)
        return not self.attempts.given_up

    def _give_up(self, why: str) -> Verdict:
        self.attempts.given_up = why
        write_attempts(self.folder, self.attempts)
        print(why, file=sys.stderr, flush=True)
        return "failed"

    def _requeue(self) -> int:
        """Puts this job back into the queue, under the same number, so that what depends on it goes on waiting."""
        problem = self._asked_to_requeue(time.time() + REQUEUE_SECONDS)
        if problem and not self.ending:
            self._give_up(f"saved, but could not be requeued ({problem}): submit again, it goes on from there")
            return 1
        limit = time.time() + REQUEUE_SECONDS
        while not self.ending and time.time() < limit:  # Slurm ends this process; leaving before would end the job
            time.sleep(POLL_SECONDS)
        return PREEMPTED

    def _asked_to_requeue(self, limit: float) -> str:
        """Asks until Slurm requeues the job. Why it does not: it refused twice, or gave no answer until `limit`."""
        refused = 0
        while not self.ending:
            try:
                ask("scontrol", "requeue", self.number)
            except SlurmError as error:
                running = self._is_running()
                refused = refused + 1 if running else 0
                if refused == 2 or (running is None and time.time() >= limit):
                    return error.problem
                if running is not False:  # the controller was away when it was asked, and may still be
                    time.sleep(POLL_SECONDS)
                    continue
            break
        return ""

    def _is_running(self) -> bool | None:
        """None where squeue does not answer."""
        try:
            queued = look([self.number]).get(self.number)
        except SlurmError:
            return None
        return queued is not None and queued.state == "RUNNING"

    def _sleep(self, seconds: float) -> None:
        end = time.time() + seconds
        while time.time() < end and not self.ending and not self._cancelled():
            time.sleep(min(POLL_SECONDS, max(0.0, end - time.time())))

    def _cancelled(self) -> bool:
        return (self.folder / "slurm" / "cancelled").exists()

    def _on_end(self, number: int, frame: FrameType | None) -> None:
        self.ending = True

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """Somebody signalled the batch script (scancel --batch): the step is meant."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)  # srun hands it to all processes of the step


def step_command(spec: Spec, number: str, attempt: int) -> list[str]:
    """srun with one process a node: torchrun's agent for training over ranks, else the job's command itself."""
    srun = ["srun", f"--nodes={spec.nodes}", f"--ntasks={spec.nodes}", "--ntasks-per-node=1", "--unbuffered"]
    # without its own --cpus-per-task a step may get one CPU, and binding would tie all ranks of a node to it
    srun += [f"--cpus-per-task={spec.cpus_per_task}"] if spec.cpus_per_task else []
    srun += ["--cpu-bind=none", "--kill-on-bad-exit=0", f"--wait={OTHERS_SECONDS}"]
    srun += [f"--chdir={spec.job.directory}"]
    srun += ["--label"] if spec.nodes > 1 else []
    if not spec.job.rank_command:
        return [*srun, *spec.job.command]
    ranks = [part.replace("{device}", spec.device) for part in spec.job.rank_command]
    restart = os.environ.get("SLURM_RESTART_COUNT", "0")
    agent = [ranks[0], START, "pretrain_exp.executor.slurm_agent", f"--nodes={spec.nodes}", f"--ranks={spec.ranks}"]
    agent += [f"--port={port_of(number, attempt)}", f"--id={number}-{restart}-{attempt}", "--"]
    return [*srun, *agent, *ranks]


def port_of(number: str, attempt: int) -> int:
    """Where the nodes of a job meet: below the ports that systems hand out themselves, another one every attempt."""
    return 15000 + (int(number) * 7 + attempt) % 16000
