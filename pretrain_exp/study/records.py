"""What a study writes down of itself before anything runs: members, plans, states, jobs, and its question."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pretrain_exp.config import ModelConfig
from pretrain_exp.executor.base import Job
from pretrain_exp.provenance import versions
from pretrain_exp.store.process import describe_process
from pretrain_exp.study.facts import init_matters
from pretrain_exp.study.jobs import EvaluationRequest
from pretrain_exp.study.loops import record_of
from pretrain_exp.study.member import Member, checkpoint_steps


def member_record(member: Member, requests: dict[tuple[int, str], list[EvaluationRequest]]) -> dict[str, Any]:
    """member.json."""
    arms = {}
    for arm, run_ in member.runs.items():
        plan = member.plans[arm]
        asked = {request.state: request for request in requests[id(member), arm]}
        states = {str(step): run_.key(step) for step in sorted(run_.steps)}
        asked_for = {member.config.last_step, *checkpoint_steps(member.config), *member.evaluated_steps()}
        asked_for |= set(member.config.hub.steps or ())
        arms[arm] = {
            "plan": None if plan is None else str(plan.folder.absolute()),
            "loop": record_of(run_),
            "base": run_.base,
            "last": run_.key(run_.last_step),
            "states": states,
            "keep": sorted({run_.key(step) for step in asked_for}),
            "evaluations": {
                step: {spec.name: spec.fingerprint for spec in asked[key].evaluations}
                for step, key in states.items()
                if key in asked
            },
        }
    plan = member.plan
    return {
        "label": member.label,
        "seed": member.seed,
        "seeds": seeds_that_matter(member),
        "held_out": None if member.data.held_out is None else str(member.data.held_out.absolute()),
        "held_out_digest": member.data.held_out_digest,
        "overrides": list(member.composed.overrides),
        "config": member.composed.raw,
        "plan": None if plan is None else str(plan.folder.absolute()),
        "plan_fingerprint": None if plan is None else plan.fingerprint,
        "findings": list(member.findings),
        "order": member.order.to_json(),
        "phases": member.phases.to_json(),
        "tokenizer": str(Path(member.data.tokenizer.folder).absolute()),
        "first_step": member.config.first_step,
        "last_step": member.config.last_step,
        "arms": arms,
    }


def seeds_that_matter(member: Member) -> dict[str, int]:
    """The named seeds that change what the member's runs come to; an official order brings a seed of its own."""
    config, without = member.config, set()
    if not init_matters(member.initial):
        without.add("init")
    if config.model.data_seed is not None and not config.training.permute_window:
        without.add("order")
    return {name: seed for name, seed in member.seeds.items() if name not in without}


def study_record(
    members: list[Member], jobs: list[Job], reused: list[str], store: Path, command: str
) -> dict[str, Any]:
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
        "cost": cost_of(jobs, reused),
        "failures": [],
        "status": "running",
        "started": time.time(),
        "controller": describe_process(),
    }


def default_title(members: list[Member]) -> str:
    return f"{_models(members)}: {', '.join(_insertions(members)) or 'no edits'}"


def default_question(members: list[Member]) -> str:
    what = [_planted(name, [m for m in members if name in m.config.insertion]) for name in _insertions(members)]
    read = " and ".join(filter(None, (", ".join(what[:-1]), *what[-1:]))) or "nothing but its data"
    steps = " or ".join(dict.fromkeys(str(member.config.training.num_steps) for member in members))
    return f"What does reading {read} during {steps} steps do to {_models(members)}?"


def _planted(name: str, members: list[Member]) -> str:
    """What an insertion plants, where all members say it alike; where what they plant varies, so does the text."""
    kinds = [member.composed.kinds.insertions[name] for member in members]
    said = {kind.describe() for kind in kinds if hasattr(kind, "describe")}
    return said.pop() if len(said) == 1 else f"what {name} plants"


def _insertions(members: list[Member]) -> list[str]:
    return list(dict.fromkeys(name for member in members for name in member.config.insertion))


def _models(members: list[Member]) -> str:
    return ", ".join(dict.fromkeys(model_name(member.config.model) for member in members))


def model_name(model: ModelConfig) -> str:
    """As titles say it: any checkpoint of model=hf has the name of its folder, or of its run's state, or of the hub."""
    if model.name != "hf" or model.checkpoint is None:
        return model.name
    parts = [part for part in Path(model.checkpoint).parts if part != "checkpoint"]  # that of a state says nothing
    return parts[-1] if parts else model.name


def cost_of(jobs: list[Job], reused: list[str]) -> dict[str, Any]:
    """What the study has to spend, as the report shows it."""
    return {
        "tokens trained": sum((job.total - job.first) * job.tokens_per_step for job in jobs if job.kind == "train"),
        "training jobs": sum(job.kind == "train" for job in jobs),
        "evaluation jobs": sum(job.kind == "evaluate" for job in jobs),
        "states reused": len(reused),
    }
