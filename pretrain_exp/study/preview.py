"""What is said before a study runs, by `plan` and by the run itself: what it changes, costs and could see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pretrain_exp.control.loop import Loop, records
from pretrain_exp.executor.base import Job
from pretrain_exp.plan.show import finding_lines, preview
from pretrain_exp.study.detectable import detectable, detectable_table, floor_sentence
from pretrain_exp.study.estimate import estimate
from pretrain_exp.study.fetch import missing, sentence
from pretrain_exp.study.member import Member


def print_plan(member: Member, console: Console) -> None:
    """The plan of the treated arm; the placebo's differs only in what its edits hold. Then what is to be fetched."""
    name = " ".join(part for part in (member.label, f"seed {member.seed}") if part)
    if member.needed:
        what = f"files of the checkpoint at {member.config.model.checkpoint_url}"
        console.print(Text(sentence(member.needed, what)), soft_wrap=True)
    if hasattr(member.composed.kinds.data, "missing"):
        console.print(sentence(missing(member)), highlight=False, soft_wrap=True)
    if member.plan is None:
        console.print(Text(f"{name}: no edits", style="bold"))
        return
    console.print(Text(f"{name}: plan {member.plan.fingerprint[:16]}", style="bold"))
    for part in [*preview(member.plan), *finding_lines(member.findings)]:
        console.print(part)
    told = member.runs["treated"].job.get("loop")
    if told is not None:
        loop = Loop.from_json(told)
        seen = records(Path(member.config.store).absolute(), loop)
        planned = sum(record["step"] < loop.last_step for record in seen)
        console.print(
            f"closed loop {loop.key}: {planned} of its {len(loop.boundaries)} segments are planned so far; "
            "the plan above holds what is known before it runs",
            highlight=False,
        )
    read = member.phases.position_of_step(member.config.last_step) - member.phases.position_of_step(
        member.config.first_step
    )
    epochs = member.phases.first_slot(member.config.last_step) / member.order.num_sequences
    remainder = getattr(member.order, "remainder", 0)
    console.print(
        f"the run reads {read:,} tokens, up to epoch {epochs:.2f} of {member.order.num_sequences:,} sequences; "
        f"{remainder:,} tokens at the end of the stream fill no sequence and are never read",
        highlight=False,
    )


def print_cost(
    members: Sequence[Member], jobs: Sequence[Job], reused: Sequence[str], store: Path, console: Console
) -> None:
    """What is to run, and how long it might take, told by earlier jobs of the store."""
    own = [job for job in jobs if not job.adopted]
    told = estimate(own, store)
    table = Table(title="jobs to run")
    for column in ("job", "steps", "tokens", "about"):
        table.add_column(column, justify="left" if column == "job" else "right")
    for job in own:
        seconds = told.of(job)
        about = "unknown" if seconds is None else f"{seconds:,.0f} s"
        if job.kind == "train":
            tokens = (job.total - job.first) * job.tokens_per_step
            table.add_row(Text(job.title), f"{job.first} to {job.total}", f"{tokens:,}", about)
        else:
            table.add_row(Text(job.title), "", "", about)
    if own:
        console.print(table)
    executor = members[0].composed.kinds.executor
    if own and hasattr(executor, "describe"):
        console.print(executor.describe(own, told.seconds))
    known = [seconds for job in own if (seconds := told.of(job)) is not None]
    together = f", about {duration(sum(known))} one after the other" if known else ", of unknown length" if own else ""
    console.print(f"{len(own)} jobs to run{together}; {len(reused)} states are in the store already", highlight=False)
    for ground in told.grounds:
        console.print(f"  {ground}", highlight=False, soft_wrap=True)
    for job in jobs:
        if job.adopted:
            console.print(Text(f"{job.title} of another study is under way: it is awaited, not run"))


def print_detectable(members: Sequence[Member], store: Path, console: Console) -> None:
    """The smallest effects that the study could see; of a study without edits, how well it tells its noise."""
    rows = detectable(members, store)
    if rows:
        console.print(detectable_table(rows))
        return
    for label in dict.fromkeys(member.label for member in members):
        runs = sum(member.label == label and "control" in member.runs for member in members)
        console.print(Text(f"{f'{label}: ' if label else ''}{floor_sentence(runs)}"))


def duration(seconds: float) -> str:
    """For a person: 40 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
