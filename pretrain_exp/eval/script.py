"""A user's own program as an evaluation: a checkpoint's folder in, the numbers that it writes out.

    <interpreter> <script> --model DIR --results-yaml FILE [--name value ...]

    FILE                    a flat mapping, metric: number          -> one item, "all"
    items.parquet beside it columns item, metric, value [, task]    -> per-item scores, as for any other evaluation

Arguments reach the program as they are given, never through a shell: spaces and quotes stay, true is the bare flag,
false and null leave it out, a list becomes several values. An exit status other than 0 is a failure of the evaluation.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext, LoadedModel, Score
from pretrain_exp.eval.job import digest_file
from pretrain_exp.items.choice import ChoiceItem

VERSION = 1  # of what the numbers mean; raised when they change
TAIL = 20  # lines of the program's output that an error quotes
RESERVED = ("model", "results_yaml", "results-yaml")


@dataclass(frozen=True, kw_only=True)
class Script:
    """Runs a program on each checkpoint. script: its file; interpreter: what runs it (None: this Python).

    args: its arguments by name, without the dashes. The evaluated model stays loaded while it runs, on the same device.
    """

    script: str
    args: dict[str, Any] = field(default_factory=dict)
    interpreter: str | None = None

    def __post_init__(self) -> None:
        for name, value in self.args.items():
            if name in RESERVED:
                raise UserError(
                    "is given by the evaluation itself", key=f"args.{name}", value=value, fix="leave it out"
                )
            plain = str | int | float
            bad = [each for each in value if isinstance(each, bool)] if isinstance(value, list) else []
            values = value if isinstance(value, list) else [] if value is None else [value]
            if bad or not all(isinstance(each, plain) for each in values):
                raise UserError("is a number, a text, true, false or a list of these", key=f"args.{name}", value=value)

    def inputs(self) -> list[tuple[str, str]]:
        """The program. UserError where what runs it is not there."""
        if self.interpreter is not None and shutil.which(self.interpreter) is None:
            fix = "the name of a program on the PATH, the path of one, or null for this Python"
            raise UserError("no such program", key="interpreter", value=self.interpreter, fix=fix)
        return [("script", self.script)]

    def fingerprint(self, items: Sequence[ChoiceItem]) -> dict[str, Any]:
        """By the program's own text; files that it reads besides are its own affair."""
        content = [self.task, digest_file(Path(self.script))]
        run = {"script": content, "args": self.args, "interpreter": self.interpreter}
        return {"evaluation": "script", "version": VERSION, **run}

    def run(self, model: LoadedModel, context: EvalContext) -> list[Score]:
        with tempfile.TemporaryDirectory(prefix="pretrain-exp-") as folder:
            results = Path(folder) / "results.yaml"
            context.progress(0, 1)
            _call(self.command(_folder(model), results))
            context.progress(1, 1)
            scores = [*_flat(results, self.task), *_per_item(results.with_name("items.parquet"), self.task)]
        if not scores:
            fix = "write a flat mapping of numbers to the file given by --results-yaml, or items.parquet beside it"
            raise UserError("the script wrote no results", key="script", value=self.script, fix=fix)
        return scores

    @property
    def task(self) -> str:
        return Path(self.script).stem

    def command(self, model: str, results: Path) -> list[str]:
        """The program and its arguments, as the kernel gets them."""
        command = [self.interpreter or sys.executable, self.script, "--model", model, "--results-yaml", str(results)]
        for name, value in self.args.items():
            if value is None or value is False:
                continue
            values = [] if value is True else value if isinstance(value, list) else [value]
            command += [f"--{name}", *(str(each) for each in values)]
        return command


def _folder(model: LoadedModel) -> str:
    """Where the evaluated weights lie: of a hub name, the folder of its revision in the cache, loaded before."""
    if model.revision is None:
        return model.folder
    from huggingface_hub import snapshot_download

    return str(snapshot_download(model.folder, revision=model.revision, local_files_only=True))


def _call(command: Sequence[str]) -> None:
    """Runs a program to its end, its output passed on; UserError with the last lines where it fails."""
    tail: deque[str] = deque(maxlen=TAIL)
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
    except OSError as error:
        raise UserError(f"the script cannot be started: {error}", key="interpreter", value=command[0]) from None
    assert process.stdout is not None
    for line in process.stdout:
        sys.stderr.write(line)
        tail.append(line.rstrip())
    status = process.wait()
    if status:
        said = "\n".join(tail) or "it said nothing"
        raise UserError(f"the script ended with exit status {status}:\n{said}", key="script", value=command[1])


def _flat(path: Path, task: str) -> list[Score]:
    """The scores of a flat YAML mapping; none where there is no file."""
    if not path.is_file():
        return []
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"the script's results are no YAML: {error}", value=str(path)) from None
    if not isinstance(values, dict):
        raise UserError("the script's results must be a flat mapping of numbers", value=type(values).__name__)
    scores = []
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError("the script's results must be finite numbers", key=str(name), value=value)
        scores.append(Score(task, "all", str(name), float(value)))
    return scores


def _per_item(path: Path, task: str) -> list[Score]:
    """The scores of a Parquet table of items; none where there is no file."""
    if not path.is_file():
        return []
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    if missing := [name for name in ("item", "metric", "value") if name not in table.column_names]:
        fix = "columns: item, metric, value, and task if there are several"
        raise UserError(f"items.parquet has no column {', '.join(missing)}", value=table.column_names, fix=fix)
    for name in ("item", "metric", "value"):
        if table[name].null_count:
            raise UserError(f"items.parquet has {table[name].null_count} rows without {name}", key="script")
    if not (pa.types.is_floating(table["value"].type) or pa.types.is_integer(table["value"].type)):
        raise UserError("the values of items.parquet must be numbers", key="script", value=str(table["value"].type))
    tasks = table["task"].to_pylist() if "task" in table.column_names else [task] * len(table)
    columns = (table[name].to_pylist() for name in ("item", "metric", "value"))
    return [Score(str(t), str(i), str(m), float(v)) for t, i, m, v in zip(tasks, *columns, strict=True)]
