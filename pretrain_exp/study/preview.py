"""`pretrain-exp plan`: what would be changed, what the audit found, and what running it would cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from pretrain_exp.executor.base import Job
from pretrain_exp.plan.show import preview
from pretrain_exp.study.member import Member
from pretrain_exp.tracking.metrics import read_metrics


def print_plan(member: Member, console: Console) -> None:
    """The plan of the treated arm; the placebo's differs only in what its edits hold."""
    name = " ".join(part for part in (member.label, f"seed {member.config.seed.all}") if part)
    if member.plan is None:
        console.print(f"{name}: no edits", style="bold")
        return
    console.print(f"{name}: plan {member.plan.fingerprint[:16]}", style="bold", highlight=False)
    for part in preview(member.plan):
        console.print(part)
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
    """What would run, and how long it might take, from the rates of earlier jobs of the same shape in the store."""
    table = Table(title="what would run")
    for column in ("job", "steps", "tokens", "about"):
        table.add_column(column, justify="left" if column == "job" else "right")
    training = members[0].config.training
    per_step = training.batch_size * training.sequence_length
    rate = known_rate(store)
    for job in jobs:
        if job.kind == "train":
            tokens = (job.total - job.first) * per_step
            about = f"{tokens / rate:,.0f} s" if rate else "unknown"
            table.add_row(job.title, f"{job.first} to {job.total}", f"{tokens:,}", about)
        else:
            table.add_row(job.title, "", "", "")
    console.print(table)
    executor = members[0].composed.kinds.executor
    if hasattr(executor, "describe"):
        console.print(executor.describe(jobs, per_step / rate if rate else None))
    source = f"at {rate:,.0f} tokens/s, the median of earlier jobs" if rate else "no earlier job tells the rate"
    console.print(f"{len(jobs)} jobs ({source}); {len(reused)} states are in the store already", highlight=False)


def known_rate(store: Path, newest: int = 5) -> float | None:
    """Tokens per second of the store's newest training jobs, the median; None before the first."""
    logs = sorted(store.glob("jobs/train-*/metrics.jsonl"), key=lambda path: path.stat().st_mtime)[-newest:]
    rates = [row["train/tokens_per_second"] for row in read_metrics(logs) if "train/tokens_per_second" in row]
    return median(rates) if rates else None
