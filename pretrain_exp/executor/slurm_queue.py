"""Which jobs live, and ending them. Slurm is asked nothing else: what a job did stands in its files.

    ids --squeue--> Queued(state, reason, nodes)      works without accounting, so without sacct

Slurm forgets ended jobs after minutes: an id that is not found is not alive.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pretrain_exp.executor.slurm_site import SlurmError, ask

_T = TypeVar("_T")
_ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "LAUNCH_FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "RECONFIG_FAIL",
    "REVOKED",
    "TIMEOUT",
}
_ON_NODES = {"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
_IDS_A_CALL = 500


@dataclass(frozen=True)
class Queued:
    """A job as squeue shows it."""

    state: str
    reason: str
    nodes: str

    @property
    def alive(self) -> bool:
        """Not ended. A state that a later Slurm invents counts as alive: submitting twice is the worse error."""
        return self.state not in _ENDED

    @property
    def running(self) -> bool:
        return self.state in _ON_NODES


def look(ids: Iterable[str]) -> dict[str, Queued]:
    """What Slurm remembers of these jobs. SlurmError where squeue does not answer: then none is known to have ended."""
    found: dict[str, Queued] = {}
    wanted = sorted(set(ids), key=int)
    for start in range(0, len(wanted), _IDS_A_CALL):
        some = ",".join(wanted[start : start + _IDS_A_CALL])
        try:
            text = ask("squeue", "--noheader", "--states=all", "--format=%A|%T|%r|%N", f"--jobs={some}")
        except SlurmError as error:
            if "Invalid job id" in error.problem:  # squeue's way to say that it knows none of them
                continue
            raise
        for line in text.splitlines():
            job, state, reason, nodes = line.strip().split("|", 3)
            found[job] = Queued(state, reason, nodes)
    return found


def alive(ids: Iterable[str]) -> set[str]:
    """The jobs among `ids` that wait or run."""
    return {job for job, queued in look(ids).items() if queued.alive}


def until_answered(question: Callable[[], _T], seconds: float, say: Callable[[str], object]) -> _T:
    """The answer to a question to Slurm, put again every so many seconds: no answer says nothing about the jobs."""
    said = False
    while True:
        try:
            return question()
        except SlurmError as error:
            if not said:
                say(f"{error.problem}; what was submitted goes on, and this asks again until there is an answer")
            said = True
            time.sleep(seconds)


def depended_upon(ids: Iterable[str]) -> set[str]:
    """Those of these jobs that others, not among them, wait for."""
    own = set(ids)
    if not own:
        return set()
    found: set[str] = set()
    for line in ask("squeue", "--noheader", "--states=PENDING", "--format=%A|%E").splitlines():
        job, _, needs = line.strip().partition("|")
        if job not in own:
            found |= own & set(re.findall(r"(?<=:)\d+", needs))  # afterok:12(unfulfilled),afterany:13_*(unfulfilled)
    return found


def cancel(ids: Sequence[str]) -> None:
    """Ends jobs at once; running ones get Slurm's SIGTERM and the site's KillWait, 30 s as a rule."""
    for start in range(0, len(ids), _IDS_A_CALL):
        ask("scancel", *ids[start : start + _IDS_A_CALL])


def ask_to_save(job: str) -> None:
    """Sends every process of a running job the signal to save and end."""
    ask("scancel", "--signal=USR2", job)
