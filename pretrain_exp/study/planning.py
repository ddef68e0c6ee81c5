"""From the members of a study to its jobs, beside those of other studies that live.

    runs, requests --what the store holds, what is coming--> graph --> own segments and evaluations
                                                                 \\-> jobs of other studies, adopted

A state or an evaluation that a living job of another study makes is not made again: what needs it needs that job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from pretrain_exp.executor.base import Job
from pretrain_exp.store.claims import claimed
from pretrain_exp.store.states import can_start, is_complete, state_dir
from pretrain_exp.study.coming import PLANNING, Coming, await_end, find_coming
from pretrain_exp.study.graph import build_nodes, build_segments, way
from pretrain_exp.study.jobs import EvaluationRequest, evaluate_job, missing_specs, train_job
from pretrain_exp.study.loops import end_path, look_job
from pretrain_exp.study.member import Member
from pretrain_exp.study.registry import known_steps


def agreed_jobs(
    members: Sequence[Member],
    requests: Sequence[EvaluationRequest],
    store: Path,
    folder: Path,
    local: bool,
    console: Console,
    planning: ExitStack,
) -> tuple[list[Job], list[str]]:
    """What `study_jobs` returns, under the claim on planning, which `planning` then holds.

    What the other kind of executor is making is waited for first: a queue cannot depend on a process, and a process
    must not run what waits in a queue. local: of the executor.
    """
    while True:
        planning.enter_context(claimed(store, PLANNING, poll=0.2))
        coming = find_coming(store, wanted_files(members, requests, store), folder)
        jobs, reused = study_jobs(members, requests, store, coming)
        others = [job for job in jobs if job.id in coming.jobs and (job.id in coming.queued) == local]
        if not others:
            return jobs, reused
        planning.close()
        where = "the Slurm queue" if local else "a process of executor=inline"
        names = ", ".join(job.title for job in others)
        say = partial(console.print, highlight=False, markup=False)
        say(f"waiting for what {where} makes already: {names}")
        await_end(others, say)


def wanted_files(members: Sequence[Member], requests: Sequence[EvaluationRequest], store: Path) -> Iterator[Path]:
    """The records of all states on the ways of these members, and of the evaluations that are asked for."""
    for run in (run for member in members for run in member.runs.values()):
        for step in {*run.steps, *known_steps(store, run.base)}:
            if run.first_step <= step <= run.last_step:
                yield _record(store, run.key(step))
        end = end_path(run, store)
        if end is not None:
            yield end
    for request in requests:
        yield from _files(request, store)


def study_jobs(
    members: Sequence[Member], requests: Sequence[EvaluationRequest], store: Path, coming: Coming
) -> tuple[list[Job], list[str]]:
    """The jobs that make what the store lacks, and the keys of the states that it holds already.

    Among the jobs are those of other studies (`coming`) that make a part of it; they are `adopted`.
    """
    runs = [run for member in members for run in member.runs.values()]

    def has_weights(key: str) -> bool:
        return can_start(store, key) or coming.of(_record(store, key)) is not None

    def is_trained(key: str) -> bool:
        return is_complete(store, key) or coming.of(_record(store, key)) is not None

    nodes = build_nodes(runs, has_weights, lambda base: known_steps(store, base))
    to_score = unshared(requests, store, coming)
    unscored = {request.state for request in to_score if missing_specs(request, store)}
    looks = [(run, end) for run in runs if (end := end_path(run, store)) is not None and not end.is_file()]
    unscored |= {run.key(run.last_step) for run, end in looks if coming.of(end) is None}
    segments = build_segments(nodes, is_trained, has_weights, unscored)
    owner = {id(run): member for member in members for run in member.runs.values()}
    awaited = {key: job for key in nodes if not can_start(store, key) and (job := coming.of(_record(store, key)))}
    maker, own = dict(awaited), {}
    for segment in sorted(segments, key=lambda segment: segment.run.after is not None):  # those that follow come last
        member = owner[id(segment.run)]
        job = train_job(segment, member.composed.kinds.framework, member.config, store, maker)
        maker |= {key: job for _, key in segment.saves}
        own[job.id] = job
    for request in to_score:
        scoring = evaluate_job(request, store, maker)
        if scoring is not None:
            own.setdefault(scoring.id, scoring)
    for run, end in looks:
        looking = coming.of(end) or look_job(run, store, maker)
        if looking is not None and looking.id not in coming.jobs:
            own[looking.id] = looking
    wanted = {need for job in own.values() for need in job.needs}
    wanted |= {job.id for _, end in looks if (job := coming.of(end)) is not None}
    asked_for = [key for run in runs for key in map(run.key, run.steps) if not is_complete(store, key)]
    wanted |= {awaited[key].id for key in asked_for if key in awaited}
    wanted |= {job.id for request in requests for path in _files(request, store) if (job := coming.of(path))}
    reused = sorted({key for run in runs for key in way(run, nodes) if is_complete(store, key)})
    return [*coming.with_needs(sorted(wanted)), *own.values()], reused


def unshared(requests: Sequence[EvaluationRequest], store: Path, coming: Coming) -> list[EvaluationRequest]:
    """The requests, each less what a job of another study will score, or one before it in this study asks for.

    Members that share a state share what is the same for all of them, such as a loss on held-out documents.
    """
    taken: set[Path] = set()
    left = []
    for request in requests:
        specs = zip(request.evaluations, _files(request, store), strict=True)
        own = {path: spec for spec, path in specs if path not in taken and coming.of(path) is None}
        taken |= own.keys()
        left.append(replace(request, evaluations=tuple(own.values())))
    return left


def _files(request: EvaluationRequest, store: Path) -> list[Path]:
    return [spec.folder(store, request.state) / "eval.json" for spec in request.evaluations]


def _record(store: Path, key: str) -> Path:
    return state_dir(store, key) / "state.json"
