"""Closed loops in a study: an arm whose slices are planned one after the other, as a run and as jobs.

    first --job: plan, train--> b1 --job--> b2 ... --job--> last --job: look--> what the loop came to
                                                              \\--job: plan, train--> the placebo, which follows

All jobs are known and submitted at once; what each trains it finds out when it starts (control/plan_slice.py). The
states of such an arm go by their aliases (control/loop.py), from the graph to the report.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pretrain_exp.config import Config
from pretrain_exp.control.loop import Loop, record_path
from pretrain_exp.errors import UserError
from pretrain_exp.executor.base import Job
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.dynamic_control import DynamicControl
from pretrain_exp.plan.folder import Plan
from pretrain_exp.store.keys import digest
from pretrain_exp.store.states import state_dir
from pretrain_exp.study.graph import Run

PROBING = "pretrain_exp.control.plan_slice"  # the module that looks at a state


def loop_of(config: Config, prints: Mapping[str, Any], base: str, plan: Plan, every: int) -> Loop:
    """The loop of a run. prints: of its insertions that are loops; base: key of its facts; plan: what else is planned.

    UserError where a table of the plan is wanted, which is not known yet.
    """
    if config.export_plan is not None:
        problem = "the plan of a closed loop is known only when it has run"
        fix = "take ledger.parquet of the plan that the report names, then"
        raise UserError(problem, key="export_plan", value=config.export_plan, fix=fix)
    facts = {
        "base": base,
        "plan": plan.fingerprint,
        "seed": plan.seed,
        "dtype": config.evaluation.dtype,
        "insertions": dict(prints),
    }
    return Loop.named(facts, config.first_step, config.last_step, every)


def closed(
    runs: Mapping[str, Run],
    kinds: Mapping[str, DynamicControl],
    contexts: Mapping[str, InsertionContext],
    config: Config,
    plan: Plan,
) -> dict[str, Run]:
    """The runs of a member by arm, those that a loop plans as such: treated, and the placebo that follows its slices.

    kinds: the insertions that are loops; plan: the treated arm's, so far.
    """
    prints = {name: digest(kind.fingerprint(contexts[name])) for name, kind in kinds.items()}
    loop = loop_of(config, prints, runs["treated"].base, plan, next(iter(kinds.values())).every)
    told = {
        **loop.to_json(),
        "plan": str(plan.folder.absolute()),
        "seed": plan.seed,
        "insertions": {name: kind.located(config.insertion[name]) for name, kind in kinds.items()},
        "prints": prints,
        "framework": config.framework,
        "device": config.evaluation.device,
        "dtype": config.evaluation.dtype,
        "placebo": "placebo" in runs,
    }

    def of(arm: str, run: Run) -> Run:
        job = {**run.job, "loop": {**told, "role": arm}}
        steps, cuts = run.steps | {loop.first_step}, frozenset({loop.first_step})
        if arm == "treated":
            steps, cuts = steps | set(loop.boundaries), frozenset(loop.boundaries)
        return replace(run, prefix=loop.prefix(run.prefix, arm), job=job, steps=steps, cuts=cuts)

    found = {arm: run if arm == "control" else of(arm, run) for arm, run in runs.items()}
    last = found["treated"].key(loop.last_step)
    return {arm: replace(run, after=last) if arm == "placebo" else run for arm, run in found.items()}


def end_path(run: Run, store: Path) -> Path | None:
    """Where it is recorded what a loop came to; None for a run that is none."""
    told = run.job.get("loop", {})
    return record_path(store, Loop.from_json(told), run.last_step) if told.get("role") == "treated" else None


def look_job(run: Run, store: Path, maker: Mapping[str, Job]) -> Job | None:
    """The job that probes the last state of a loop; None where that is done, or where there is no loop."""
    path, last = end_path(run, store), run.key(run.last_step)
    if path is None or path.is_file():
        return None
    key = digest(["look", last])
    folder = store / "jobs" / f"evaluate-{key}"
    told, state = run.job["loop"], str(state_dir(store, last))
    payload = {
        **run.job,
        "loop": {**told, "role": "end"},
        "start": {"state": state, "step": run.last_step},
        "store": str(store),
        "live": str(folder),
        # as an evaluation names what it scores, and how
        "state": state,
        "evaluations": [{"target": PROBING, "args": {"insertions": told["insertions"]}}],
        **{name: told[name] for name in ("device", "dtype")},
    }
    return Job(
        key=key,
        kind="evaluate",
        title=f"probe {run.label} step {run.last_step}",
        folder=folder,
        command=(sys.executable, "-m", PROBING, str(folder / "job.json")),
        environment={"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        needs=frozenset({maker[last].id} if last in maker else ()),
        makes=(path,),
        payload=payload,
        total=100,
        unit="percent",
        retries=2,
    )


def record_of(run: Run) -> dict[str, Any] | None:
    """What member.json keeps of the loop of an arm."""
    told = run.job.get("loop")
    return None if told is None else {**Loop.from_json(told).to_json(), "role": told["role"]}
