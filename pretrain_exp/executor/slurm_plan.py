"""What a study would ask of Slurm, before it asks: jobs, GPU-hours, how long the longest chain takes, sbatch's options.

jobs, seconds of each --describe--> one row a kind of job
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pretrain_exp.executor.base import Job
from pretrain_exp.executor.slurm_options import Resources
from pretrain_exp.executor.slurm_site import flags


@dataclass(frozen=True)
class Ask:
    """What all jobs of a kind ask for. hours: of the jobs together, None where no rate is known."""

    kind: str
    jobs: int
    gpus: int  # of one job
    hours: float | None
    sbatch: str

    @property
    def gpu_hours(self) -> float | None:
        return None if self.hours is None else self.gpus * self.hours


def describe(
    jobs: Sequence[Job], resources: Callable[[str], Resources], seconds: Mapping[str, float | None]
) -> list[Ask]:
    """One row for each kind of job. seconds: a guess for each job, by its id; None where there is none."""
    rows = []
    for kind in dict.fromkeys(job.kind for job in jobs):
        asked, same = resources(kind), [job for job in jobs if job.kind == kind]
        known = [one for job in same if (one := seconds.get(job.id)) is not None]
        hours = sum(known) / 3600 if len(known) == len(same) else None
        rows.append(Ask(kind, len(same), asked.nodes * asked.gpus_per_node, hours, " ".join(flags(asked.options()))))
    return rows


def longest_chain(jobs: Sequence[Job], seconds: Mapping[str, float | None]) -> float | None:
    """Seconds from the first start to the last end where no job ever waits for a node.

    Evaluations of unknown length count as nothing; None where that of training is unknown.
    """
    ends: dict[str, float] = {}
    for job in jobs:  # in the order of their needs
        start = max((ends[need] for need in job.needs if need in ends), default=0.0)
        ends[job.id] = start + (seconds.get(job.id) or 0.0)
    unknown = any(job.kind == "train" and seconds.get(job.id) is None for job in jobs)
    return None if unknown else max(ends.values(), default=0.0)


def shown(rows: Sequence[Ask], chain_seconds: float | None) -> Group:
    """The rows for a terminal. chain_seconds: of the longest chain."""
    table = Table(title="what Slurm would be asked for")
    for column in ("job", "number", "GPUs each", "hours", "GPU-hours"):
        table.add_column(column, justify="left" if column == "job" else "right")
    for row in rows:
        hours = ["unknown" if value is None else f"{value:,.2f}" for value in (row.hours, row.gpu_hours)]
        table.add_row(row.kind, str(row.jobs), str(row.gpus), *hours)
    lines = [f"{row.kind}: sbatch {row.sbatch}" for row in rows]
    if chain_seconds is not None:
        end = datetime.now() + timedelta(seconds=chain_seconds)
        took = f"{chain_seconds / 3600:,.2f} h"
        lines.append(f"the longest chain takes {took}: until {end:%Y-%m-%d %H:%M} if nothing has to wait")
    return Group(table, *(Text(line) for line in lines))
