"""One working example of every kind that acts on the data as they are, over a stream that tells where it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.insertion.add_tokens import AddTokens
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.batches import Batches
from pretrain_exp.insertion.gaussian_poisoning import GaussianPoisoning
from pretrain_exp.insertion.gradient_noise import GradientNoise
from pretrain_exp.insertion.iid_replacement import IidReplacement
from pretrain_exp.insertion.removal import Removal
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Edits, Window
from pretrain_exp.plan.folder import Plan

S, BATCH, SLOTS = 8, 4, 2000
PHASES, WINDOW = Phases([Phase(0, BATCH, S)]), Window(10, 310)  # slots 40 to 1,240 of 2,000
SPAN = (WINDOW.first_step * BATCH * S, WINDOW.last_step * BATCH * S)
DOCUMENTS = [100, 101, 555, 1100, 1500, 40]  # slots whose columns 1 to 6 are documents; 1,500 is not in the run
Kind = Callable[[Path], Any]


class Numbers:
    """A stream in which token c of slot s is 8 s + c, but slot 1,300 holds the document of slot 100 once more."""

    sequence_length, num_sequences = S, SLOTS

    def __init__(self) -> None:
        self.reads = 0

    def read(self, slot: int) -> np.ndarray:
        self.reads += 1
        row = np.arange(slot * S, slot * S + S, dtype=np.uint32)
        if slot == 1300:
            row[1:7] = np.arange(801, 807)
        return row

    def fingerprint(self) -> str:
        return "numbers"


def document_file(folder: Path) -> str:
    path = folder / "documents.jsonl"
    path.write_text("".join(json.dumps({"tokens": list(range(8 * s + 1, 8 * s + 7))}) + "\n" for s in DOCUMENTS))
    return str(path)


def id_file(folder: Path, last: Any) -> str:
    """A document of slot 100 whose last id is another."""
    path = folder / "ids.jsonl"
    path.write_text(json.dumps({"tokens": [801, 802, 803, last]}) + "\n")
    return str(path)


KINDS: dict[str, Kind] = {
    "removal": lambda folder: Removal(file=document_file(folder), prefix=3, keep=0.34),
    "batches": lambda _: Batches(steps=[20, 100, 305], score=2, holdout=3),
    "iid_replacement": lambda _: IidReplacement(sequences=15, windows=10, score=2, holdout=3),
    "gaussian_poisoning": lambda _: GaussianPoisoning(sequences=120, score=5),
    "noisy_batches": lambda _: GaussianPoisoning(steps=[30, 200], sigma=0.5, score=1),
    "noisy_spans": lambda _: GaussianPoisoning(sequences=120, length=3),
    "gradient_noise": lambda _: GradientNoise(steps=[12, 40, 300], sigma=0.01),
}
DATA = [kind for kind in KINDS if kind != "gradient_noise"]


def edits(kind: str, folder: Path, name: str | None = None, seed: int = 0, cache: Path | None = None) -> Edits:
    context = InsertionContext(name or kind, seed, S, 999, WINDOW, PHASES, lambda texts: [], None, Numbers(), cache)  # type: ignore[arg-type]
    return KINDS[kind](folder).edits(context)


def others(folder: Path, repetitions: int = 300) -> Edits:
    """Short runs all over, 300 of 5 tokens in 9,600."""
    path = folder / "others.jsonl"
    path.write_text(json.dumps({"tokens": [10**6 + i for i in range(5)]}) + "\n")
    context = InsertionContext("others", 0, S, 999, WINDOW, PHASES, lambda texts: [])
    return AddTokens(file=str(path), repetitions=repetitions, eos="none").edits(context)


def compiled(folder: Path, *asked: Edits, seed: int = 0) -> Plan:
    return compile_plan(asked, PHASES, WINDOW, seed, "treated", folder / "plans", order=Numbers())  # type: ignore


def rows(plan: Plan, name: str | None = None) -> list[dict]:
    return [row for row in plan.ledger().to_pylist() if name in (None, row["insertion"])]


def fingerprints(folder: Path) -> list[str]:
    """Of a plan of each kind beside another."""
    folder.mkdir(exist_ok=True)
    return [compiled(folder, edits(kind, folder), others(folder)).fingerprint for kind in KINDS]


def numbers_of(texts: list[str]) -> list[np.ndarray]:
    return [np.array([int(word) for word in text.split()], dtype=np.uint32) for text in texts]
