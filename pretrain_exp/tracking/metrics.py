"""metrics.jsonl: what a training process reports, append-only; the truth that every other log is filled from.

    {"step": 7, "time": 1717.2, "attempt": 1, "train/loss": 2.31, ...}  -->  read_metrics (what counts, sorted by step)

`step` is the step that was trained (0-based), `time` is in seconds since 1970, `attempt` counts the starts of one job.
Standard library only.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path

LOSS = "train/loss"  # mean cross-entropy over the labels that count [nats per token]
Z_LOSS = "train/z_loss"  # coefficient times the mean squared log-partition, as added to the loss [nats per token]
GRAD_NORM = "train/grad_norm"  # L2 norm of the whole gradient, before clipping
LEARNING_RATE = "train/lr"  # of this step's update
GRADIENT_NOISE = "train/gradient_noise"  # root mean square of what a hook added to the gradient; only at its steps
TOKENS = "train/tokens"  # read since step 0, this step included
TOKENS_PER_SECOND = "train/tokens_per_second"  # over all ranks, since the previous line

Row = dict[str, float]  # "step", "time", "attempt" and the metrics of one line

RESERVED = ("step", "time", "attempt")

log = logging.getLogger(__name__)


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
    return {"attempt": 0, **found}


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
