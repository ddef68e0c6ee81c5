"""`pretrain-exp evaluate`: scores existing checkpoints, without training. Folders, hub names, all kept states of a
study.

    targets --resolve--> checkpoints --jobs--> evals/<identity>/<fingerprint>/ --> a table, items.parquet

Results are cached by (weights, tokenizer, items, held-out documents, evaluation, dtype), like those of a study.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pretrain_exp.compose import Composed
from pretrain_exp.errors import UserError
from pretrain_exp.eval.job import EvalJob, EvalTask, digest_file
from pretrain_exp.eval.perplexity import Perplexity
from pretrain_exp.executor.base import Job
from pretrain_exp.framework.base import Framework
from pretrain_exp.store.hub import resolve_revision
from pretrain_exp.store.keys import digest
from pretrain_exp.store.states import can_start
from pretrain_exp.study.jobs import EvaluationRequest, EvaluationSpec, evaluate_job, evaluation_specs
from pretrain_exp.study.registry import read_members, read_study

TOKENIZER_SUFFIXES = (".json", ".txt", ".model", ".tiktoken", ".jinja", ".py")  # of all that may decide the tokens


@dataclass(frozen=True)
class Target:
    """A checkpoint to score. identity: of its weights and tokenizer; state: its key, where the store holds it.

    items, held_out: items.parquet of the study's plan, and the documents that its data source held out.
    """

    label: str
    identity: str
    step: int
    model: str | None = None
    revision: str | None = None
    state: str | None = None
    items: str | None = None
    held_out: str | None = None
    held_out_digest: str = ""


def evaluate_checkpoints(composed: Composed, folder: Path, command: str, targets: Sequence[str]) -> int:
    """Scores every target with the configured evaluations; prints and writes one table.

    Returns 0, or 1 if any failed. Where the executor does not wait, what is not there yet is said to be submitted.
    """
    console = Console()
    config, store = composed.config, Path(composed.config.store).absolute()
    if not config.eval:
        raise UserError(
            "nothing to evaluate", key="eval", value=config.eval, fix="choose some: eval=[perplexity,lm_eval]"
        )
    found = [target for name in targets for target in resolve_target(name, composed.kinds.framework)]
    check_held_out(composed, found)
    jobs: dict[str, Job] = {}
    folders: list[tuple[Target, str, Path]] = []
    for target in found:
        specs = evaluation_specs(config, target.items, target.held_out_digest)
        folders += [(target, spec.name, spec.folder(store, target.identity)) for spec in specs]
        job = _job(target, specs, composed, store)
        if job is not None:
            jobs[job.id] = job
    executor = composed.kinds.executor
    outcomes = executor.run(list(jobs.values()), store)
    submitted = [outcome for outcome in outcomes.values() if outcome.state == "submitted"]
    table = _collect(folders)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "items.parquet")
    (folder / "command.txt").write_text(command + "\n")
    _print(folders, console, absent="[yellow]submitted[/]" if submitted else "[red]failed[/]")
    console.print(f"per item: {folder / 'items.parquet'}", highlight=False)
    if submitted:
        said = f"submitted {len(submitted)} jobs; type the same command again when they have ended"
        console.print(said, highlight=False)
    failed = [outcome for outcome in outcomes.values() if outcome.state not in ("done", "submitted")]
    for outcome in failed:
        console.print(f"[bold red]{outcome.job.title} failed[/]: {outcome.message}")
    return 1 if failed else 0


def resolve_target(name: str, framework: Framework) -> list[Target]:
    """The checkpoints that a word on the command line names. UserError where it names none."""
    path = Path(name)
    if (path / "study.json").is_file():
        return list(_states_of(path))
    if (path / "config.json").is_file():
        weights = framework.initial({"checkpoint": str(path), "config": None, "revision": None})["identity"]
        beside = sorted(file for file in path.iterdir() if file.suffix in TOKENIZER_SUFFIXES and file.is_file())
        identity = digest([weights, [[file.name, digest_file(file)] for file in beside]])
        return [Target(name, f"folder-{identity}", 0, model=str(path.absolute()))]
    if path.exists() or name.startswith(("/", ".", "~")) or name.count("/") > 1:
        fix = "give a Hugging Face folder (config.json), a study's folder (study.json) or a hub name"
        problem = "holds neither a model nor a study" if path.exists() else "no such folder"
        raise UserError(problem, value=name, fix=fix)
    repository, _, revision = name.partition("@")
    commit = resolve_revision(repository, revision or None)
    return [Target(name, f"hub-{digest([repository, commit])}", 0, model=repository, revision=commit)]


def _states_of(folder: Path) -> Iterator[Target]:
    """Every state that a study names and whose weights are still there, each once."""
    study = read_study(folder)
    seen: set[str] = set()
    for member in read_members(study):
        items = str(Path(member["plan"]) / "items.parquet") if member["plan"] else None
        held_out, held_out_digest = member.get("held_out"), member.get("held_out_digest", "")
        for arm, record in member["arms"].items():
            for step, key in record["states"].items():
                if key not in seen and can_start(study["store"], key):
                    seen.add(key)
                    label = " ".join(part for part in (arm, member["label"], f"seed {member['seed']}") if part)
                    yield Target(
                        f"{label} step {step}",
                        key,
                        int(step),
                        state=key,
                        items=items,
                        held_out=held_out,
                        held_out_digest=held_out_digest,
                    )


def check_held_out(composed: Composed, targets: Sequence[Target]) -> None:
    """UserError where documents are to be measured that a target does not come with: before anything runs."""
    for name, evaluation in composed.kinds.evaluations.items():
        if not isinstance(evaluation, Perplexity) or evaluation.files:
            continue
        key = f"eval.{name}.files"
        for target in targets:
            if target.held_out is None:
                problem = f"{target.label} comes with no held-out documents"
                fix = f"name files to measure it on: {key}=[texts.jsonl], or leave it out: ~eval.{name}"
                raise UserError(problem, key=key, value=evaluation.files, fix=fix)
            if not Path(target.held_out).is_file():
                problem, fix = f"the held-out documents of {target.label} are gone", f"{key}=[texts.jsonl]"
                raise UserError(problem, key=key, value=target.held_out, fix=fix)


def _job(target: Target, specs: Sequence[EvaluationSpec], composed: Composed, store: Path) -> Job | None:
    config = composed.config
    if target.state is not None:
        request = EvaluationRequest(
            state=target.state,
            label=target.label,
            evaluations=tuple(specs),
            framework=config.framework,
            inputs={"items": target.items, "held_out": target.held_out, "threads": 1},
            device=config.evaluation.device,
            dtype=config.evaluation.dtype,
            retries=config.training.retries,
            shards=config.evaluation.shards,
        )
        return evaluate_job(request, store, {})
    missing = [spec for spec in specs if not (spec.folder(store, target.identity) / "eval.json").is_file()]
    if not missing:
        return None
    assert target.model is not None
    key = digest([target.identity, sorted(spec.fingerprint for spec in missing)])
    folder = store / "jobs" / f"evaluate-{key}"
    payload = EvalJob(
        model=target.model,
        revision=target.revision,
        evaluations=tuple(
            EvalTask(name=s.name, target=s.target, args=dict(s.args), out=str(s.folder(store, target.identity)))
            for s in missing
        ),
        device=config.evaluation.device,
        dtype=config.evaluation.dtype,
        shards=config.evaluation.shards,
        progress=str(folder / "progress.json"),
        log=str(folder / "log.txt"),
    ).to_json()
    return Job(
        key=key,
        kind="evaluate",
        title=f"evaluate {target.label}",
        folder=folder,
        command=(sys.executable, "-m", "pretrain_exp.eval.worker", str(folder / "job.json")),
        environment={"TOKENIZERS_PARALLELISM": "false"},
        needs=frozenset(),
        makes=tuple(spec.folder(store, target.identity) / "eval.json" for spec in missing),
        payload=payload,
        total=100,
        unit="percent",
        retries=0,
    )


def _collect(folders: list[tuple[Target, str, Path]]) -> pa.Table:
    tables = []
    for target, name, folder in folders:
        if (folder / "items.parquet").is_file():
            table = pq.read_table(folder / "items.parquet")
            labels = {"evaluation": name, "checkpoint": target.label, "identity": target.identity}
            for column, value in labels.items():
                table = table.drop_columns([column]) if column in table.column_names else table
                table = table.append_column(column, pa.array([value] * len(table), pa.string()))
            tables.append(table)
    return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})


def _print(folders: list[tuple[Target, str, Path]], console: Console, absent: str) -> None:
    """What is there, a row a metric. absent: what is said of a result that is not."""
    table = Table(title="evaluations")
    for column in ("checkpoint", "evaluation", "task", "metric", "items", "value"):
        table.add_column(column, justify="right" if column in ("items", "value") else "left")
    for target, name, folder in folders:
        if not (folder / "eval.json").is_file():
            table.add_row(target.label, name, "", absent, "", "")
            continue
        record = json.loads((folder / "eval.json").read_text())
        for note in record["notes"] if not record["summary"] else ():
            table.add_row(target.label, name, "", note, "0", "")
        for task, values in record["summary"].items():
            for metric in sorted(set(values) - {"items"}):
                table.add_row(target.label, name, task, metric, f"{values['items']:.0f}", f"{values[metric]:.4f}")
    console.print(table)
