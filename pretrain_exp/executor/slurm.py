"""Submits every job of a study to Slurm, each depending on what it needs, and returns.

    jobs --check--> sbatch, in the order of their needs --> slurm.json in each job's folder   (slurm_job.py runs them)

A job is submitted under a claim, by whichever of several studies comes first; one that waits or runs already is
depended upon. If a submission fails, those of the same call are taken back, unless another job depends on one by now.
Nothing has to stay alive here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError
from rich.console import Group

from pretrain_exp.errors import Problems, UserError
from pretrain_exp.executor.base import Job, Outcome
from pretrain_exp.executor.progress import Board
from pretrain_exp.executor.slurm_files import (
    Submission,
    clear_run,
    forget,
    read_submission,
    submitted_after,
    write_spec,
    write_submission,
)
from pretrain_exp.executor.slurm_options import Resources, part_of, problems, shorter
from pretrain_exp.executor.slurm_plan import describe, longest_chain, shown
from pretrain_exp.executor.slurm_queue import Queued, alive, cancel, depended_upon, look, until_answered
from pretrain_exp.executor.slurm_site import missing_commands, missing_commands_problem, partitions, refusal
from pretrain_exp.executor.slurm_status import standings_in
from pretrain_exp.executor.slurm_submit import submit
from pretrain_exp.framework.base import Framework
from pretrain_exp.kinds import problems_of, signature_model
from pretrain_exp.store.claims import claimed

POLL_SECONDS = 10.0
CLAIM_POLL_SECONDS = 0.2
MINUTES = 120  # of an evaluation or a report, of which nothing else is said


@dataclass(frozen=True, kw_only=True)
class Slurm(Resources):
    """Resources of a training job. evaluate, report: fields of these jobs, where they differ from `resources`."""

    local: ClassVar[bool] = False
    cpu_partition: str | None = None  # for jobs without GPUs; None: partition
    evaluate: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    setup: tuple[str, ...] = ()  # shell lines that a job runs first: module load ...
    wait: bool = False  # stay until all has ended

    def __post_init__(self) -> None:
        for kind in ("evaluate", "report"):
            self._differing(kind)

    @property
    def waits(self) -> bool:
        return self.wait

    def resources(self, kind: str) -> Resources:
        """What a job of this kind gets: training what is said, the others a part of it, unless more is said of them.

        Evaluations: one GPU of one node, that GPU's share of the node's CPUs and memory, and at most two hours.
        Reports: the same without the GPU. Of `extra`, what says who asks and where, not for how much.
        """
        training = Resources(**{name: getattr(self, name) for name in Resources.__dataclass_fields__})
        if kind == "train":
            return training
        said = self._differing(kind)
        gpus = said.get("gpus_per_node", min(1, self.gpus_per_node) if kind == "evaluate" else 0)
        own: dict[str, Any] = part_of(training, gpus)
        if "time" not in said:
            own["time"] = shorter(training.time, MINUTES)
        if not gpus:
            own |= {"partition": self.cpu_partition or self.partition, "constraint": None}
        return replace(training, **{**own, **said})

    def _differing(self, kind: str) -> dict[str, Any]:
        """The fields given for a kind of jobs, checked. UserError with the first that is wrong."""
        fields, given = signature_model(Resources), dict(getattr(self, kind))
        try:
            checked = fields.model_validate(given)
        except ValidationError as error:
            raise problems_of(error, kind, fields)[0] from None
        return {name: getattr(checked, name) for name in given}

    def place(self, framework: Framework) -> Framework:
        """The framework, told what its jobs will find: not the GPUs of the machine that submits."""
        training = self.resources("train")
        return framework.elsewhere(training.nodes * training.ranks, training.device)

    def describe(self, jobs: Sequence[Job], seconds: Mapping[str, float | None]) -> Group:
        """What these jobs would ask of Slurm. seconds: a guess for each job, by its id; None where there is none."""
        return shown(describe(jobs, self.resources, seconds), longest_chain(jobs, seconds))

    def check(self, jobs: Sequence[Job]) -> list[UserError]:
        """All that would make Slurm refuse these jobs, or train them wrongly; asks Slurm, submits nothing."""
        missing = missing_commands()
        if missing:
            return [missing_commands_problem(missing)]
        known = partitions()
        found: dict[str, UserError] = {}
        for kind in sorted({job.kind for job in jobs}, key=("train", "evaluate", "report").index):
            section = "executor" if kind == "train" else f"executor.{kind}"
            wrong = [problem.under(section) for problem in problems(self.resources(kind), known)]
            refused = None if wrong else refusal(self.resources(kind).options())
            if refused is not None:
                fix = "the words are Slurm's own; the options of sbatch stand in `pretrain-exp plan`"
                wrong.append(UserError(f"sbatch refuses this job: {refused}", key=section, fix=fix))
            found |= {problem.render(): problem for problem in wrong}
        for job in jobs:
            if job.kind == "train" and not job.rank_command and self.nodes > 1:
                problem = "this framework trains on one node only"
                found[problem] = UserError(problem, key="executor.nodes", value=self.nodes, fix="executor.nodes=1")
        return list(found.values())

    def run(self, jobs: Sequence[Job], store: Path, planned: Callable[[], None] | None = None) -> dict[str, Outcome]:
        """Submits what is neither done nor alive. Raises Problems before anything, UserError after all was taken back.

        Returns how each job stands: done, or submitted; with `wait` how each ended.
        """
        missing = [job for job in jobs if not job.done()]
        if wrong := self.check(missing):
            raise Problems(wrong, "the jobs cannot be submitted")
        known = [submission.id for job in missing if (submission := read_submission(job.folder))]
        living = alive(known)
        outcomes: dict[str, Outcome] = {}
        ids: dict[str, str] = {}
        mine: list[tuple[Job, str]] = []
        try:
            for job in in_order(jobs):
                outcomes[job.id] = self._submit(job, store, living, ids, mine)
        except BaseException:
            take_back(mine)
            raise
        if planned is not None:
            planned()
        return self._follow(jobs, outcomes) if self.wait else outcomes

    def _submit(
        self, job: Job, store: Path, living: set[str], ids: dict[str, str], mine: list[tuple[Job, str]]
    ) -> Outcome:
        """Submits one job, or finds that another call did. ids: Slurm's number of each job that is not done."""
        with claimed(store, f"submit-{job.id}", poll=CLAIM_POLL_SECONDS):
            if job.done():
                return Outcome(job, "done")
            before = read_submission(job.folder)
            if before and (before.id in living or alive([before.id])):
                (job.folder / "slurm" / "cancelled").unlink(missing_ok=True)
                ids[job.id] = before.id
                return Outcome(job, "submitted", f"Slurm job {before.id}, submitted before", log=job.folder / "log.txt")
            unnoted = submitted_after(job.folder, before)
            if unnoted and alive([unnoted]):
                return self._noted(job, unnoted, ids, "submitted by a call that was cut short")
            job.write()
            clear_run(job.folder)
            needed = sorted({ids[need] for need in job.needs if need in ids}, key=int)
            resources = self.resources(job.kind)
            write_spec(job, store, resources)
            number = submit(job, resources, needed, self.setup)
            mine.append((job, number))
            return self._noted(job, number, ids)

    def _noted(self, job: Job, number: str, ids: dict[str, str], how: str = "") -> Outcome:
        """Writes down that Slurm has a job."""
        options = self.resources(job.kind).options()
        write_submission(job.folder, Submission(number, time.time(), sorted(job.needs & ids.keys()), options))
        ids[job.id] = number
        said = f"Slurm job {number}, {how}" if how else f"Slurm job {number}"
        return Outcome(job, "submitted", said, log=job.folder / "log.txt")

    def _follow(self, jobs: Sequence[Job], outcomes: dict[str, Outcome]) -> dict[str, Outcome]:
        """Stays until no job lives; then says how each ended."""
        with Board() as board, ExitStack() as lines:
            for job in jobs:
                if outcomes[job.id].state == "submitted":
                    lines.enter_context(board.follow(job))
            say = partial(board.console.print, highlight=False, markup=False)
            queue: dict[str, Queued] = {}
            followed: list[str] = []
            while followed != (numbers := _numbers(jobs)):  # another call may have submitted one anew meanwhile
                followed = numbers
                queue = until_answered(partial(look, numbers), POLL_SECONDS, say)
                while any(queued.alive for queued in queue.values()):
                    time.sleep(POLL_SECONDS)
                    queue = until_answered(partial(look, numbers), POLL_SECONDS, say)
        ended, told = {}, standings_in(jobs, queue)
        for job in jobs:
            state, message = told.get(job.id, ("done", ""))
            log = outcomes[job.id].log
            if state == "done":
                ended[job.id] = Outcome(job, "done", log=log)
            else:
                ended[job.id] = Outcome(
                    job, "skipped" if state in ("skipped", "cancelled") else "failed", message, log=log
                )
        return ended


def _numbers(jobs: Sequence[Job]) -> list[str]:
    """Slurm's numbers of those of these jobs that were submitted."""
    return [submission.id for job in jobs if (submission := read_submission(job.folder))]


def take_back(submitted: Sequence[tuple[Job, str]]) -> None:
    """Cancels what a call submitted before it failed: no half of a graph is left in the queue.

    Only what a job of another call depends on by now stays, with what that needs in turn.
    """
    others_need = depended_upon(number for _, number in submitted)
    kept: set[str] = set()
    for job, number in reversed(submitted):  # in the order of their needs
        if number in others_need or job.id in kept:
            kept |= {job.id, *job.needs}
    gone = [(job, number) for job, number in submitted if job.id not in kept]
    if gone:
        cancel([number for _, number in gone])
    for job, number in gone:
        forget(job.folder, number)


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, each after those of them that it needs. UserError where they need each other."""
    by_id = {job.id: job for job in jobs}
    placed: dict[str, Job] = {}
    waiting = list(jobs)
    while waiting:
        ready = [job for job in waiting if all(need in placed or need not in by_id for need in job.needs)]
        if not ready:
            raise UserError(f"{len(waiting)} jobs need each other", value=[job.id for job in waiting])
        placed |= {job.id: job for job in ready}
        waiting = [job for job in waiting if job.id not in placed]
    return list(placed.values())
