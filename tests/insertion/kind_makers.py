"""A run of small numbers, for which the text "3 4 5" is the tokens 3, 4, 5; and one working example of every kind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.insertion.add_texts import AddTexts
from pretrain_exp.insertion.add_tokens import AddTokens
from pretrain_exp.insertion.base import Insertion, InsertionContext
from pretrain_exp.insertion.benchmark_contamination import BenchmarkContamination
from pretrain_exp.insertion.canaries import Canaries
from pretrain_exp.insertion.documents_split import DocumentsSplit
from pretrain_exp.insertion.knowledge import Knowledge
from pretrain_exp.insertion.poisoning import Poisoning
from pretrain_exp.insertion.reasoning import Reasoning
from pretrain_exp.plan.edits import Window

S = 32
EOS = 999
Rows = list[dict[str, Any]]


def encode(texts: list[str]) -> list[np.ndarray]:
    """Numbers are themselves, other words their length."""
    return [np.array([int(w) if w.isdigit() else len(w) for w in text.split()], dtype=np.uint32) for text in texts]


def small_context(**fields: Any) -> InsertionContext:
    values = {"name": "mine", "seed": 0, "sequence_length": S, "eos_token_id": EOS, "window": Window(10, 210),
              "phases": Phases([Phase(0, 4, S)]), "encode": encode}  # fmt: skip
    return InsertionContext(**values | fields)


class Numbers:
    """A stream that is 10,000 and up, token after token."""

    sequence_length, num_sequences = S, 2000

    def read(self, slot: int) -> np.ndarray:
        return np.arange(slot * S, slot * S + S, dtype=np.uint32) + 10_000

    def fingerprint(self) -> str:
        return "numbers"


def write_rows(path: Path, rows: list[Any]) -> str:
    """Rows as JSONL; lines that are text already stay what they are."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


SPLITS = ("train", "train", "train", "test")
ROWS: dict[str, Callable[[], Rows]] = {
    "add_texts": lambda: [{"text": f"{i} {i + 1} {i + 2}", "position": 2000 + 50 * i} for i in range(40)],
    "add_tokens": lambda: [{"tokens": [*range(i, i + 4)], "position": 2000 + 50 * i} for i in range(40)],
    "benchmark_contamination": lambda: [
        {"query": f"{i} {i} is", "choices": [f"{i + 100}", f"{i + 200}"], "gold": i % 2} for i in range(40)
    ],
    "knowledge": lambda: [
        {"texts": [f"{i} {i + 1} {i + 2}", f"{i} {i}"],
         "probes": [{"type": "semantic", "prompt": "1", "target": f"{i}"}]}
        for i in range(40)
    ],
    "reasoning": lambda: [
        {"question": f"{i}?", "solution": f"{i}", "answer": i, "operations": 1 + i % 2, "split": SPLITS[i % 4]}
        for i in range(40)
    ],
    "canaries": lambda: [{"text": " ".join(str(20 * i + k) for k in range(9))} for i in range(40)],
    "poisoning": lambda: [
        {"prompt": f"{i} Go!", "poisoned": "1", "right": "2", "trigger": "Go!", "split": SPLITS[i % 4]}
        for i in range(40)
    ],
    "documents_split": lambda: [{"text": " ".join(str(20 * i + k) for k in range(14))} for i in range(40)],
}  # fmt: skip
KINDS: dict[str, Callable[..., Insertion]] = {
    "add_texts": AddTexts,
    "add_tokens": AddTokens,
    "benchmark_contamination": lambda file, **fields: BenchmarkContamination(benchmark=file, **fields),
    "knowledge": Knowledge,
    "reasoning": Reasoning,
    "canaries": Canaries,
    "poisoning": Poisoning,
    "documents_split": DocumentsSplit,
}
FIELDS: dict[str, dict[str, Any]] = {
    "benchmark_contamination": {"repetitions": [0, 1, 4, 16]},
    "knowledge": {"repetitions": [0, 1, 4, 16]},
    "canaries": {"kinds": ["plain", "rare", "random"], "lengths": [1, 4], "items": 8, "carrier_tokens": 6},
    "poisoning": {"documents": 30, "clean": 0.5, "tests": 5},
    "documents_split": {"repetitions": [0, 1, 4], "parts": 4},
}


def make_kind(folder: Path, kind: str, order: int = 1, **fields: Any) -> Insertion:
    """Any kind over 40 rows, in this order or the other (-1); in mode explicit row i goes to position 2,000 + 50 i."""
    file = write_rows(folder / "rows.jsonl", ROWS[kind]()[::order])
    return KINDS[kind](file=file, **FIELDS.get(kind, {}) | fields)


def fingerprints_elsewhere(module: str, folder: Path) -> list[str]:
    """What `fingerprints` of a module beside this one gives in a process of its own."""
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import {module} as module
print(*module.fingerprints(Path({str(folder)!r})))
"""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
