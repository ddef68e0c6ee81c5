"""`pretrain-exp evaluate`: scores existing checkpoints, without training. Folders, hub names, all kept states of a
study.

    targets --resolve--> checkpoints --jobs--> evals/<identity>/<fingerprint>/ --> a table, items.parquet
                                                       of a run at several steps --> learned.parquet, recurrence.parquet

Results are cached by (weights, tokenizer, items, held-out documents, evaluation, dtype), like those of a study. States
are scored in the store of their study, also while it still trains, other checkpoints in the configured one; the jobs
are announced there, so that nothing is scored twice at a time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pretrain_exp.compose import Composed
from pretrain_exp.errors import UserError
from pretrain_exp.eval.perplexity import Perplexity
from pretrain_exp.eval.table import SCHEMA
from pretrain_exp.executor.base import Outcome
from pretrain_exp.store.claims import claimed
from pretrain_exp.store.keys import digest
from pretrain_exp.study.coming import announce
from pretrain_exp.study.evaluate_checks import Asked, asked_of_target, refuse_unfit
from pretrain_exp.study.jobs import EvaluationRequest, evaluation_request, evaluation_specs
from pretrain_exp.study.learned_items import answers, learned_table, recurrence_table
from pretrain_exp.study.planning import agreed_jobs
from pretrain_exp.study.targets import Target, resolve_target

_TEXTS = ("checkpoint", "identity", "study", "arm", "member")
LABELS = pa.schema([*((name, pa.string()) for name in _TEXTS), ("seed", pa.int64()), ("step", pa.int64())])
Place = tuple[Target, str, Path]  # a checkpoint, the name of an evaluation, the folder of the result


def evaluate_checkpoints(composed: Composed, folder: Path, command: str, words: Sequence[str]) -> int:
    """Scores every checkpoint with the configured evaluations; prints and writes one table.

    Returns 0, or 1 if any failed. Where the executor does not wait, what is not there yet is said to be submitted.
    """
    console = Console(markup=False, emoji=False, highlight=False)  # paths, names and notes are no markup
    if not composed.config.eval:
        fix = "choose some: eval=[perplexity,lm_eval]"
        raise UserError("nothing to evaluate", key="eval", value=composed.config.eval, fix=fix)
    targets = _resolved(words, console)
    check_held_out(composed, targets)
    asked, places = _asked(composed, targets)
    refuse_unfit(asked)
    outcomes: list[Outcome] = []
    for store in dict.fromkeys(each.store for each in asked):
        requests = [request for each in asked if each.store == store for request in each.requests]
        outcomes += _run(requests, composed, store, folder)
    submitted = [outcome for outcome in outcomes if outcome.state == "submitted"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "command.txt").write_text(command + "\n")
    _print(places, console, absent=Text("submitted", "yellow") if submitted else Text("failed", "red"))
    _write(folder, _collect(places), console)
    if submitted:
        console.print(f"submitted {len(submitted)} jobs; type the same command again when they have ended")
    failed = [outcome for outcome in outcomes if outcome.state not in ("done", "submitted")]
    for outcome in failed:
        console.print(Text.assemble((f"{outcome.job.title} failed", "bold red"), f": {outcome.message}"))
    return 1 if failed else 0


def _resolved(words: Sequence[str], console: Console) -> list[Target]:
    """The checkpoints that the words name, one that two of them name once; what of them is not there is said.

    A state that two studies share is there for each: it is a step of runs of both.
    """
    found: dict[tuple[object, ...], Target] = {}
    for word in words:
        targets, left_out = resolve_target(word)
        found |= {(target.identity, target.label, target.items, _folder(target)): target for target in targets}
        if left_out:
            console.print(Text.assemble(("note: ", "yellow"), left_out))
    return _without_clashes(list(found.values()), console)


def _without_clashes(targets: list[Target], console: Console) -> list[Target]:
    """The targets; those that are one step of one run and yet different have no step, which is said."""
    at: dict[tuple[object, ...], dict[str, str]] = {}
    for each in targets:
        at.setdefault(_place(each), {})[each.identity] = each.label
    for (*_, member, _, step), labels in at.items():
        if step is not None and len(labels) > 1:
            said = f"{' and '.join(labels.values())} are both step {step} of {member}: none of them is taken as a step"
            console.print(Text.assemble(("note: ", "yellow"), said, "; NAME:STEP names another"))
    return [replace(each, step=None) if len(at[_place(each)]) > 1 else each for each in targets]


def _folder(target: Target) -> Path | None:
    """Of the study that it is a state of, however that was spelled."""
    return None if target.study is None else Path(target.study).resolve()


def _place(target: Target) -> tuple[object, ...]:
    return target.study, target.arm, target.member, target.seed, target.step


def _asked(composed: Composed, targets: Sequence[Target]) -> tuple[list[Asked], list[Place]]:
    """What is to be scored of each checkpoint, and where each result will lie."""
    config = composed.config
    asked: list[Asked] = []
    places: list[Place] = []
    for target in targets:
        specs = evaluation_specs(config, target.items, target.held_out_digest)
        store = target.store or Path(config.store).absolute()
        places += [(target, spec.name, spec.folder(store, target.identity)) for spec in specs]
        request = evaluation_request(
            config,
            target.identity,
            target.label,
            specs,
            target.items,
            target.held_out,
            target.model,
            target.revision,
            target.framework,
            target.seal,
        )
        asked.append(asked_of_target(target, composed.kinds.evaluations, request, store))
    return asked, places


def _run(requests: Sequence[EvaluationRequest], composed: Composed, store: Path, folder: Path) -> list[Outcome]:
    """Runs what the store lacks, beside what other studies evaluate there: announced like the jobs of a study."""
    executor = composed.kinds.executor
    with ExitStack() as controlling, ExitStack() as planning:
        whose = claimed(store, f"study-{digest(str(folder.absolute()))}")
        controller = controlling.enter_context(whose) if executor.local else None
        jobs, _ = agreed_jobs([], requests, store, folder, executor.local, Console(stderr=True), planning)
        announce(store, jobs, folder, controller)
        return list(executor.run(jobs, store, planning.close).values())


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


def _collect(places: Sequence[Place]) -> pa.Table:
    """The scores that are there, each with its evaluation's name and its checkpoint."""
    tables = [pa.schema([*SCHEMA, *LABELS]).empty_table()]
    for target, name, folder in places:
        if (folder / "items.parquet").is_file():
            table = pq.read_table(folder / "items.parquet").cast(SCHEMA)
            table = table.set_column(0, SCHEMA.field(0), pa.array([name] * len(table), pa.string()))
            values = (target.label, target.identity, target.study, target.arm, target.member, target.seed, target.step)
            for field, value in zip(LABELS, values, strict=True):
                table = table.append_column(field, pa.array([value] * len(table), field.type))
            tables.append(table)
    return pa.concat_tables(tables)


def _write(folder: Path, table: pa.Table, console: Console) -> None:
    """The scores, and when their items were learned where a run was scored at two steps or more."""
    runs = answers(table)
    found = {
        "per item": ("items.parquet", table),
        "when each was learned": ("learned.parquet", learned_table(runs)),
        "how far that recurs": ("recurrence.parquet", recurrence_table(runs)),
    }
    for what, (name, rows) in found.items():
        (folder / name).unlink(missing_ok=True)
        if len(rows) or rows is table:
            pq.write_table(rows, folder / name)
            console.print(f"{what}: {folder / name}", soft_wrap=True)


def _print(places: Sequence[Place], console: Console, absent: Text) -> None:
    """What is there, a row a metric, and what was noted. absent: what is said of a result that is not."""
    notes: dict[str, list[str]] = {}
    table = Table(title="evaluations")
    for column in ("checkpoint", "evaluation", "task", "metric", "items", "value"):
        table.add_column(column, justify="right" if column in ("items", "value") else "left")
    for target, name, folder in places:
        if not (folder / "eval.json").is_file():
            table.add_row(target.label, name, "", absent, "", "")
            continue
        record = json.loads((folder / "eval.json").read_text())
        if not record["summary"]:
            table.add_row(target.label, name, "", "nothing", "0", "")
        for note in record["notes"]:
            notes.setdefault(f"{name}: {note}", []).append(target.label)
        for task, values in record["summary"].items():
            for metric in sorted(set(values) - {"items"}):
                table.add_row(target.label, name, task, metric, f"{values['items']:.0f}", f"{values[metric]:.4f}")
    console.print(table)
    for note, labels in notes.items():
        where = "" if len(labels) == len({target.label for target, _, _ in places}) else f" ({', '.join(labels)})"
        console.print(Text.assemble(("note: ", "yellow"), note, where), soft_wrap=True)
