"""One checkpoint evaluated by several processes: a job with `shards` in, the results as of one process out.

    job.json --share--> job.shard0.json, job.shard1.json     a process and a model load each
                              |                 |
                        <out>.shard0of2/  <out>.shard1of2/   complete or not there: what is, is not done again
                              \\-----merged-----/
                                   <out>/                     when all of an evaluation is there; then the parts go

Items are dealt by hash of their ids, so that a shard is the same whoever computes it. An evaluation that cannot be
divided is done by one of the processes, which its name decides.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pretrain_exp.errors import Problems, UserError
from pretrain_exp.eval.base import Evaluation, Shard, instantiate
from pretrain_exp.eval.job import SCHEMA, EvalJob, EvalTask, Outcome, error_path, fingerprint
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.store.claims import demand_claim
from pretrain_exp.store.states import write_json

log = logging.getLogger("pretrain_exp.eval")
POLL_SECONDS = 0.5


def share(job: EvalJob, path: Path) -> int:
    """Runs the job in `job.shards` processes and merges what they leave; 0 where all evaluations succeeded.

    path: of job.json, beside which theirs are written. Raises ClaimLost.
    """
    threads = job.threads or max(1, len(os.sched_getaffinity(0)) // job.shards)
    running = []
    try:
        for number in range(job.shards):
            progress = None if job.progress is None else f"{job.progress}.shard{number}"
            own = replace(job, shard=number, threads=threads, progress=progress, evaluations=_tasks(job, number))
            own.write(path.with_name(f"{path.stem}.shard{number}.json"))
            command = [
                sys.executable,
                "-m",
                "pretrain_exp.eval.worker",
                str(path.with_name(f"{path.stem}.shard{number}.json")),
            ]
            running.append(subprocess.Popen(command))
        while any(process.poll() is None for process in running):
            time.sleep(POLL_SECONDS)
            _report(job)
    finally:
        for process in running:
            process.kill()
            process.wait()
    merged = [_merge(job, task) for task in job.evaluations]
    return 0 if all(merged) else 1


def is_divisible(evaluation: Evaluation) -> bool:
    return bool(getattr(evaluation, "divisible", False))


def unfinished(job: EvalJob, items: Sequence[ChoiceItem]) -> EvalJob:
    """The job of one shard, less the evaluations that an earlier process of it has finished; any other job as it is."""
    if job.shard is None:
        return job
    return replace(job, evaluations=tuple(task for task in job.evaluations if not _finished(job, task, items)))


def _finished(job: EvalJob, task: EvalTask, items: Sequence[ChoiceItem]) -> bool:
    """Whether its result is there and of what it reads now; one that cannot say what it reads is left to be tried."""
    record = Outcome.read(task.out).record
    if record is None:
        return False
    try:
        now = fingerprint(task, items, job.dtype, job.generation)
    except Exception:  # anyone's evaluation may raise anything; it does so again where it is run, and is told there
        return False
    return record["fingerprint"] == json.loads(now)


def _tasks(job: EvalJob, number: int) -> tuple[EvalTask, ...]:
    """What process `number` does of the job."""
    return tuple(replace(task, out=_out(job, task, number)) for task in job.evaluations if number in _owners(job, task))


def _owners(job: EvalJob, task: EvalTask) -> list[int]:
    """The processes that do a task: all, or the one that its name falls to. One that cannot be made fails in all."""
    try:
        divisible = is_divisible(instantiate(task.target, task.args))
    except (UserError, Problems):
        divisible = False
    return [number for number in range(job.shards) if divisible or Shard(number, job.shards).holds(task.name)]


def _out(job: EvalJob, task: EvalTask, number: int) -> str:
    return f"{task.out}.shard{number}of{job.shards}"


def _merge(job: EvalJob, task: EvalTask) -> bool:
    """Joins the shards of an evaluation; where one is not there, says why, and whether all were."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pretrain_exp.eval.table import write_result

    outs = [_out(job, task, number) for number in _owners(job, task)]
    outcomes = [Outcome.read(out) for out in outs]
    records = [outcome.record for outcome in outcomes if outcome.record is not None]
    if len(records) < len(outs):
        told = [outcome.error for outcome in outcomes if outcome.error is not None]
        silent = f"{len(outs) - len(records)} of {len(outs)} shards ended without a result; see {job.log or 'the log'}"
        _tell(task, silent, told[0] if told else None)
        return False
    table = pa.concat_tables(pq.read_table(Path(out) / "items.parquet") for out in outs)
    table = table.sort_by([(name, "ascending") for name in ("task", "item", "metric")])
    notes, seconds = _notes(records), max(record["seconds"] for record in records)
    if not len(table) and not notes:
        message = f"{task.name} returned no scores, and no note that says why"
        _tell(task, message)
        return False
    write_result(Path(task.out), table, {**records[0], "notes": notes, "seconds": seconds, "shards": len(outs)})
    for leftover in Path(task.out).parent.glob(f"{Path(task.out).name}.shard*of*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    return True


def _tell(task: EvalTask, message: str, error: dict[str, Any] | None = None) -> None:
    """Writes why an evaluation failed: what a shard said itself, else the message. Raises ClaimLost."""
    demand_claim(os.environ)
    said = {"schema": SCHEMA, "evaluation": task.name, "message": message, "user_error": False}
    write_json(error_path(task.out), error or said)


def _notes(records: Sequence[dict[str, Any]]) -> list[str]:
    """What all shards say once, and what one says of its own items with its number."""
    common = [note for note in records[0]["notes"] if all(note in record["notes"] for record in records)]
    own = [
        f"shard {number} of {len(records)}: {note}"
        for number, record in enumerate(records, start=1)
        for note in record["notes"]
        if note not in common
    ]
    return common + own


def _report(job: EvalJob) -> None:
    """Writes the progress of the processes, added up."""
    if job.progress is None:
        return
    found = []
    for number in range(job.shards):
        path = Path(f"{job.progress}.shard{number}")
        if path.is_file():
            found.append(json.loads(path.read_text()))
    if found:
        slowest = min(found, key=lambda each: each["number"])
        sums = {name: round(sum(each[name] for each in found), 2) for name in ("done", "total", "per_second")}
        write_json(Path(job.progress), {**slowest, **sums})
