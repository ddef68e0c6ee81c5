"""The run of small numbers, files of rows, and the kinds that read them: see kind_makers.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kind_makers import make_kind, small_context, write_rows

from pretrain_exp.insertion.base import Insertion, InsertionContext


@pytest.fixture
def context() -> InsertionContext:
    return small_context()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes rows as JSONL and returns the path."""

    def _write(rows: list[Any], name: str = "rows.jsonl") -> str:
        return write_rows(tmp_path / name, rows)

    return _write


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Insertion]:
    return partial(make_kind, tmp_path)
