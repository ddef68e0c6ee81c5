"""What tables and pictures make of rows: what tells them apart, numbers with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from pretrain_exp.analysis.place import short_variant
from pretrain_exp.report.tables import DASH, Cell, Column, number


def between(value: float, low: float, high: float, digits: int = 2, flag: str = "") -> Cell:
    """'0.71 (0.64 to 0.78)', or without an interval the value and why there is none."""
    if math.isnan(value):
        return Cell(DASH, -math.inf, note=flag)
    text = number(value, digits).text
    if not math.isnan(low):
        text += f" ({number(low, digits).text} to {number(high, digits).text})"
    return Cell(text, value, note=flag)


def telling(rows: Iterable[Any], *names: str) -> list[str]:
    """Of these fields, those that tell the rows apart."""
    rows = list(rows)
    return [name for name in names if len({getattr(row, name) for row in rows}) > 1]


def which_cells(row: Any, names: Sequence[str]) -> list[Cell]:
    return [Cell(short_variant(str(getattr(row, name))), str(getattr(row, name))) for name in names]


def which_columns(names: Sequence[str]) -> list[Column]:
    words = {"panel": "Variant", "insertion": "Insertion", "evaluation": "Evaluation", "task": "Task", "seed": "Seed"}
    return [Column(words.get(name, name.capitalize()), number=False, keep=2) for name in names]


def short(value: float) -> str:
    """'812', '61.4 k', '3.02 M': three digits."""
    for scale, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= scale:
            return f"{value / scale:.3g}{unit}" if abs(value) < 1e15 else f"{value:.1e}"
    return f"{value:.3g}"


def seed_of(seed: int | None, rows: Sequence[Any]) -> str:
    """`, seed 3` where the rows differ in it."""
    return f", seed {seed}" if len({row.seed for row in rows}) > 1 else ""
