"""Jobs, and what an executor does with them. A job is a command, a folder and what must be there before and after.

jobs/<kind>-<key>/   job.json (what the command reads)  log.txt  metrics.jsonl (live)  error.json (a failure, in words)
                     took.json
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from pretrain_exp.store.states import write_json

Kind = Literal["train", "evaluate", "report"]
State = Literal["done", "failed", "skipped", "submitted"]
TOOK = "took.json"  # {seconds} of the attempt that brought a job to its end: what later plans reckon with
PREEMPTED = 75  # exit status (EX_TEMPFAIL): saved at a step boundary on a signal, to be started again


@dataclass(frozen=True)
class Job:
    """One process, or one torchrun, that turns what its `needs` left in the store into more of it."""

    key: str  # unique among the jobs of a kind; what the claim is on
    kind: Kind
    title: str
    folder: Path
    command: tuple[str, ...]
    environment: Mapping[str, str]
    needs: frozenset[str]  # ids of jobs that must be done before
    makes: tuple[Path, ...]  # what is there when it is done, and only then
    payload: Mapping[str, Any] | None = None  # job.json, written when the job is started or submitted
    tokens_per_step: int = 0  # of a training job
    first: int = 0  # progress counts from here
    total: int = 0  # to here: steps of training, items of evaluation
    unit: str = "step"
    retries: int = 0
    retry_seconds: float = 5.0
    rank_command: tuple[str, ...] = ()  # what torchrun starts as each rank of a training job; "{device}" is cpu or cuda
    reads: tuple[Path, ...] = ()  # where all of these are there, it may start before its `needs` have ended
    adopted: bool = False  # another study planned it and sees to it; this one needs what it makes
    directory: Path = field(default_factory=Path.cwd)  # where it was planned and is run: its paths may be relative

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.key}"

    def done(self) -> bool:
        return all(path.exists() for path in self.makes)

    def readable(self) -> bool:
        """Whether all that it reads is there already: an evaluation of a state that training has left behind."""
        return bool(self.reads) and all(path.exists() for path in self.reads)

    def write(self) -> None:
        """Makes the job's folder and writes job.json: under the job's claim, before its command is started."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.payload is not None:
            write_json(self.folder / "job.json", dict(self.payload))

    def write_took(self, seconds: float) -> None:
        """Notes how long the attempt was that brought the job to its end."""
        write_json(self.folder / TOOK, {"seconds": round(seconds, 1)})

    def record(self) -> dict[str, Any]:
        """What study.json keeps of a job."""
        return {
            "id": self.id,
            "key": self.key,
            "kind": self.kind,
            "title": self.title,
            "folder": str(self.folder),
            "needs": sorted(self.needs),
            "makes": [str(path) for path in self.makes],
            "reads": [str(path) for path in self.reads],
            "tokens_per_step": self.tokens_per_step,
            "first": self.first,
            "total": self.total,
            "unit": self.unit,
            "adopted": self.adopted,
        }

    def to_json(self) -> dict[str, Any]:
        """All of a job, so that another process can run it."""
        return self.record() | {
            "command": list(self.command),
            "rank_command": list(self.rank_command),
            "environment": dict(self.environment),
            "retries": self.retries,
            "retry_seconds": self.retry_seconds,
            "directory": str(self.directory),
            "payload": None if self.payload is None else dict(self.payload),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Job:
        """The job of `to_json`."""
        return replace(
            cls.from_record(values),
            command=tuple(values["command"]),
            rank_command=tuple(values["rank_command"]),
            directory=Path(values.get("directory", Path.cwd())),  # older records do not say
            **{name: values[name] for name in ("environment", "retries", "retry_seconds", "payload")},
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Job:
        """The job of a record, without what starts it."""
        return cls(
            key=record["key"],
            kind=record["kind"],
            title=record["title"],
            folder=Path(record["folder"]),
            command=(),
            environment={},
            needs=frozenset(record["needs"]),
            makes=tuple(Path(path) for path in record["makes"]),
            reads=tuple(Path(path) for path in record.get("reads", ())),
            tokens_per_step=record["tokens_per_step"],
            first=record["first"],
            total=record["total"],
            unit=record["unit"],
            adopted=record.get("adopted", False),
        )


@dataclass
class Outcome:
    """How a job ended. `message` is what a user reads of a failure."""

    job: Job
    state: State
    message: str = ""
    seconds: float = 0.0
    attempts: int = 0
    log: Path | None = field(default=None)


class Executor(Protocol):
    """Runs jobs in the order of their needs. A failed job skips what needs it and nothing else."""

    @property
    def waits(self) -> bool:
        """True: `run` returns when all has ended; False: when all is submitted."""

    @property
    def local(self) -> bool:
        """True: jobs are run by this very process and end with it; False: they live on in a queue."""

    def run(self, jobs: Sequence[Job], store: Path, planned: Callable[[], None] | None = None) -> dict[str, Outcome]:
        """planned: called as soon as other studies may plan theirs, since these jobs live or will be run from here."""


def failure_message(folder: Path, returncode: int) -> str:
    """One clear message of a command that ended with a status other than 0."""
    how = f"killed by signal {-returncode}" if returncode < 0 else f"exit status {returncode}"
    return job_failure(folder, how)


def job_failure(folder: Path, how: str = "ended without its result", log_lines: int = 12) -> str:
    """What the worker itself said of a failure, else `how` it ended and the last lines of its log."""
    error = folder / "error.json"
    if error.is_file():
        return str(json.loads(error.read_text())["message"])
    log = folder / "log.txt"
    tail = log.read_text(errors="replace").splitlines()[-log_lines:] if log.is_file() else []
    return "\n".join([f"{how}; the last lines of {log}:"] + [f"  | {line}" for line in tail])


def fingerprint(folder: Path, code: int, furthest: int | None) -> str:
    """The way and the step of a failure. Numbers in a message (ports, addresses, ids) are no part of its way."""
    path = folder / "error.json"
    if not path.is_file():
        return f"exit status {code} at {furthest}"
    error = json.loads(path.read_text())
    lines = str(error["message"]).splitlines()
    way = re.sub(r"\d+", "#", lines[0] if lines else "")
    step = error.get("step")
    return f"{error.get('kind')}: {way} at {furthest if step is None else step}"


def users_to_mend(folder: Path) -> bool:
    """Whether the worker itself called its failure the user's to mend."""
    path = folder / "error.json"
    return path.is_file() and json.loads(path.read_text()).get("kind") == "user"
