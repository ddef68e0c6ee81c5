"""How long the jobs of a study may take, told by earlier jobs of the store that did the same in the same way.

    job.json, metrics.jsonl, took.json of earlier jobs --same shape--> seconds of each planned job, and their grounds

Training: its tokens at the median rate, and beside the steps what a start takes (loading, compiling, saving).
Evaluation: the median of whole jobs that scored the same evaluations on the same model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pretrain_exp.executor.base import TOOK, Job
from pretrain_exp.tracking.metrics import TOKENS_PER_SECOND, read_metrics

NEWEST = 5  # earlier jobs of a shape whose median counts
LOOKED_AT = 500  # newest jobs of the store among which they are searched


@dataclass(frozen=True)
class Estimate:
    """seconds: of each job by id, None where no earlier job tells. grounds: what they rest on, for a person."""

    seconds: Mapping[str, float | None]
    grounds: tuple[str, ...]

    def of(self, job: Job) -> float | None:
        return self.seconds.get(job.id)


def estimate(jobs: Sequence[Job], store: Path) -> Estimate:
    """What training and evaluation jobs may take; a report counts as nothing."""
    training = {job.id: shape_of(job.payload or {}) for job in jobs if job.kind == "train"}
    trained = earlier_training(store) if training else {}
    rates = {shape: known_rate(trained.get(shape, ())) for shape in set(training.values())}
    starts = {shape: known_start(trained.get(shape, ())) for shape in set(training.values())}
    by_id = {job.id: job for job in jobs}
    scoring = {job.id: _shape_of_evaluation(job, by_id) for job in jobs if job.kind == "evaluate"}
    scored = _earlier(store, "evaluate", TOOK, lambda job: _evaluation(job, _stored_model(job))) if scoring else {}
    whole = {shape: _median(map(_took, scored.get(shape, ()))) for shape in set(scoring.values()) if shape is not None}
    seconds: dict[str, float | None] = {}
    for job in jobs:
        if job.kind == "train":
            rate, start = rates[training[job.id]], starts[training[job.id]]
            tokens = (job.total - job.first) * job.tokens_per_step
            seconds[job.id] = tokens / rate + (start or 0.0) if rate else None
        else:
            shape = scoring.get(job.id)
            seconds[job.id] = None if shape is None else whole[shape]
    grounds = [*_grounds_of_training(rates, starts), *_grounds_of_evaluation(seconds, scoring)]
    return Estimate(seconds, tuple(grounds))


def _grounds_of_training(rates: Mapping[str, float | None], starts: Mapping[str, float | None]) -> Iterator[str]:
    known = sorted({rate for rate in rates.values() if rate})
    if known:
        yield f"training at {_joined(known, ',.0f')} tokens/s, the median of earlier jobs of the same shape"
        told = sorted({start for start in starts.values() if start is not None})
        if told:
            yield f"a start with loading and saving at {_joined(told, '.1f')} s, the median of the same jobs"
        if None in starts.values():
            yield "no earlier job tells what starting, loading and saving take: counted as nothing"
    if None in rates.values():
        yield "no earlier job of the same shape tells the rate" + (" of the others" if known else "")


def _grounds_of_evaluation(seconds: Mapping[str, float | None], scoring: Mapping[str, str | None]) -> Iterator[str]:
    told = sorted({value for name in scoring if (value := seconds[name]) is not None})
    if told:
        yield f"an evaluation at {_joined(told, '.1f')} s, the median of earlier ones of the same kinds and model"
    if any(seconds[name] is None for name in scoring):
        yield "no earlier job tells what evaluations of these kinds take on this model: counted as nothing"


def _joined(values: Sequence[float], form: str) -> str:
    return ", ".join(dict.fromkeys(format(value, form) for value in values))


def shape_of(job: Mapping[str, Any]) -> str:
    """What decides how fast the job of this job.json trains: model, batches, and where and how it is trained."""
    training = job.get("training") or {}
    recorded = job["save"][0]["record"]["numerics"] if job.get("save") else {}
    numerics = {name: value for name, value in recorded.items() if name not in ("versions", "code")}
    facts = [
        _model_facts(job),
        [training.get(name) for name in ("sequence_length", "batch_size", "precision", "document_masking")],
        numerics,
    ]
    return json.dumps(facts, sort_keys=True)


def earlier_training(store: Path) -> dict[str, list[Path]]:
    """The folders of the store's newest training jobs, by their shape."""
    return _earlier(store, "train", "metrics.jsonl", shape_of)


def known_rate(folders: Sequence[Path]) -> float | None:
    """Tokens per second of training jobs, the median; None where there are none."""
    # each job by itself: steps of several may coincide
    rows = [row for folder in folders for row in read_metrics(folder / "metrics.jsonl")]
    return _median(row.get(TOKENS_PER_SECOND) for row in rows)


def known_start(folders: Sequence[Path]) -> float | None:
    """Seconds that a start of training jobs took beside its steps, the median; None where there are none."""
    found = []
    for folder in folders:
        took, rows = _took(folder), read_metrics(folder / "metrics.jsonl")
        last = [row for row in rows if row["attempt"] == rows[-1]["attempt"]]
        steps = last[-1]["step"] - last[0]["step"] if last else 0
        if took is not None and steps:
            trained = (last[-1]["time"] - last[0]["time"]) * (steps + 1) / steps
            found.append(max(0.0, took - trained))
    return _median(found)


def _median(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return median(found) if found else None


def _earlier(store: Path, kind: str, name: str, of: Callable[[dict[str, Any]], str | None]) -> dict[str, list[Path]]:
    """The folders of the newest jobs of a kind that left a file of this name, NEWEST of each shape at most."""
    files: list[tuple[float, Path]] = []
    for entry in os.scandir(store / "jobs") if (store / "jobs").is_dir() else ():
        if entry.name.startswith(f"{kind}-"):
            with suppress(FileNotFoundError):  # it has not come that far
                files.append((os.stat(f"{entry.path}/{name}").st_mtime, Path(entry.path)))
    found: dict[str, list[Path]] = {}
    for _, folder in sorted(files, reverse=True)[:LOOKED_AT]:
        path = folder / "job.json"
        shape = of(json.loads(path.read_text())) if path.is_file() else None
        same = found.setdefault(shape, []) if shape is not None else []
        if len(same) < NEWEST:
            same.append(folder)
    return found


def _took(folder: Path) -> float | None:
    path = folder / TOOK
    return float(json.loads(path.read_text())["seconds"]) if path.is_file() else None


def _shape_of_evaluation(job: Job, jobs: Mapping[str, Job]) -> str | None:
    """The shape of a planned evaluation; None where nothing tells the model of what it scores. jobs: by id."""
    payload = dict(job.payload or {})
    training = [dict(jobs[need].payload or {}) for need in sorted(job.needs & jobs.keys())]
    return _evaluation(payload, _model_facts(training[0]) if training else _stored_model(payload))


def _evaluation(job: Mapping[str, Any], model: list[Any] | None) -> str | None:
    if model is None:
        return None
    kinds = sorted([task["target"], task["args"]] for task in job["evaluations"])
    return json.dumps([model, job["device"], job["dtype"], kinds], sort_keys=True)


def _stored_model(job: Mapping[str, Any]) -> list[Any] | None:
    """The model of the state that an evaluation scores, as the job that trained it says."""
    path = Path(job["state"]) / "job.json" if "state" in job else None
    return _model_facts(json.loads(path.read_text())) if path is not None and path.is_file() else None


def _model_facts(job: Mapping[str, Any]) -> list[Any]:
    model = job.get("model") or {}
    return [model.get(name) for name in ("config", "checkpoint", "attn_implementation")]
