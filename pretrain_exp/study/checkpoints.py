"""`pretrain-exp evaluate`: scores existing checkpoints, without training. Folders, hub names, all kept states of a
study.

    targets --resolve--> checkpoints --jobs--> evals/<identity>/<fingerprint>/ --> a table, items.parquet

Results are cached by (weights, tokenizer, items, held-out documents, evaluation, dtype), like those of a study. States
are scored in the store of their study, also while it still trains, other checkpoints in the configured one; the jobs
are announced there, so that nothing is scored twice at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pretrain_exp.compose import Composed
from pretrain_exp.errors import UserError
from pretrain_exp.eval.identity import folder_identity, is_folder
from pretrain_exp.eval.perplexity import Perplexity
from pretrain_exp.executor.base import Outcome
from pretrain_exp.store.claims import claimed
from pretrain_exp.store.hub import resolve_revision
from pretrain_exp.store.keys import digest
from pretrain_exp.store.states import can_start
from pretrain_exp.study.coming import announce
from pretrain_exp.study.jobs import EvaluationRequest, evaluation_request, evaluation_specs
from pretrain_exp.study.planning import agreed_jobs
from pretrain_exp.study.registry import read_members, read_study


@dataclass(frozen=True)
class Target:
    """A checkpoint to score. identity: of its weights and tokenizer, of a state its key; model: None for a state.

    store: of the study that a state is of. items, held_out: items.parquet of the study's plan, and the documents that
    its data source held out.
    """

    label: str
    identity: str
    step: int
    model: str | None = None
    revision: str | None = None
    store: Path | None = None
    items: str | None = None
    held_out: str | None = None
    held_out_digest: str = ""


def evaluate_checkpoints(composed: Composed, folder: Path, command: str, targets: Sequence[str]) -> int:
    """Scores every target with the configured evaluations; prints and writes one table.

    Returns 0, or 1 if any failed. Where the executor does not wait, what is not there yet is said to be submitted.
    """
    console = Console()
    config = composed.config
    if not config.eval:
        raise UserError(
            "nothing to evaluate", key="eval", value=config.eval, fix="choose some: eval=[perplexity,lm_eval]"
        )
    found = [target for name in targets for target in resolve_target(name)]
    check_held_out(composed, found)
    by_store: dict[Path, list[EvaluationRequest]] = {}
    folders: list[tuple[Target, str, Path]] = []
    for target in found:
        specs = evaluation_specs(config, target.items, target.held_out_digest)
        store = target.store or Path(config.store).absolute()
        own = [(target, spec.name, spec.folder(store, target.identity)) for spec in specs]
        known = {each for _, _, each in folders}  # a state of several members, asked the same by them
        folders += [each for each in own if each[2] not in known]
        request = evaluation_request(
            config, target.identity, target.label, specs, target.items, target.held_out, target.model, target.revision
        )
        by_store.setdefault(store, []).append(request)
    outcomes: list[Outcome] = []
    for store, requests in by_store.items():
        outcomes += _run(requests, composed, store, folder)
    submitted = [outcome for outcome in outcomes if outcome.state == "submitted"]
    table = _collect(folders)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "items.parquet")
    (folder / "command.txt").write_text(command + "\n")
    _print(folders, console, absent="[yellow]submitted[/]" if submitted else "[red]failed[/]")
    console.print(f"per item: {folder / 'items.parquet'}", highlight=False)
    if submitted:
        said = f"submitted {len(submitted)} jobs; type the same command again when they have ended"
        console.print(said, highlight=False)
    failed = [outcome for outcome in outcomes if outcome.state not in ("done", "submitted")]
    for outcome in failed:
        console.print(f"[bold red]{outcome.job.title} failed[/]: {outcome.message}")
    return 1 if failed else 0


def _run(requests: Sequence[EvaluationRequest], composed: Composed, store: Path, folder: Path) -> list[Outcome]:
    """Runs what the store lacks, beside what other studies evaluate there: announced like the jobs of a study."""
    executor = composed.kinds.executor
    with ExitStack() as controlling, ExitStack() as planning:
        whose = claimed(store, f"study-{digest(str(folder.absolute()))}")
        controller = controlling.enter_context(whose) if executor.local else None
        jobs, _ = agreed_jobs([], requests, store, folder, executor.local, Console(stderr=True), planning)
        announce(store, jobs, folder, controller)
        return list(executor.run(jobs, store, planning.close).values())


def resolve_target(name: str) -> list[Target]:
    """The checkpoints that a word on the command line names. UserError where it names none."""
    path = Path(name)
    if (path / "study.json").is_file():
        return list(_states_of(path))
    if (path / "config.json").is_file():
        return [Target(name, f"folder-{folder_identity(path)}", 0, model=str(path.absolute()))]
    if is_folder(name) or path.exists():
        fix = "give a Hugging Face folder (config.json), a study's folder (study.json) or a hub name"
        problem = "holds neither a model nor a study" if path.exists() else "no such folder"
        raise UserError(problem, value=name, fix=fix)
    repository, _, revision = name.partition("@")
    commit = resolve_revision(repository, revision or None)
    return [Target(name, f"hub-{digest([repository, commit])}", 0, model=repository, revision=commit)]


def _states_of(folder: Path) -> Iterator[Target]:
    """Every state that a study names and whose weights are still there, each once for the items of each plan."""
    study = read_study(folder)
    seen: set[tuple[str, str | None]] = set()
    for member in read_members(study):
        items = str(Path(member["plan"]) / "items.parquet") if member["plan"] else None
        held_out, held_out_digest = member.get("held_out"), member.get("held_out_digest", "")
        for arm, record in member["arms"].items():
            for step, key in record["states"].items():
                if (key, items) not in seen and can_start(study["store"], key):
                    seen.add((key, items))
                    label = " ".join(part for part in (arm, member["label"], f"seed {member['seed']}") if part)
                    yield Target(
                        f"{label} step {step}",
                        key,
                        int(step),
                        store=Path(study["store"]).absolute(),
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
