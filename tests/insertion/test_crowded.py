"""Where room is short: unseen sequences that hold what is removed, too few of them, and ranges that are full."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.errors import UserError
from pretrain_exp.insertion.add_tokens import AddTokens
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.batches import Batches
from pretrain_exp.insertion.gaussian_poisoning import GaussianPoisoning
from pretrain_exp.insertion.iid_replacement import IidReplacement
from pretrain_exp.insertion.removal import Removal
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Edits, Window
from pretrain_exp.plan.folder import Plan

S, BATCH, SLOTS = 8, 4, 300
PHASES, WINDOW = Phases([Phase(0, BATCH, S)]), Window(0, 50)  # slots 0 to 200 of 300
RUN = range(11 * 8 + 1, 11 * 8 + 7)  # a document in slot 11


class Tainted:
    """Token c of slot s is 8 s + c, but `tainted` slots hold the document of slot 11 as well."""

    sequence_length, num_sequences = S, SLOTS

    def __init__(self, tainted: Collection[int]) -> None:
        self.tainted, self.slots_read = tainted, 0

    def read(self, slot: int) -> np.ndarray:
        self.slots_read += 1
        row = np.arange(slot * S, slot * S + S, dtype=np.uint32)
        if slot in self.tainted:
            row[1:7] = RUN
        return row

    def fingerprint(self) -> str:
        return f"tainted {sorted(self.tainted)}"


def context(name: str, order: Any) -> InsertionContext:
    return InsertionContext(name, 0, S, 999, WINDOW, PHASES, lambda texts: [], None, order)


def asked(folder: Path, order: Any, *kinds: str) -> list[Edits]:
    path = folder / "documents.jsonl"
    path.write_text(json.dumps({"tokens": list(RUN)}) + "\n")
    made = {
        "removal": Removal(file=str(path), prefix=3),
        "batches": Batches(steps=[5, 20], score=1, holdout=2),
        "iid": IidReplacement(sequences=3, windows=5, score=1, holdout=2),
    }
    return [made[kind].edits(context(kind, order)) for kind in kinds]


def compiled(folder: Path, order: Any, edits: list[Edits]) -> Plan:
    return compile_plan(edits, PHASES, WINDOW, 0, "treated", folder / "plans", order=order)


def sources(plan: Plan) -> dict[tuple[str, str], int]:
    return {(row["insertion"], row["item"]): row["source_slot"] for row in plan.ledger().to_pylist()}


def test_no_kind_reads_an_unseen_sequence_that_holds_what_is_removed(tmp_path: Path) -> None:
    """Half of what is unseen is tainted; only those that drew such a sequence draw again."""
    tainted = Tainted(range(200, 300, 2))
    plan = compiled(tmp_path, tainted, asked(tmp_path, tainted, "removal", "batches", "iid"))
    assert plan.audit["ok"], plan.audit["findings"]
    now = sources(plan)
    assert len(now) == 1 + 8 + 15
    assert all(slot % 2 for slot in now.values())
    assert len(set(now.values())) == len(now)
    clean = Tainted(())
    before = sources(compiled(tmp_path, clean, asked(tmp_path, clean, "removal", "batches", "iid")))
    freed = {slot for slot in before.values() if slot % 2 == 0}
    kept = [name for name, slot in before.items() if slot % 2 and now[name] == slot]
    assert freed
    assert len(kept) >= 0.6 * (len(before) - len(freed)), "the others stay, but for the few that meet who drew again"


def test_what_is_unseen_is_read_only_as_far_as_it_is_needed(tmp_path: Path) -> None:
    order = Tainted(())
    edits = asked(tmp_path, order, "removal")
    order.slots_read = 0
    compiled(tmp_path, order, edits)
    assert order.slots_read < 10


@pytest.mark.parametrize(
    ("tainted", "kinds", "key", "words"),
    [
        (range(200, 300), ["removal"], "removal", ["1 unseen", "100 after the run", "hold what is to be removed"]),
        (range(200, 285), ["removal", "batches", "iid"], "iid", ["28 unseen sequences", "(batches, iid, removal)"]),
    ],
)
def test_too_few_clean_ones_are_an_error_with_the_way_out(
    tmp_path: Path, tainted: range, kinds: list[str], key: str, words: list[str]
) -> None:
    order = Tainted(tainted)
    with pytest.raises(UserError) as error:
        compiled(tmp_path, order, asked(tmp_path, order, *kinds))
    assert error.value.key == f"insertion.{key}"
    assert all(word in error.value.problem for word in words), error.value.problem
    assert "ngram" in (error.value.fix or "")


def test_together_they_may_ask_for_no_more_than_there_is(tmp_path: Path) -> None:
    order = Tainted(())
    many = [Batches(steps=list(range(first, first + 9))).edits(context(f"b{first}", order)) for first in (5, 20)]
    with pytest.raises(UserError, match=r"104 unseen sequences are needed \(b20, b5\); the epoch has 100") as error:
        compiled(tmp_path, order, many)
    assert "ngram" not in (error.value.fix or "")


def test_who_plants_a_removed_run_again_is_named(tmp_path: Path) -> None:
    order, path = Tainted(()), tmp_path / "again.jsonl"
    path.write_text(json.dumps({"tokens": list(RUN)}) + "\n")
    again = AddTokens(file=str(path), eos="none").edits(context("again", order))
    plan = compiled(tmp_path, order, [*asked(tmp_path, order, "removal"), again])
    (error,) = [each["message"] for each in plan.audit["findings"] if each["level"] == "error"]
    holds = f"item {again.items[0].id} of insertion.again holds it"
    assert error.endswith(f"{holds}: take it out there, or out of what insertion.removal removes")


FULL: list[tuple[str, dict[str, Any]]] = [
    ("iid", {"sequences": 7, "windows": 25}),  # 7 of 8 sequences in each window
    ("gaussian", {"sequences": 180}),  # of 200
    ("gaussian", {"sequences": 330, "length": 4}),  # 1,320 tokens of 1,600 in spans of half a sequence
]


@pytest.mark.parametrize(("kind", "fields"), FULL, ids=["iid", "sequences", "spans"])
def test_a_full_range_is_packed_where_that_is_asked(tmp_path: Path, kind: str, fields: dict[str, Any]) -> None:
    order = Tainted(())
    order.num_sequences = 600  # type: ignore[misc]
    make: Any = IidReplacement if kind == "iid" else GaussianPoisoning
    packed = make(**fields, on_full="pack", score=1).edits(context(kind, order))
    plan = compiled(tmp_path, order, [packed])
    assert plan.audit["ok"], plan.audit["findings"]
    assert plan.audit["edits"] == len(packed)
    if kind == "gaussian" and "length" in fields:
        with pytest.raises(UserError, match="the range is full") as error:
            compiled(tmp_path, order, [replace(packed, on_full="error")])
        assert error.value.key == "insertion.gaussian.on_full"


def test_batches_with_noise_do_not_move() -> None:
    with pytest.raises(UserError, match="whole batches lie where they lie") as error:
        GaussianPoisoning(steps=[5], on_full="pack")
    assert error.value.key == "on_full"
