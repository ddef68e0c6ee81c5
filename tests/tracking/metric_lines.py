"""metrics.jsonl as a worker leaves it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path


def append(path: Path, rows: Iterable[tuple[int, Mapping[str, float]]], attempt: int = 0) -> Path:
    """Appends a line for each (step, values)."""
    with open(path, "a", encoding="utf-8") as file:
        for step, values in rows:
            file.write(json.dumps({"step": step, "time": time.time(), "attempt": attempt, **values}) + "\n")
    return path
