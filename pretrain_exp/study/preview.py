"""What is said before a study runs, by `plan` and by the run itself: what it changes, costs and could see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pretrain_exp.control.loop import Loop, records
from pretrain_exp.executor.base import Job
from pretrain_exp.plan.show import audit_lines, beside_lines, finding_lines, preview, previews
from pretrain_exp.study.detectable import detectable, detectable_table, floor_sentence
from pretrain_exp.study.estimate import estimate
from pretrain_exp.study.fetch import missing, sentence
from pretrain_exp.study.member import Member


def print_plans(members: Sequence[Member], console: Console) -> None:
    """The plans of the treated arms; a placebo's differs only in what its edits hold. And what is to be fetched.

    What several members share is said once, and a row of each says where it differs.
    """
    planned = [(member.plan, member) for member in members if member.plan is not None]
    names = [" ".join(part for part in (member.label, f"seed {member.seed}") if part) for member in members]
    of = {id(member): name for member, name in zip(members, names, strict=True)}
    _print_once(members, [list(_fetched(member)) for member in members], names, console)
    for member in members:
        if member.plan is None:
            console.print(Text(f"{of[id(member)]}: no edits", style="bold"))
    if len(planned) == 1:
        plan, member = planned[0]
        console.print(Text(f"{of[id(member)]}: plan {plan.fingerprint[:16]}", style="bold"))
        for part in preview(plan, _densities(member)):
            console.print(part)
    elif planned:
        its = [of[id(member)] for _, member in planned]
        for table in previews([plan for plan, _ in planned], its, [_densities(member) for _, member in planned]):
            console.print(table)
    told = [member for _, member in planned]
    several = len(planned) > 1
    lines = [
        [*([*beside_lines(plan), *audit_lines(plan)] if several else []), *_remarks(member)] for plan, member in planned
    ]
    _print_once(told, lines, [of[id(member)] for member in told], console)


def _print_once(
    members: Sequence[Member], lines: Sequence[Sequence[Text]], names: Sequence[str], console: Console
) -> None:
    """Each line once, with the members that it is not said of all of. lines: of each member."""
    whose: dict[tuple[str, str], list[str]] = {}
    for some, name in zip(lines, names, strict=True):
        for line in some:
            whose.setdefault((line.plain, str(line.style)), []).append(name)
    for (said, style), its in whose.items():
        where = "" if len(its) >= len(members) else f" ({'; '.join(its)})"
        console.print(Text(f"{said}{where}", style=style), soft_wrap=True)


def _densities(member: Member) -> dict[str, str]:
    return {name: str(node["density"]) for name, node in member.config.insertion.items() if "density" in node}


def _fetched(member: Member) -> Iterator[Text]:
    if member.needed:
        what = f"files of the checkpoint at {member.config.model.checkpoint_url}"
        yield Text(sentence(member.needed, what))
    if hasattr(member.composed.kinds.data, "missing"):
        yield Text(sentence(missing(member)))


def _remarks(member: Member) -> Iterator[Text]:
    """Findings of a scan, how far a closed loop has come, and how much is read."""
    yield from finding_lines(member.findings)
    told = member.runs["treated"].job.get("loop")
    if told is not None:
        loop = Loop.from_json(told)
        seen = records(Path(member.config.store).absolute(), loop)
        planned = sum(record["step"] < loop.last_step for record in seen)
        yield Text(
            f"closed loop {loop.key}: {planned} of its {len(loop.boundaries)} segments are planned so far; "
            "the plan above holds what is known before it runs"
        )
    first, last = (member.phases.position_of_step(s) for s in (member.config.first_step, member.config.last_step))
    epochs = member.phases.first_slot(member.config.last_step) / member.order.num_sequences
    yield Text(
        f"the run reads {last - first:,} tokens, up to epoch {epochs:.2f} of {member.order.num_sequences:,} sequences; "
        f"{getattr(member.order, 'remainder', 0):,} tokens at the end of the stream fill no sequence and are never read"
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
