"""`pretrain-exp plan`: what would be changed, what the audit found, and what running it would cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from pretrain_exp.executor.base import Job
from pretrain_exp.plan.show import preview
from pretrain_exp.study.member import Member
from pretrain_exp.tracking.metrics import TOKENS_PER_SECOND, read_metrics


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
    trained = [job for job in jobs if job.kind == "train"]
    rates = _rates(trained, store)
    for job in jobs:
        if job.kind == "train":
            tokens, rate = (job.total - job.first) * job.tokens_per_step, rates[job.id]
            about = f"{tokens / rate:,.0f} s" if rate else "unknown"
            table.add_row(job.title, f"{job.first} to {job.total}", f"{tokens:,}", about)
        else:
            table.add_row(job.title, "", "", "")
    console.print(table)
    seconds = [job.tokens_per_step / rate for job in trained if (rate := rates[job.id])]
    executor = members[0].composed.kinds.executor
    if hasattr(executor, "describe"):  # which knows one time a step: the longest, where all are known
        console.print(executor.describe(jobs, max(seconds) if seconds and len(seconds) == len(trained) else None))
    known = sorted({rate for rate in rates.values() if rate})
    told = ", ".join(f"{rate:,.0f}" for rate in known)
    source = (
        f"at {told} tokens/s, the median of earlier jobs of the same shape"
        if known
        else "no earlier job of the same shape tells the rate"
    )
    console.print(f"{len(jobs)} jobs ({source}); {len(reused)} states are in the store already", highlight=False)


def _rates(jobs: Sequence[Job], store: Path) -> dict[str, float | None]:
    """Tokens per second by job id."""
    shapes = {job.id: shape_of(job.payload or {}) for job in jobs}
    known: dict[str, float | None] = {shape: known_rate(store, shape) for shape in set(shapes.values())}
    return {name: known[shape] for name, shape in shapes.items()}


def shape_of(job: Mapping[str, Any]) -> str:
    """What decides how fast the job of this job.json trains: model, batches, and where and how it is trained."""
    model, training = job.get("model") or {}, job.get("training") or {}
    recorded = job["save"][0]["record"]["numerics"] if job.get("save") else {}
    numerics = {name: value for name, value in recorded.items() if name not in ("versions", "code")}
    facts = [
        [model.get(name) for name in ("config", "checkpoint", "attn_implementation")],
        [training.get(name) for name in ("sequence_length", "batch_size", "precision", "document_masking")],
        numerics,
    ]
    return json.dumps(facts, sort_keys=True)


def known_rate(store: Path, shape: str, newest: int = 5) -> float | None:
    """Tokens per second of the store's newest training jobs of this shape, the median; None before the first."""
    logs = sorted(store.glob("jobs/train-*/metrics.jsonl"), key=lambda path: path.stat().st_mtime, reverse=True)
    same = (path for path in logs if _shape_in(path.with_name("job.json")) == shape)
    rows = [row for path in islice(same, newest) for row in read_metrics(path)]  # each by itself: steps may coincide
    rates = [row[TOKENS_PER_SECOND] for row in rows if TOKENS_PER_SECOND in row]
    return median(rates) if rates else None


def _shape_in(path: Path) -> str | None:
    return shape_of(json.loads(path.read_text())) if path.is_file() else None
