"""The story of a study, from checked configurations to a report.

    members --prepare--> plans and runs --graph--> segments --jobs--> executor --> states, results --> proof --> report

A single experiment is a study with one member. `run` trains and evaluates what the store lacks; run again, it only reports.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pretrain_exp.compose import Composed, labels
from pretrain_exp.config import Config
from pretrain_exp.errors import Problems, UserError
from pretrain_exp.executor.base import Job, Outcome
from pretrain_exp.provenance import versions
from pretrain_exp.store.states import can_start, is_complete
from pretrain_exp.study.graph import build_nodes, build_segments, way
from pretrain_exp.study.jobs import EvaluationRequest, evaluate_job, evaluation_specs, train_job
from pretrain_exp.study.member import Member, prepare
from pretrain_exp.study.registry import write_member, write_study
from pretrain_exp.study.results import prove, report_study


def run(composed: Sequence[Composed], folder: Path, command: str) -> int:
    """Plans, trains, evaluates and reports a study. Returns 0, or 1 if anything failed."""
    console = Console(stderr=True)
    started = time.time()
    store = _store(composed[0].config)
    members = prepare_all(composed, console)
    requests = {(id(m), arm): evaluation_requests(m, arm) for m in members for arm in m.runs}
    jobs, reused = study_jobs(members, [r for asked in requests.values() for r in asked], store)
    for member in members:
        write_member(member.composed.folder, member_record(member, requests))
    record = study_record(members, jobs, reused, store, command)
    write_study(folder, record)
    console.print(f"{len(jobs)} jobs to run, {len(reused)} states are in the store already", highlight=False)
    try:
        outcomes = composed[0].kinds.executor.run(jobs, store)
    except KeyboardInterrupt:
        write_study(folder, {**record, "status": "interrupted", "controller": None})
        raise
    failures = [failure_sentence(outcome) for outcome in outcomes.values() if outcome.state != "done"]
    seconds = time.time() - started
    record |= {"failures": failures, "cost": cost_of(members, jobs, reused, seconds), "ended": time.time()}
    record |= {"status": "failed" if failures else "done", "controller": None}
    write_study(folder, record)
    if composed[0].config.verify_reads:
        console.print("holding what was read against raw files and ledger", highlight=False)
        wrong = [proof for proof in prove(folder) if not proof["ok"]]
        if wrong:
            failures += [f"what the {proof['arm']} arm read is not what was planned" for proof in wrong]
            write_study(folder, {**record, "failures": failures, "status": "failed"})
    for member in members:
        push_checkpoints(member, store)
    report_study(folder)
    mirror(members, folder)
    for outcome in outcomes.values():
        if outcome.state == "failed":
            console.print(f"\n[bold red]{outcome.job.title} failed[/] (log: {outcome.log})\n{outcome.message}")
    return 1 if failures else 0


def preview(composed: Sequence[Composed], folder: Path, command: str) -> int:
    """Compiles and audits the plans of a study and prints them with what the study would cost. Trains nothing."""
    from pretrain_exp.study.preview import print_cost, print_plan

    console = Console()
    store = _store(composed[0].config)
    members = prepare_all(composed, Console(stderr=True))
    for member in members:
        print_plan(member, console)
    requests = [r for member in members for arm in member.runs for r in evaluation_requests(member, arm)]
    jobs, reused = study_jobs(members, requests, store)
    print_cost(members, jobs, reused, store, console)
    return 0


def evaluate(composed: Sequence[Composed], folder: Path, command: str, targets: Sequence[str]) -> int:
    """Evaluates existing checkpoints, without training."""
    from pretrain_exp.study.checkpoints import evaluate_checkpoints

    if len(composed) != 1:
        raise UserError("evaluate takes no sweep", fix="name several checkpoints instead: pretrain-exp evaluate A B")
    return evaluate_checkpoints(composed[0], folder, command, targets)


def prepare_all(composed: Sequence[Composed], console: Console) -> list[Member]:
    """Prepares every member; all problems of all members are reported before anything is trained."""
    members: list[Member] = []
    problems: list[UserError] = []
    for one, label in zip(composed, labels(composed), strict=True):
        try:
            members.append(prepare(one, label))
        except Problems as found:
            problems += found.problems
        except UserError as error:
            problems.append(error)
    if problems:
        unique = {problem.render(): problem for problem in problems}
        raise Problems(list(unique.values()), "the experiment cannot run")
    return members


def study_jobs(
    members: Sequence[Member], requests: Sequence[EvaluationRequest], store: Path
) -> tuple[list[Job], list[str]]:
    """The jobs that make what the store lacks, and the keys of the states that it holds already."""
    runs = [run for member in members for run in member.runs.values()]
    nodes = build_nodes(runs, lambda key: can_start(store, key))
    segments = build_segments(nodes, lambda key: is_complete(store, key), lambda key: can_start(store, key))
    owner = {id(run): member for member in members for run in member.runs.values()}
    maker: dict[str, Job] = {}
    for segment in segments:
        member = owner[id(segment.run)]
        job = train_job(segment, member.composed.kinds.framework, member.config, store, maker)
        maker |= {key: job for _, key in segment.saves}
    jobs = {job.id: job for job in maker.values()}
    for request in requests:
        scoring = evaluate_job(request, store, maker)
        if scoring is not None:
            jobs.setdefault(scoring.id, scoring)
    reused = sorted({key for run in runs for key in way(run, nodes) if is_complete(store, key)})
    return list(jobs.values()), reused


def evaluation_requests(member: Member, arm: str) -> list[EvaluationRequest]:
    """What is to be scored of one arm: a request for each evaluated step."""
    config, run_ = member.config, member.runs[arm]
    items = None if member.plan is None else str((member.plan.folder / "items.parquet").absolute())
    held_out = str(member.data.held_out.absolute()) if member.data.held_out else None
    specs = evaluation_specs(config, items, member.data.held_out_digest)
    if not specs:
        return []
    return [
        EvaluationRequest(
            state=run_.key(step),
            label=f"{run_.label} step {step}",
            evaluations=specs,
            framework=config.framework,
            inputs={"items": items, "held_out": held_out, "threads": 1},
            device=config.evaluation.device,
            dtype=config.evaluation.dtype,
            retries=config.training.retries,
        )
        for step in member.evaluated_steps()
    ]


def member_record(member: Member, requests: dict[tuple[int, str], list[EvaluationRequest]]) -> dict[str, Any]:
    """member.json."""
    arms = {}
    for arm, run_ in member.runs.items():
        plan = member.plans[arm]
        asked = {request.state: request for request in requests[id(member), arm]}
        kept = {str(step): run_.key(step) for step in sorted(run_.steps)}
        arms[arm] = {
            "plan": None if plan is None else str(plan.folder.absolute()),
            "base": run_.base,
            "last": run_.key(run_.last_step),
            "kept": kept,
            "evaluations": {
                step: {spec.name: spec.fingerprint for spec in asked[key].evaluations}
                for step, key in kept.items()
                if key in asked
            },
        }
    plan = member.plan
    return {
        "label": member.label,
        "seed": member.config.seed.all,
        "seeds": member.seeds,
        "overrides": list(member.composed.overrides),
        "config": member.composed.raw,
        "plan": None if plan is None else str(plan.folder.absolute()),
        "plan_fingerprint": None if plan is None else plan.fingerprint,
        "order": member.order.to_json(),
        "phases": member.phases.to_json(),
        "tokenizer": str(Path(member.data.tokenizer.folder).absolute()),
        "first_step": member.config.first_step,
        "last_step": member.config.last_step,
        "arms": arms,
    }


def study_record(members: list[Member], jobs: list[Job], reused: list[str], store: Path, command: str) -> dict[str, Any]:
    """study.json as it stands before anything runs."""
    study = members[0].config.study
    return {
        "title": study.title or default_title(members),
        "question": study.question or default_question(members),
        "command": command,
        "store": str(store),
        "members": [str(member.composed.folder.absolute()) for member in members],
        "jobs": [job.record() for job in jobs],
        "reused": reused,
        "versions": versions(),
        "cost": {},
        "failures": [],
        "status": "running",
        "started": time.time(),
        "controller": {"pid": os.getpid()},
    }


def default_title(members: list[Member]) -> str:
    insertions = ", ".join(members[0].config.insertion) or "no edits"
    return f"{members[0].config.model.name}: {insertions}"


def default_question(members: list[Member]) -> str:
    config = members[0].config
    what = " and ".join(name.replace("_", " ") for name in config.insertion) or "nothing"
    return f"What does reading {what} during {config.training.num_steps} steps do to {config.model.name}?"


def cost_of(members: list[Member], jobs: list[Job], reused: list[str], seconds: float) -> dict[str, Any]:
    training = members[0].config.training
    steps = sum(job.total - job.first for job in jobs if job.kind == "train")
    return {
        "seconds": round(seconds, 1),
        "tokens trained": steps * training.batch_size * training.sequence_length,
        "training jobs": sum(job.kind == "train" for job in jobs),
        "evaluation jobs": sum(job.kind == "evaluate" for job in jobs),
        "states reused": len(reused),
    }


def failure_sentence(outcome: Outcome) -> str:
    return f"{outcome.job.title}: {outcome.state}: {outcome.message.splitlines()[0] if outcome.message else ''}"


def push_checkpoints(member: Member, store: Path) -> None:
    """Pushes what `hub` names, if anything."""
    if member.config.hub.repo_id is not None:
        from pretrain_exp.study.push import push_member

        push_member(member, store)


def mirror(members: list[Member], folder: Path) -> None:
    """Fills W&B and TensorBoard where the configuration asks for it. Never fatal."""
    tracking = members[0].config.tracking
    if tracking.wandb.enabled or tracking.tensorboard.enabled:
        from pretrain_exp.study.mirror import mirror_study

        mirror_study(folder)


def _store(config: Config) -> Path:
    return Path(config.store).absolute()
