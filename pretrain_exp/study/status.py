"""`pretrain-exp status`: the jobs of a study below the runs they belong to, from the files they write.

    treated repetitions=16 seed 0
      train-1f0a3c     running     412/1000 steps  0:03:10  loss 2.345, 81,000 tokens/s
      evaluate-77b02e  waiting                 0%

A label has a line of its own, so that one of a wide sweep can be read on a narrow terminal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pretrain_exp.executor.base import Job
from pretrain_exp.executor.progress import last_row, read_progress
from pretrain_exp.executor.slurm_status import Standing, standings
from pretrain_exp.store.process import process_lives
from pretrain_exp.study.registry import read_study

Row = tuple[dict[str, Any], str, str, str, str]  # a job's record, its state, how far it is, a note, the time left
STYLES = {
    "done": "green",
    "running": "cyan",
    "failed": "bold red",
    "waiting": "dim",
    "skipped": "yellow",
    "cancelled": "yellow",
    "stopped": "yellow",
    "unknown": "dim",
}


def print_status(folder: Path, console: Console | None = None) -> bool:
    """Prints all jobs; returns whether anything is still to come: a job, or what the study's process does after."""
    console = console or Console()
    study = read_study(folder)
    console.print(Text(f"{study['title']}  ({folder})", style="bold"), soft_wrap=True)
    told = standings([Job.from_record(job) for job in study["jobs"]])
    rows = [_row(job, study, told) for job in study["jobs"]]
    _print_rows(rows, console)
    for job, state, _, _, _ in rows:
        if state == "failed":
            why = told[job["id"]][1] if job["id"] in told else _failure(job)
            console.print(Text.assemble((job["title"], "bold red"), f": {why}"))
    ended, controller = study.get("ended"), study.get("controller")
    lives = process_lives(controller) if controller and not ended else None
    if lives is False:
        console.print("its process is gone; the same command goes on from what was saved", style="yellow")
        return False
    console.print(
        f"{study['status']}; {len(study['reused'])} states were in the store before" if ended else study["status"]
    )
    return not ended and (
        lives is True or any(state in ("running", "waiting", "unknown") for _, state, _, _, _ in rows)
    )


def run_label(job: dict[str, Any]) -> str:
    """The run that a job belongs to: its title without what is done, and at which step."""
    return re.sub(r" step \d+$", "", job["title"].removeprefix(f"{job['kind']} ")) or job["title"]


def _print_rows(rows: Sequence[Row], console: Console) -> None:
    """The jobs of each run together, in the order in which runs first come."""
    labels = list(dict.fromkeys(run_label(row[0]) for row in rows))
    by_run = sorted(rows, key=lambda row: labels.index(run_label(row[0])))
    progress = max((len(row[2]) for row in rows), default=0)
    for label, jobs in groupby(by_run, key=lambda row: run_label(row[0])):
        console.print(Text(label))
        table = Table.grid(padding=(0, 2, 0, 0), pad_edge=True)
        table.add_column(width=17)
        table.add_column(width=9)
        table.add_column(width=progress, justify="right")
        table.add_column(width=8, justify="right")
        table.add_column(overflow="fold")
        for job, state, so_far, note, left in jobs:
            step = job["title"].removeprefix(f"{job['kind']} {label}").strip()
            whose = "of another study" if job.get("adopted") and state != "done" else ""
            said = ", ".join(part for part in (step, note, whose) if part)
            table.add_row(f"  {short_id(job)}", f"[{STYLES[state]}]{state}[/]", so_far, left, Text(said))
        console.print(table)


def short_id(job: dict[str, Any]) -> str:
    """The beginning of a job's id, enough for `logs`."""
    return f"{job['kind']}-{job['key'][:6]}"


def job_state(job: dict[str, Any], study: dict[str, Any], told: Mapping[str, Standing]) -> str:
    """told: how the jobs stand that were submitted to Slurm."""
    folder = Path(job["folder"])
    if Job.from_record(job).done():
        return "done"
    if _process_runs(folder):
        return "running"
    if job["id"] in told:
        return told[job["id"]][0]
    if study["status"] == "interrupted":
        return "stopped"
    return "failed" if (folder / "error.json").is_file() or study.get("ended") else "waiting"


def _process_runs(folder: Path) -> bool:
    """A process of this job is there, or is on another machine and may be."""
    path = folder / "process.json"
    return path.is_file() and process_lives(json.loads(path.read_text())) is not False


def _row(job: dict[str, Any], study: dict[str, Any], told: Mapping[str, Standing]) -> Row:
    state = job_state(job, study, told)
    total = job["total"] - job["first"]
    found = read_progress(Job.from_record(job))
    done = total if state == "done" else (found[0] - job["first"] if found else 0)
    note = found[1] if found else ""
    if state not in ("done", "failed") and job["id"] in told:
        note = ", ".join(part for part in (note, told[job["id"]][1]) if part)
    so_far = f"{done}%" if job["unit"] == "percent" else f"{done}/{total} {job['unit']}s"
    return job, state, so_far, note, _time_left(job, state, total - done)


def _time_left(job: dict[str, Any], state: str, steps: int) -> str:
    row = last_row(Path(job["folder"]) / "metrics.jsonl") if state == "running" and job["kind"] == "train" else None
    rate = row.get("train/tokens_per_second") if row else None
    if not rate or not job.get("tokens_per_step"):
        return ""
    seconds = int(steps * job["tokens_per_step"] / rate)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _failure(job: dict[str, Any]) -> str:
    path = Path(job["folder"]) / "error.json"
    if path.is_file():
        return str(json.loads(path.read_text())["message"])
    log = Path(job["folder"]) / "log.txt"
    return "\n".join(log.read_text(errors="replace").splitlines()[-8:]) if log.is_file() else "never started"
