"""What living jobs of any study will make, so that one which is planned meanwhile needs these instead of making it too.

    own jobs --announce--> jobs/<id>/announced.json, coming/<what it makes>.json --find_coming--> another study's jobs

Studies plan one after the other, each under the claim `planning`, from the look at what is coming to the announcement
of its own jobs. An announced job lives while Slurm has it, or while a process that announced it does. Of that process
and all that adopted the job, whoever has its claim runs it: when one dies, the next goes on from its checkpoint.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pretrain_exp.executor.base import Job
from pretrain_exp.executor.slurm_files import read_submission
from pretrain_exp.executor.slurm_queue import alive, until_answered
from pretrain_exp.store.claims import Claim, Watch, holder_lives
from pretrain_exp.store.states import read_json, write_json

PLANNING = "planning"  # the claim under which a study is planned and announced, and weights are released
ANNOUNCED = "announced.json"  # {job, study: its folder, controllers: claims of the processes that see to it}
POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Coming:
    """The living jobs of other studies. maker: what will be there -> the id of the job that makes it."""

    jobs: Mapping[str, Job] = field(default_factory=dict)
    maker: Mapping[Path, str] = field(default_factory=dict)
    queued: frozenset[str] = frozenset()  # those of them that Slurm has; the others are run by a process

    def of(self, path: Path) -> Job | None:
        """The job that will make this file."""
        return self.jobs[self.maker[path]] if path in self.maker else None

    def with_needs(self, wanted: Iterable[str]) -> list[Job]:
        """These jobs and what they need, as far as it lives, in their order."""
        found: dict[str, Job] = {}
        open_ = [name for name in wanted if name in self.jobs]
        while open_:
            job = self.jobs[open_[-1]]
            needs = sorted(name for name in job.needs if name in self.jobs and name not in found)
            if needs:
                open_ += needs
            else:
                found[job.id] = self.jobs[open_.pop()]
        return list(found.values())


def find_coming(store: Path, paths: Iterable[Path], study: Path) -> Coming:
    """Which of these files living jobs will make. SlurmError where squeue does not answer: then none is known to live.

    Call it under the claim `planning`, and keep that until the jobs that come of it are announced. study: the folder of
    who asks; jobs that it announced itself are found too, and are its own.
    """
    wanted = {path: json.loads(entry.read_text()) for path in paths if (entry := _entry(store, path)).is_file()}
    announced = _read(store, wanted.values())
    living, queued = _living(announced)
    jobs = {
        name: replace(Job.from_json(announced[name]["job"]), adopted=announced[name]["study"] != str(study.absolute()))
        for name in living
    }
    maker = {path: name for path, name in wanted.items() if name in jobs and path in jobs[name].makes}
    return Coming(jobs, maker, frozenset(queued))


def announce(store: Path, jobs: Sequence[Job], study: Path, controller: Claim | None) -> None:
    """Says of these jobs that they will be run: by the process that holds `controller`, or by a queue (None).

    study: the folder of the study that needs them. Those that it adopted stay another's.
    """
    own = [] if controller is None else [controller.reference()]
    (store / "coming").mkdir(parents=True, exist_ok=True)
    for job in jobs:
        path = job.folder / ANNOUNCED
        before = json.loads(path.read_text()) if path.is_file() else {"controllers": []}
        living = [one for one in before["controllers"] if holder_lives(one)]
        whose = before["study"] if job.adopted else str(study.absolute())
        job.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"job": job.to_json(), "study": whose, "controllers": [*living, *own]})
        for made in job.makes:
            write_json(_entry(store, made), job.id)


def await_end(jobs: Sequence[Job], say: Callable[[str], object]) -> None:
    """Returns when none of these jobs lives any longer: done, or ended without it. say: told if squeue is away."""
    watches: dict[str, Watch] = {}
    left = list(jobs)
    while left:
        announced = {job.id: read_json(job.folder / ANNOUNCED) for job in left if not job.done()}
        living, _ = until_answered(partial(_living, announced, watches), POLL_SECONDS, say)
        left = [job for job in left if job.id in living]
        if left:
            time.sleep(POLL_SECONDS)


def _read(store: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The announcements of these jobs and of those that they need; without those that are done."""
    found: dict[str, dict[str, Any]] = {}
    left = list(names)
    while left:
        name = left.pop()
        path = store / "jobs" / name / ANNOUNCED
        if name not in found and path.is_file():
            values = read_json(path)
            if not Job.from_json(values["job"]).done():
                found[name] = values
                left += values["job"]["needs"]
    return found


def _living(
    announced: Mapping[str, Mapping[str, Any]], watches: dict[str, Watch] | None = None
) -> tuple[set[str], set[str]]:
    """The jobs among these that live, and those of them that Slurm has; squeue is asked once.

    watches: kept between calls by who waits, so that a process of another machine can be seen to be dead.
    """
    numbers = {
        name: submission.id
        for name, values in announced.items()
        if (submission := read_submission(Path(values["job"]["folder"])))
    }
    # where there is no squeue nothing can be asked; the claim of each job still keeps it from running twice at a time
    in_queue = alive(numbers.values()) if numbers and shutil.which("squeue") else set()
    queued = {name for name, number in numbers.items() if number in in_queue}
    run = {name for name, values in announced.items() if _has_controller(values["controllers"], watches)}
    return queued | run, queued


def _has_controller(references: Collection[Mapping[str, str]], watches: dict[str, Watch] | None) -> bool:
    for reference in references:
        watch = None if watches is None else watches.setdefault(reference["owner"], Watch())
        if holder_lives(reference, watch):
            return True
    return False


def _entry(store: Path, made: Path) -> Path:
    """Where the maker of a file of the store is named."""
    return store / "coming" / f"{'-'.join(made.relative_to(store).parts)}.json"
