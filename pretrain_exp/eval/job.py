"""The job of an evaluation process, and what it leaves: path strings in JSON, both ways.

job.json    what to load and what to run                       (whoever wants a checkpoint evaluated writes it)
<out>/      items.parquet, eval.json                           one folder an evaluation, complete or not there
<out>.error.json                                               instead, where it failed
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import instantiate
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.store.states import write_json

SCHEMA = 1
SHARED_VERSION = 1  # of what the code that all evaluations share makes of a model; raised when numbers change


@dataclass(frozen=True, kw_only=True)
class EvalTask:
    """One evaluation of the job: its name, its class, the class's arguments, the folder for its result.

    identity: its `fingerprint` when it was planned, by which the folder is named; "" where nobody planned it.
    """

    name: str
    target: str
    args: dict[str, Any]
    out: str
    identity: str = ""


@dataclass(frozen=True, kw_only=True)
class EvalJob:
    """What one process evaluates: one checkpoint, loaded once.

    model:     folder or hub name; revision: of a hub name.
    seal:      of a folder as it was planned, see identity.py; None where nobody planned it.
    device:    "auto" (cuda where there is one), "cpu", "cuda:1".
    dtype:     "float32", "bfloat16", "auto" (the checkpoint's).
    generation: "huggingface" or "vllm": who decodes greedily.
    items:     items.parquet of the plan; held_out: documents kept from training.
    progress:  file that the process rewrites about twice a second; log: file that holds its stderr.
    threads:   of torch, on the CPU; None = as torch decides.
    shards:    processes that share the evaluations (shards.py); shard: which of them this is, None = who starts them.
    """

    model: str
    evaluations: tuple[EvalTask, ...]
    revision: str | None = None
    seal: dict[str, Any] | None = None
    device: str = "auto"
    dtype: str = "auto"
    generation: str = "huggingface"
    items: str | None = None
    held_out: str | None = None
    progress: str | None = None
    log: str | None = None
    threads: int | None = None
    shards: int = 1
    shard: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}

    def write(self, path: Path) -> None:
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> EvalJob:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if (schema := fields.pop("schema", None)) != SCHEMA:
            raise UserError(
                f"{path} has schema {schema}, this version reads {SCHEMA}", fix="run both ends with the same version"
            )
        tasks = tuple(EvalTask(**task) for task in fields.pop("evaluations"))
        return cls(**fields, evaluations=tasks)


@dataclass(frozen=True)
class Outcome:
    """What became of one evaluation: its record (eval.json) or its error (error.json); neither where it never ended."""

    record: dict[str, Any] | None
    error: dict[str, Any] | None

    @classmethod
    def read(cls, out: str) -> Outcome:
        """An error beside a result is of the later attempt: a success takes the error away."""
        record, error = Path(out) / "eval.json", error_path(out)
        if error.is_file():
            return cls(None, json.loads(error.read_text(encoding="utf-8")))
        return cls(json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None, None)


def failures(tasks: Sequence[EvalTask]) -> dict[str, str]:
    """error.json of a job: what failed and why, a line each; of kind "user" where the user can mend all of it."""
    outcomes = {task.name: Outcome.read(task.out) for task in tasks}
    errors = {name: outcome.error for name, outcome in outcomes.items() if outcome.record is None}
    mendable = errors and all(error is not None and error["user_error"] for error in errors.values())
    lines = [f"{name}: {error['message'] if error else 'ended without a result'}" for name, error in errors.items()]
    return {"kind": "user" if mendable else "evaluation", "message": "\n".join(lines)}


def error_path(out: str) -> Path:
    return Path(f"{out}.error.json")


def fingerprint(task: EvalTask, items: Sequence[ChoiceItem], dtype: str, generation: str = "huggingface") -> str:
    """Canonical JSON of all that changes the scores of `task`, apart from weights, tokenizer and held-out documents."""
    evaluation = instantiate(task.target, task.args)
    identity = evaluation.fingerprint(items) | {"dtype": dtype, "shared": SHARED_VERSION}
    if generation != "huggingface" and getattr(evaluation, "generates", False):
        identity |= {"generation": [generation, version(generation)]}
    return json.dumps(identity | _own_source(type(evaluation), task.target), sort_keys=True, separators=(",", ":"))


def _own_source(kind: type, target: str) -> dict[str, Any]:
    """Of a class of the user's own: its name and the content of its module, which have no version to be raised."""
    if kind.__module__.startswith("pretrain_exp."):
        return {}
    return {"target": target, "source": digest_file(Path(inspect.getfile(kind)))}


def unchanged(task: EvalTask, planned: str, found: str) -> None:
    """UserError where a file, a class or a version that scores depend on is another than when a result was named."""
    if planned == found:
        return
    before, now = json.loads(planned), json.loads(found)
    parts = ", ".join(sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)))
    problem = f"what it reads has changed since its job was planned ({parts}): no result is kept"
    raise UserError(problem, key=f"eval.{task.name}", fix="type the command again, which plans it anew")


def digest_file(path: Path) -> str:
    """Content hash of a file, 32 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
