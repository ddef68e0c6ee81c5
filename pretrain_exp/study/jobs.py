"""From a study's graph to jobs: a folder each, with all that its process needs to know.

    segments   -> store/jobs/train-<key>/job.json      -> states/<key>/          (one process, or one torchrun)
    states     -> store/jobs/evaluate-<key>/job.json   -> evals/<state>/<name>/  (one model load serves all evaluations)

A job names its inputs by keys of the store, so that the same job asked for by two studies is the same folder.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pretrain_exp.config import Config, training_facts
from pretrain_exp.control.launch import RESOLVED, wrapped
from pretrain_exp.errors import UserError
from pretrain_exp.eval.job import EvalJob, EvalTask, fingerprint
from pretrain_exp.executor.base import Job
from pretrain_exp.framework.base import Framework
from pretrain_exp.items.planned import planted_items
from pretrain_exp.provenance import code_version
from pretrain_exp.store.keys import digest
from pretrain_exp.store.states import state_dir
from pretrain_exp.study.graph import Segment

JOB_SCHEMA = 1


@dataclass(frozen=True)
class EvaluationSpec:
    """An evaluation as it crosses to another process: its class, its fields, and the fingerprint of what it scores.

    identity: what the fingerprint is a digest of, held-out documents aside; the process holds it against what it finds.
    """

    name: str
    target: str
    args: Mapping[str, Any]
    fingerprint: str
    identity: str

    def folder(self, store: Path, state: str) -> Path:
        return store / "evals" / state / self.fingerprint


@dataclass(frozen=True)
class EvaluationRequest:
    """One state, or another checkpoint, and the evaluations that are asked of it.

    state:     its key; of another checkpoint, the identity of its weights and tokenizer.
    framework: its node in the configuration, `_target_` and all; inputs: what the evaluations read (items, held_out).
    settings:  device, dtype, generation and shards.
    model:     folder or hub name of a checkpoint that is no state of the store; revision: of a hub name.
    seal:      of a folder, see eval/identity.py.
    """

    state: str
    label: str
    evaluations: tuple[EvaluationSpec, ...]
    framework: Mapping[str, Any]
    inputs: Mapping[str, Any]
    settings: Mapping[str, Any]
    retries: int
    model: str | None = None
    revision: str | None = None
    seal: Mapping[str, Any] | None = None


def evaluation_specs(config: Config, items: str | None, held_out_digest: str = "") -> tuple[EvaluationSpec, ...]:
    """The evaluations of a configuration. items: items.parquet of the plan whose items are scored.

    UserError where what one of them reads is not to be had.
    """
    planted = planted_items(items)
    specs = []
    for name, node in config.eval.items():
        args = {key: value for key, value in node.items() if key != "_target_"}
        task = EvalTask(name=name, target=node["_target_"], args=args, out="")
        try:
            identity = fingerprint(task, planted, config.evaluation.dtype, config.evaluation.generation)
        except UserError as error:
            raise error.under(f"eval.{name}") from None
        key = digest({"evaluation": identity, "held_out": held_out_digest})
        specs.append(EvaluationSpec(name, node["_target_"], args, key, identity))
    return tuple(specs)


def evaluation_request(
    config: Config,
    state: str,
    label: str,
    evaluations: tuple[EvaluationSpec, ...],
    items: str | None,
    held_out: str | None,
    model: str | None = None,
    revision: str | None = None,
    framework: Mapping[str, Any] | None = None,
    seal: Mapping[str, Any] | None = None,
) -> EvaluationRequest:
    """What a configuration asks of one checkpoint. framework: that of the state; None = the configured one."""
    evaluation = config.evaluation
    return EvaluationRequest(
        state=state,
        label=label,
        evaluations=evaluations,
        framework=framework or config.framework,
        inputs={"items": items, "held_out": held_out},
        settings={name: getattr(evaluation, name) for name in ("device", "dtype", "generation", "shards")},
        retries=config.training.retries,
        model=model,
        revision=revision,
        seal=seal,
    )


def train_job(segment: Segment, framework: Framework, config: Config, store: Path, maker: Mapping[str, Job]) -> Job:
    """The job of a segment, named by where it begins and what it saves: a folder never serves two spans of steps.

    maker: the jobs of the segments before it, by the states they make.
    """
    numerics = {**framework.numerics(training_facts(config)), "code": code_version()}
    shape = {"sequence_length": config.training.sequence_length, "batch_size": config.training.batch_size}
    saves, parent, parent_step = [], segment.start_key, segment.start_step if segment.start_key else None
    for step, key in segment.saves:
        record = {"step": step, "base": segment.run.base, "parent": parent, "parent_step": parent_step}
        saves.append({"step": step, "key": key, "record": {**record, **shape, "numerics": numerics}})
        parent, parent_step = key, step
    key = digest([segment.start_key, segment.saves])
    folder = store / "jobs" / f"train-{key}"
    start = None if segment.start_key is None else str(state_dir(store, segment.start_key))
    payload = {
        **segment.run.job,
        "schema": JOB_SCHEMA,
        "start": {"state": start, "step": segment.start_step},
        "stop": segment.stop,
        "save": saves,
        "live": str(folder),
        "store": str(store),
    }
    records = tuple(state_dir(store, key) / "state.json" for _, key in segment.saves)
    open_plan = "loop" in segment.run.job and segment.start_key is not None  # where the loop begins, all is known
    told = folder / (RESOLVED if open_plan else "job.json")
    command, rank_command = tuple(framework.command(told)), tuple(framework.rank_command(told))
    if open_plan:
        command = wrapped(folder / "job.json", sys.executable, command)
        rank_command = wrapped(folder / "job.json", rank_command[0], rank_command) if rank_command else ()
    before = [key for key in (segment.start_key, segment.run.after) if key is not None]
    return Job(
        key=key,
        kind="train",
        title=f"train {segment.label}",
        folder=folder,
        command=command,
        rank_command=rank_command,
        environment=framework.environment(),
        needs=frozenset(maker[key].id for key in before if key in maker),
        makes=(*records, state_dir(store, segment.key) / "checkpoint"),
        payload=payload,
        tokens_per_step=config.training.batch_size * config.training.sequence_length,
        first=segment.start_step,
        total=segment.stop,
        retries=config.training.retries,
        retry_seconds=config.training.retry_seconds,
    )


def missing_specs(request: EvaluationRequest, store: Path) -> list[EvaluationSpec]:
    """The evaluations of a request that the store does not hold."""
    return [spec for spec in request.evaluations if not (spec.folder(store, request.state) / "eval.json").is_file()]


def evaluate_job(request: EvaluationRequest, store: Path, maker: Mapping[str, Job]) -> Job | None:
    """The job that scores what is missing of a request; None where nothing is. maker: the job of each state to come."""
    missing = missing_specs(request, store)
    if not missing:
        return None
    key = digest([request.state, sorted(spec.fingerprint for spec in missing)])
    folder = store / "jobs" / f"evaluate-{key}"
    state = state_dir(store, request.state)
    tasks = tuple(
        EvalTask(
            name=spec.name,
            target=spec.target,
            args=dict(spec.args),
            out=str(spec.folder(store, request.state)),
            identity=spec.identity,
        )
        for spec in missing
    )
    if request.model is None:
        module, payload = (
            "pretrain_exp.eval.state",
            {
                "schema": JOB_SCHEMA,
                "framework": dict(request.framework),
                "state": str(state),
                "evaluations": [asdict(task) for task in tasks],
                "live": str(folder),
                "threads": 1,
                **request.inputs,
                **request.settings,
            },
        )
    else:
        module, payload = (
            "pretrain_exp.eval.worker",
            EvalJob(
                model=request.model,
                revision=request.revision,
                seal=None if request.seal is None else dict(request.seal),
                evaluations=tasks,
                progress=str(folder / "progress.json"),
                log=str(folder / "log.txt"),
                **request.inputs,
                **request.settings,
            ).to_json(),
        )
    return Job(
        key=key,
        kind="evaluate",
        title=f"evaluate {request.label}",
        folder=folder,
        command=(sys.executable, "-m", module, str(folder / "job.json")),
        environment={"TOKENIZERS_PARALLELISM": "false", **({} if request.model else {"OMP_NUM_THREADS": "1"})},
        needs=frozenset({maker[request.state].id} if request.state in maker else ()),
        reads=(state / "state.json", state / "checkpoint") if request.model is None else (),
        makes=tuple(spec.folder(store, request.state) / "eval.json" for spec in missing),
        payload=payload,
        total=100,
        unit="percent",
        retries=min(2, request.retries),
    )
