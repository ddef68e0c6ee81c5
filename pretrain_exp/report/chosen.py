"""Which rows of an analysis are shown: those to conclude from, of the metrics that are shown first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from pretrain_exp.analysis.metrics import shown_metrics


class _Seeded(Protocol):
    @property
    def seed(self) -> int | None: ...


class _Planted(Protocol):
    @property
    def insertion(self) -> str: ...
    @property
    def metric(self) -> str: ...


Row = TypeVar("Row", bound=_Seeded)
Asked = TypeVar("Asked", bound=_Planted)


def main_rows(rows: Sequence[Row], key: Callable[[Row], Any]) -> list[Row]:
    """Of rows that share a key: the one over seeds where there is one, else those of the single runs."""
    over = {key(row) for row in rows if row.seed is None}
    return [row for row in rows if row.seed is None or key(row) not in over]


def of_shown_metrics(rows: Sequence[Asked]) -> list[Asked]:
    """The rows of each insertion in the metrics that are shown first (metrics.py), of its own where it has none."""
    names: dict[str, list[str]] = {}
    for row in rows:
        names.setdefault(row.insertion, []).append(row.metric)
    shown = {insertion: shown_metrics(found) for insertion, found in names.items()}
    return [row for row in rows if row.metric in shown[row.insertion]]
