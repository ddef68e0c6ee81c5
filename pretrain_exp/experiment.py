"""The story of a study, from checked configurations to a report.

    members --prepare--> plans and runs --graph--> segments --jobs--> executor --> states, results --> proof --> report

A single experiment is a study with one member. `run` trains and evaluates what the store lacks; run again, it only
reports.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pretrain_exp.compose import Composed, labels
from pretrain_exp.config import training_facts
from pretrain_exp.errors import Problems, UserError
from pretrain_exp.executor.base import Job, Outcome
from pretrain_exp.paths import refuse_unwritable
from pretrain_exp.provenance import code_version, write_patch
from pretrain_exp.store.claims import claimed, is_free
from pretrain_exp.store.keys import digest
from pretrain_exp.store.states import read_record
from pretrain_exp.study.coming import announce, find_coming
from pretrain_exp.study.evaluate_checks import asked_of, refuse_unfit
from pretrain_exp.study.facts import model_facts
from pretrain_exp.study.fetch import fetch_all
from pretrain_exp.study.finish import finish
from pretrain_exp.study.jobs import EvaluationRequest, evaluation_request, evaluation_specs
from pretrain_exp.study.measured import unmeasured
from pretrain_exp.study.member import Member, prepare
from pretrain_exp.study.planning import agreed_jobs, study_jobs, wanted_files
from pretrain_exp.study.preview import print_cost, print_detectable, print_plans
from pretrain_exp.study.records import member_record, study_record
from pretrain_exp.study.registry import remember_steps, write_member, write_study
from pretrain_exp.study.same_study import refuse_another


def run(composed: Sequence[Composed], folder: Path, command: str) -> int:
    """Plans, trains, evaluates and reports a study. Returns 0, or 1 if anything failed."""
    console = Console(stderr=True, markup=False)  # labels and messages may hold [a,b]
    store = _store(composed)
    check_hub(composed)
    members = prepare_all(composed, console)
    requests = fit_requests(members, store)
    records = [member_record(member, requests) for member in members]
    key = f"hydra.{'run' if members[0].composed.folder == folder else 'sweep'}.dir"
    refuse_another(folder, records, store, key)
    fetch_all(members, console)
    asked = [request for of_arm in requests.values() for request in of_arm]
    executor = composed[0].kinds.executor
    with ExitStack() as controlling, ExitStack() as planning:
        # held while this process sees to its jobs: how those who plan other studies know that it does
        whose = f"study-{digest(str(folder.absolute()))}"
        if executor.local and not is_free(store, whose):
            console.print(f"another process runs the study in {folder}: waiting until it has ended", highlight=False)
        controller = controlling.enter_context(claimed(store, whose)) if executor.local else None
        jobs, reused = agreed_jobs(members, asked, store, folder, executor.local, console, planning)
        refuse_another(folder, records, store, key)  # again, now that no other may begin one
        own = [job for job in jobs if not job.adopted]
        for member, its in zip(members, records, strict=True):
            write_member(member.composed.folder, its)
        record = study_record(members, own, reused, store, command) | {"jobs": [job.record() for job in jobs]}
        for remark in remarks(members, reused, [job for job in jobs if job.adopted], store):
            print_note(remark, console)
        write_study(folder, record)
        write_patch(folder)
        remember_steps(store, [run for member in members for run in member.runs.values()])
        announce(store, jobs, folder, controller)
        planned = partial(_planned, planning, members, jobs, reused, store, console)
        if not executor.waits and jobs:
            jobs = [*jobs, finish_job(folder, jobs)]
            write_study(folder, {**record, "jobs": [job.record() for job in jobs], "controller": None})
        ended = {**record, "controller": None}
        try:
            outcomes = executor.run(jobs, store, planned)
        except KeyboardInterrupt:
            write_study(folder, {**ended, "status": "interrupted", "ended": time.time()})
            raise
        except (UserError, Problems):
            write_study(folder, {**ended, "status": "refused", "ended": time.time()})
            raise
    if not executor.waits and jobs:
        console.print(f"submitted; follow it with: pretrain-exp status {folder} --watch", highlight=False)
        return 0
    failures = [failure_sentence(outcome) for outcome in outcomes.values() if outcome.state != "done"]
    status = finish(folder, failures)
    for outcome in outcomes.values():
        if outcome.state == "failed":
            failed = (f"\n{outcome.job.title} failed", "bold red")
            console.print(Text.assemble(failed, f" (log: {outcome.log})\n{outcome.message}"))
    return status


def _planned(
    planning: ExitStack,
    members: Sequence[Member],
    jobs: Sequence[Job],
    reused: Sequence[str],
    store: Path,
    console: Console,
) -> None:
    """Lets other studies plan, and then says what is to run: reckoning that of many items takes its time."""
    planning.close()
    print_cost(members, jobs, reused, store, console)
    if any(not job.adopted for job in jobs):
        print_detectable(members, store, console)


def check_hub(composed: Sequence[Composed]) -> None:
    """Whether checkpoints can be pushed at all, asked before anything is trained."""
    repositories = {one.config.hub.repo_id for one in composed if one.config.hub.repo_id is not None}
    if repositories:
        from pretrain_exp.store.hub import check_push

        for repository in sorted(repositories):
            check_push(repository)


def preview(composed: Sequence[Composed], folder: Path, command: str) -> int:
    """Compiles and audits the plans of a study and prints them with what the study would cost. Trains nothing."""
    console = Console()
    store = _store(composed)
    members = prepare_all(composed, Console(stderr=True), fetch=False)
    print_plans(members, console)
    requests = [request for of_arm in fit_requests(members, store).values() for request in of_arm]
    coming = find_coming(store, wanted_files(members, requests, store), folder)
    jobs, reused = study_jobs(members, requests, store, coming)
    print_cost(members, jobs, reused, store, console)
    print_detectable(members, store, console)
    return 0


def evaluate(composed: Sequence[Composed], folder: Path, command: str, targets: Sequence[str]) -> int:
    """Evaluates existing checkpoints, without training."""
    from pretrain_exp.study.checkpoints import evaluate_checkpoints

    if len(composed) != 1:
        raise UserError("evaluate takes no sweep", fix="name several checkpoints instead: pretrain-exp evaluate A B")
    return evaluate_checkpoints(composed[0], folder, command, targets)


def prepare_all(composed: Sequence[Composed], console: Console, fetch: bool = True) -> list[Member]:
    """Prepares every member; all problems of all members are reported before anything is trained."""
    for remark in dict.fromkeys(remark for one in composed for remark in unmeasured(one.config)):
        print_note(remark, console)
    if len(composed) > 1 and any(one.config.export_plan for one in composed):
        problem = "each member would replace the table of the one before"
        raise UserError(problem, key="export_plan", fix="export one plan")
    members: list[Member] = []
    problems: list[UserError] = []
    for one, (label, seed) in zip(composed, labels(composed), strict=True):
        try:
            members.append(prepare(one, label, seed, fetch))
        except Problems as found:
            problems += found.problems
        except UserError as error:
            problems.append(error)
    if problems:
        unique = {problem.render(): problem for problem in problems}
        raise Problems(list(unique.values()), "the experiment cannot run")
    return members


def print_note(remark: str, console: Console) -> None:
    console.print(Text.assemble(("note: ", "yellow"), remark))


def fit_requests(members: Sequence[Member], store: Path) -> dict[tuple[int, str], list[EvaluationRequest]]:
    """What is to be scored, by member (its id) and arm. Raises Problems where an evaluation cannot be made."""
    requests = {(id(m), arm): evaluation_requests(m, arm) for m in members for arm in m.runs}
    refuse_unfit(asked_of(m, requests[id(m), arm], store) for m in members for arm in m.runs)
    return requests


def evaluation_requests(member: Member, arm: str) -> list[EvaluationRequest]:
    """What is to be scored of one arm: a request for each evaluated step."""
    config, run_ = member.config, member.runs[arm]
    items = None if member.plan is None else str((member.plan.folder / "items.parquet").absolute())
    held_out = str(member.data.held_out.absolute()) if member.data.held_out else None
    specs = evaluation_specs(config, items, member.data.held_out_digest)
    if not specs:
        return []
    return [
        evaluation_request(config, run_.key(step), f"{run_.label} step {step}", specs, items, held_out)
        for step in member.evaluated_steps()
    ]


def remarks(members: Sequence[Member], reused: Sequence[str], adopted: Sequence[Job], store: Path) -> list[str]:
    """What will run and should be known: warnings of the framework, and states of another numerics class.

    reused: keys of states in the store; adopted: jobs of other studies that make more of them.
    Raises UserError where the policy `numerics: refuse` forbids to go on from such states or to compare with them.
    """
    found: dict[str, set[str]] = {}  # and the states that it is said of
    trained = {key: read_record(store, key).get("numerics", {}) for key in reused}
    saves = [save for job in adopted for save in (job.payload or {}).get("save", ())]
    trained |= {save["key"]: save["record"].get("numerics", {}) for save in saves}
    for member in members:
        framework, training = member.composed.kinds.framework, training_facts(member.config)
        for warning in framework.warnings(model_facts(member.config, framework, member.data), training):
            found[warning] = set()
        here = {**framework.numerics(training), "code": code_version()}
        for key, there in trained.items():
            differing = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
            if differing:
                what = ", ".join(f"{name} {there.get(name)} there, {here.get(name)} here" for name in differing)
                problem = f"states of the store were trained under other numerics ({what})"
                if member.config.numerics == "refuse":
                    fix = "numerics=warn, or another store=..."
                    raise UserError(f"{problem}, such as {key}", key="numerics", value="refuse", fix=fix)
                found.setdefault(problem, set()).add(key)
    return [f"{len(keys)} {remark}" if keys else remark for remark, keys in found.items()]


def finish_job(folder: Path, jobs: Sequence[Job]) -> Job:
    """The last job of a study whose jobs run elsewhere: proof and report, whatever the others came to."""
    key = digest([str(folder.absolute()), sorted(job.id for job in jobs)])
    mark = folder.absolute() / "finished" / key  # not the report: one of an earlier submission may stand there
    return Job(
        key=key,
        kind="report",
        title="report",
        folder=folder / "finish",
        command=(sys.executable, "-m", "pretrain_exp.study.finish", str(folder.absolute()), str(mark)),
        environment={},
        needs=frozenset(job.id for job in jobs),
        makes=(mark,),
    )


def failure_sentence(outcome: Outcome) -> str:
    return f"{outcome.job.title}: {outcome.state}: {outcome.message.splitlines()[0] if outcome.message else ''}"


def _store(composed: Sequence[Composed]) -> Path:
    """The one store of a study, made. UserError where its members disagree on where or by whom they are run.

    UserError too where nothing can be written there.
    """
    for key in ("store", "executor"):
        found = {str(getattr(one.config, key)) for one in composed}
        if len(found) > 1:
            raise UserError(
                "must be the same for all members of a study", key=key, value=sorted(found), fix="do not sweep it"
            )
    store = Path(composed[0].config.store).absolute()
    refuse_unwritable(store, "store")
    store.mkdir(parents=True, exist_ok=True)
    return store
