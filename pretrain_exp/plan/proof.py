"""The proof of what was read: digests that the workers logged in, every row that differs from the plan out.

    raw files + data order --(proof_order.py)--> row before edits --+
    ledger.parquet + items.parquet ---------------> edits of row ---+--> digest  =?=  digest that a worker logged

    ledger, rows of noise -----------> (step, row, column, length, sigma)  =?=  noise that a worker logged

Independent on purpose: it neither opens an overlay nor uses the code that orders the data and counts positions, but
reads what a person could read. So a fault in any of them shows up here as rows that differ.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pretrain_exp.data.phases import Phases
from pretrain_exp.plan.digest import READS_DTYPE
from pretrain_exp.plan.proof_order import PlainOrder, PlainSteps

SHOWN = 100  # findings of each kind that a result carries; their counts are complete
_CHUNK = 256  # rows recomputed at once


@dataclass(frozen=True)
class Mismatch:
    """A row that was read otherwise than planned. planned: whether an edit lies in it."""

    step: int
    row: int
    slot: int
    planned: bool
    reason: str


@dataclass
class ProofResult:
    """What the proof found. The lists hold the first 100; `missing` and `duplicate` are (step, row).

    num_noise: spans of noise that were planned and not logged, or logged and not planned.
    """

    rows_checked: int = 0
    rows_expected: int = 0
    rows_planned: int = 0
    num_mismatches: int = 0
    num_missing: int = 0
    num_duplicate: int = 0
    noise_planned: int = 0
    num_noise: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    missing: list[tuple[int, int]] = field(default_factory=list)
    duplicate: list[tuple[int, int]] = field(default_factory=list)
    ledger_errors: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Every expected row was read once and as planned, noise included, and the ledger agrees with itself."""
        wrong = self.num_mismatches, self.num_missing, self.num_duplicate, self.num_noise, self.ledger_errors
        return not any(wrong)

    def describe(self) -> str:
        """One line for a report, with the numbers."""
        line = (
            f"{self.rows_checked:,} of {self.rows_expected:,} rows checked, {self.rows_planned:,} of them with edits: "
            f"{self.num_mismatches:,} differ from the plan, {self.num_missing:,} missing, {self.num_duplicate:,} twice"
        )
        if self.noise_planned or self.num_noise:
            line += f"; {self.noise_planned:,} spans with noise, {self.num_noise:,} of them otherwise than planned"
        if self.mismatches:
            first = self.mismatches[0]
            line += f"; the first at step {first.step}, row {first.row}: {first.reason}"
        return line + "".join(f"; {error}" for error in self.ledger_errors)


def verify_reads(
    order: dict[str, Any],
    plan: Path | str | None,
    reads: Sequence[np.ndarray],
    phases: Phases,
    steps: range | None = None,
    noise: Sequence[np.ndarray] = (),
) -> ProofResult:
    """Holds every logged row against raw files, ledger and items.

    order: JSON of the data order; plan: its folder, None for a run without edits; reads: READS_DTYPE arrays, all ranks;
    noise: NOISE_DTYPE arrays, all ranks; steps: the steps that must have been read (None: from the first to the last
    that is logged).
    """
    result = ProofResult()
    log = np.concatenate([np.zeros(0, READS_DTYPE), *reads])
    log = log[np.lexsort((log["row"], log["step"]))]
    if steps is None:
        steps = range(int(log["step"][0]), int(log["step"][-1]) + 1) if len(log) else range(0)
    last = (
        steps.stop if plan is None else max(steps.stop, json.loads((Path(plan) / "meta.json").read_text())["window"][1])
    )
    plain_steps = PlainSteps(phases.to_json(), last)
    log = _check_presence(log, steps, plain_steps, result)
    source = PlainOrder(order)
    edits = _Edits.read(Path(plan), plain_steps, result) if plan is not None else _Edits.none()
    expected = plain_steps.slot[log["step"]] + log["row"]
    owner: dict[bytes, int] = {}
    suspects: list[tuple[int, bool, bytes]] = []
    for low in range(0, len(log), _CHUNK):
        wanted = expected[low : low + _CHUNK]
        for i, tokens in enumerate(source.rows(wanted), low):
            plain = _digest(tokens)
            planned = edits.apply(int(wanted[i - low]), tokens, source, plain_steps)
            digest = _digest(tokens) if planned else plain
            owner[digest] = int(wanted[i - low])
            result.rows_planned += planned
            if digest != log["digest"][i].tobytes() or log["slot"][i] != wanted[i - low]:
                suspects.append((i, planned, plain))
    _check_noise(plan, noise, steps, plain_steps, result)
    result.rows_checked, result.num_mismatches = len(log), len(suspects)
    for i, planned, plain in suspects[:SHOWN]:
        reason = _reason(log[i], int(expected[i]), planned, plain, owner)
        step, row = int(log["step"][i]), int(log["row"][i])
        result.mismatches.append(Mismatch(step, row, int(expected[i]), planned, reason))
    return result


def _check_presence(log: np.ndarray, steps: range, plain: PlainSteps, result: ProofResult) -> np.ndarray:
    """Counts rows missing, read twice, or that no step has; returns each expected row once."""
    sizes = plain.size[steps.start : steps.stop]
    result.rows_expected = int(sizes.sum())
    inside = (log["step"] >= steps.start) & (log["step"] < steps.stop)
    inside[inside] = (log["row"][inside] >= 0) & (log["row"][inside] < sizes[log["step"][inside] - steps.start])
    if not inside.all():
        strangers = log[~inside]
        result.ledger_errors.append(
            f"{len(strangers):,} logged rows belong to no step of {steps.start} to {steps.stop}, the first to step "
            f"{strangers['step'][0]}, row {strangers['row'][0]}"
        )
    log = log[inside]
    first = np.cumsum(sizes) - sizes
    number = first[log["step"] - steps.start] + log["row"]
    counts = np.bincount(number, minlength=result.rows_expected)

    def addresses(numbers: np.ndarray) -> list[tuple[int, int]]:
        at = np.searchsorted(first, numbers[:SHOWN], side="right") - 1
        return list(zip((at + steps.start).tolist(), (numbers[:SHOWN] - first[at]).tolist(), strict=True))

    absent, twice = np.flatnonzero(counts == 0), np.flatnonzero(counts > 1)
    result.num_missing, result.missing = len(absent), addresses(absent)
    result.num_duplicate, result.duplicate = len(twice), addresses(twice)
    return log[np.concatenate([[True], number[1:] != number[:-1]])] if len(log) else log


def _check_noise(
    plan: Path | str | None, noise: Sequence[np.ndarray], steps: range, plain: PlainSteps, result: ProofResult
) -> None:
    """Counts spans of noise that are in the ledger and not in the log, or the other way round."""
    asked: Counter[tuple[Any, ...]] = Counter()
    if plan is not None:
        seed = json.loads((Path(plan) / "meta.json").read_text())["seed"]
        names = ("step", "row", "column", "length", "sigma", "kind", "position")
        table = pq.read_table(Path(plan) / "ledger.parquet", columns=list(names)).to_pylist()
        for entry in table:
            if entry["kind"] == "noise" and entry["step"] in steps:
                for step, row, column, length in plain.cut(entry["position"], entry["length"]):
                    asked[step, row, int(plain.slot[step]) + row, column, length, entry["sigma"], seed] += 1
    logged = Counter(entry for part in noise for entry in part.tolist() if entry[0] in steps)
    result.noise_planned = asked.total()
    result.num_noise = (asked - logged).total() + (logged - asked).total()


def _reason(entry: np.ndarray, slot: int, planned: bool, plain: bytes, owner: dict[bytes, int]) -> str:
    read = entry["digest"].tobytes()
    if int(entry["slot"]) != slot:
        return f"slot {int(entry['slot'])} was read, this row is slot {slot}"
    if planned and read == plain:
        return "the edit was not applied"
    if read in owner:
        return f"holds the tokens of slot {owner[read]}"
    return "tokens differ from the planned edit" if planned else "tokens differ from the data, and no edit is planned"


@dataclass(frozen=True)
class _Edits:
    """Planted rows of a ledger by position. item: index into tokens; a source slot of 0 or more stands for it."""

    start: np.ndarray
    stop: np.ndarray
    item: np.ndarray
    tokens: list[np.ndarray]
    source_slot: np.ndarray
    source_column: np.ndarray

    @classmethod
    def none(cls) -> _Edits:
        empty = np.zeros(0, dtype=np.int64)
        return cls(empty, empty, empty, [], empty, empty)

    @classmethod
    def read(cls, plan: Path, plain_steps: PlainSteps, result: ProofResult) -> _Edits:
        items = pq.read_table(plan / "items.parquet", columns=["insertion", "item", "tokens"])
        names = zip(items["insertion"].to_pylist(), items["item"].to_pylist(), strict=True)
        index = {name: i for i, name in enumerate(names)}
        tokens = [np.asarray(each.values, dtype=np.uint32) for each in items["tokens"]]
        ledger = pq.read_table(plan / "ledger.parquet").to_pydict()
        planted = zip(ledger["status"], ledger["kind"], strict=True)
        rows = [i for i, (status, kind) in enumerate(planted) if status == "planted" and kind != "noise"]
        rows.sort(key=ledger["position"].__getitem__)

        def column(name: str) -> np.ndarray:
            return np.array([ledger[name][i] for i in rows], dtype=np.int64)

        start, length, source = column("position"), column("length"), column("source_slot")
        item = np.array([index[ledger["insertion"][i], ledger["item"][i]] for i in rows], dtype=np.int64)
        steps, step_rows, columns = plain_steps.locate(start)
        wrong = (steps != column("step")) | (step_rows != column("row")) | (columns != column("column"))
        if wrong.any():
            result.ledger_errors.append(f"{int(wrong.sum()):,} ledger rows name another step, row or column")
        digests = [_digest(each).hex() for each in tokens]
        plain = [(i, k) for k, i in enumerate(rows) if source[k] < 0]
        false = sum(digests[item[k]] != ledger["digest"][i] or len(tokens[item[k]]) != length[k] for i, k in plain)
        if false:
            result.ledger_errors.append(f"{false:,} ledger rows have a digest or length other than their item's")
        if (start[1:] < (start + length)[:-1]).any():
            result.ledger_errors.append("edits overlap in the ledger")
        return cls(start, start + length, item, tokens, source, column("source_column"))

    def apply(self, slot: int, row: np.ndarray, source: PlainOrder, plain_steps: PlainSteps) -> bool:
        """Edits one row in place, the tokens of `slot`; returns whether any edit lies in it."""
        first = plain_steps.start(slot)
        low = int(np.searchsorted(self.stop, first, side="right"))
        high = int(np.searchsorted(self.start, first + len(row), side="left"))
        for i in range(low, high):
            begin, end = max(self.start[i], first), min(self.stop[i], first + len(row))
            if self.source_slot[i] >= 0:
                other = source.rows(self.source_slot[i : i + 1])[0]
                offset = self.source_column[i] - self.start[i]
            else:
                other, offset = self.tokens[self.item[i]], -self.start[i]
            row[begin - first : end - first] = other[begin + offset : end + offset]
        return low < high


def _digest(tokens: np.ndarray) -> bytes:
    return blake2b(tokens.astype("<u4").tobytes(), digest_size=16).digest()
