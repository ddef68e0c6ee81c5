"""A run of small numbers, for which the text "3 4 5" is the tokens 3, 4, 5; and one working example of every kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.insertion.add_texts import AddTexts
from pretrain_exp.insertion.add_tokens import AddTokens
from pretrain_exp.insertion.base import Insertion, InsertionContext
from pretrain_exp.insertion.benchmark_contamination import BenchmarkContamination
from pretrain_exp.plan.edits import Window

S = 32
EOS = 999


def encode(texts: list[str]) -> list[np.ndarray]:
    """Numbers are themselves, other words their length."""
    return [np.array([int(w) if w.isdigit() else len(w) for w in text.split()], dtype=np.uint32) for text in texts]


@pytest.fixture
def context() -> InsertionContext:
    return InsertionContext(
        name="mine",
        seed=0,
        sequence_length=S,
        eos_token_id=EOS,
        window=Window(10, 210),
        phases=Phases([Phase(0, 4, S)]),
        encode=encode,
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes rows as JSONL and returns the path."""

    def _write(rows: list[Any], name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return str(path)

    return _write


@pytest.fixture
def make(write: Callable[..., str]) -> Callable[..., Insertion]:
    """Any kind over 40 items; in mode explicit item i goes to position 2,000 + 50 i."""

    def _make(kind: str, order: int = 1, **fields: Any) -> Insertion:
        positions = {"position": 2000} if fields.get("mode") == "explicit" else {}

        def at(i: int) -> dict[str, int]:
            return {key: value + 50 * i for key, value in positions.items()}

        if kind == "add_texts":
            rows = [{"text": f"{i} {i + 1} {i + 2}"} | at(i) for i in range(40)][::order]
            return AddTexts(file=write(rows), **fields)
        if kind == "add_tokens":
            rows = [{"tokens": [i, i + 1, i + 2, i + 3]} | at(i) for i in range(40)][::order]
            return AddTokens(file=write(rows), **fields)
        rows = [{"query": f"{i} {i} is", "choices": [f"{i + 100}", f"{i + 200}"], "gold": i % 2} for i in range(40)]
        return BenchmarkContamination(benchmark=write(rows[::order]), **({"repetitions": [0, 1, 4, 16]} | fields))

    return _make
