"""metrics.jsonl: what a training process reports, append-only; the truth that every other log is filled from.

    MetricsWriter.log  -->  {"step": 7, "time": 1717.2, "attempt": 1, "train/loss": 2.31, "train/grad_norm": "NaN"}
                            --> read_metrics (what counts, sorted by step)    --> follow (lines as they come)

One line a step, written by one call, so that a reader sees it whole or not at all. JSON knows no NaN and no infinity:
they are written as the strings "NaN", "Infinity" and "-Infinity", and read back as floats. `step` is the step that was
trained (0-based), `time` is in seconds since 1970, `attempt` counts the starts of one job. Standard library only.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

LOSS = "train/loss"
Z_LOSS = "train/z_loss"
GRAD_NORM = "train/grad_norm"
LEARNING_RATE = "train/lr"
TOKENS = "train/tokens"
TOKENS_PER_SECOND = "train/tokens_per_second"

METRICS = {
    LOSS: "mean cross-entropy over the labels that count [nats per token]",
    Z_LOSS: "coefficient times the mean squared log-partition, as it is added to the loss [nats per token]",
    GRAD_NORM: "L2 norm of the whole gradient, before clipping",
    LEARNING_RATE: "learning rate of this step's update",
    TOKENS: "tokens read since step 0, this step included",
    TOKENS_PER_SECOND: "tokens a second, over all ranks, since the previous line",
}

Row = dict[str, float]  # "step", "time", "attempt" and the metrics of one line

RESERVED = ("step", "time", "attempt")
_SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

log = logging.getLogger(__name__)


def eval_metric(evaluation: str, task: str, metric: str) -> str:
    """The name of an evaluation's aggregate: eval/<evaluation>/<task>/<metric>."""
    return f"eval/{evaluation}/{task}/{metric}"


class MetricsWriter:
    """Appends to a metrics.jsonl; each line is handed to the system before `log` returns. One process writes a file."""

    def __init__(self, path: Path | str, attempt: int = 0):
        """attempt: how many times this job was started before. Raises OSError where the file cannot be written."""
        self.path, self.attempt = Path(path), attempt
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (open as long as the writer)
        if _ends_within_line(self.path):  # a process that was killed while writing: its half line stays alone
            self._file.write(b"\n")

    def log(self, step: int, values: Mapping[str, float] | None = None, **named: float) -> None:
        """Writes one line. Values are anything that float() takes but text: numbers, NumPy or torch scalars.

        Raises ValueError for the names step, time and attempt, TypeError for text.
        """
        row: dict[str, object] = {"step": int(step), "time": round(time.time(), 3), "attempt": self.attempt}
        for name, value in {**(values or {}), **named}.items():
            if name in RESERVED:
                raise ValueError(f"a metric cannot be called {name!r}: each line has that field already")
            if isinstance(value, str | bytes):
                raise TypeError(f"metric {name} is text: {value!r}")
            row[name] = _spell(float(value))
        self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(paths: Path | str | Sequence[Path | str]) -> list[Row]:
    """One row a step, sorted by step, of one file or several that continue each other; a missing file has no rows.

    Within a file a later attempt supersedes what earlier ones wrote from its first step on. Where files share a step,
    their values are joined; of a value that both have, the later attempt's counts, then the later file's. Lines that
    are no JSON (a last one still being written, a half one left by a kill) are skipped with a warning that names them.
    """
    rows: list[Row] = []
    for path in [paths] if isinstance(paths, Path | str) else paths:
        rows += _without_superseded(_read_file(Path(path)))
    joined: dict[int, Row] = {}
    for row in sorted(rows, key=lambda row: (row["step"], row["attempt"])):  # stable: later files stay later
        joined.setdefault(int(row["step"]), {}).update(row)
    return list(joined.values())


def follow(path: Path | str, stop: Callable[[], bool] = lambda: False, poll_seconds: float = 0.5) -> Iterator[Row]:
    """Yields the complete lines of a file as they appear, the ones that stand there first; waits for the file itself.

    Ends when `stop()` holds and everything written before has been yielded. Nothing is superseded here: lines come as
    they were written.
    """
    position = 0
    pending = b""
    while True:
        ending = stop()  # asked before reading: what was written before it held is still yielded
        if Path(path).is_file():
            with open(path, "rb") as file:
                file.seek(position)
                pending += file.read()
                position = file.tell()
        *lines, pending = pending.split(b"\n")
        for line in lines:
            row = _parse(line)
            if row is not None:
                yield row
        if ending:
            return
        time.sleep(poll_seconds)


def _read_file(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    rows, broken = [], []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        row = _parse(line)
        if row is not None:
            rows.append(row)
        elif line.strip():
            broken.append(number)
    if broken == [len(lines)]:
        log.warning("%s: the last line (%d) is only half written; skipped", path, broken[0])
    elif broken:
        log.warning("%s: %d broken lines skipped, the first is line %d", path, len(broken), broken[0])
    return rows


def _parse(line: bytes) -> Row | None:
    """The row of one line; None where it is not one."""
    try:
        found = json.loads(line)
    except ValueError:  # no JSON, or bytes that are no text
        return None
    if not isinstance(found, dict) or not isinstance(found.get("step"), int):
        return None
    row = {
        name: _SPELLED[value] if isinstance(value, str) and value in _SPELLED else value
        for name, value in found.items()
    }
    return {"attempt": 0, **row}


def _without_superseded(rows: list[Row]) -> list[Row]:
    """The rows no later attempt of the same file has gone over again."""
    first: dict[float, float] = {}
    for row in rows:
        first[row["attempt"]] = min(row["step"], first.get(row["attempt"], math.inf))
    end: dict[float, float] = {}  # attempt -> the first step of any later attempt
    lowest = math.inf
    for attempt in sorted(first, reverse=True):
        end[attempt] = lowest
        lowest = min(lowest, first[attempt])
    return [row for row in rows if row["step"] < end[row["attempt"]]]


def _spell(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _ends_within_line(path: Path) -> bool:
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
