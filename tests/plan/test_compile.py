"""A compiled plan: ledger, overlay, items and fingerprint agree with each other and with nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compiled_plans import compiled, requests, rows
from plan_samples import PHASES, SPAN, WINDOW, S, edits

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.errors import UserError
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.edits import EditItem, Edits, Skipped, Window
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.pieces import split_at_sequences
from pretrain_exp.store.states import write_json

RAMP = Phases([Phase(0, 2, S), Phase(20, 8, S), Phase(40, 16, S)])


@pytest.mark.parametrize("phases", [PHASES, RAMP], ids=["constant", "ramp"])
def test_the_overlay_does_what_the_ledger_says_and_nothing_else(tmp_path: Path, phases: Phases) -> None:
    span = (phases.position_of_step(10), phases.position_of_step(60))
    asked = [replace(request, span=span) if request.mode == "random" else request for request in requests()]
    asked[2] = edits("c", [6, 2 * S + 5], 1, positions=[span[0], span[0] + 30 * S + 20])
    plan = compiled(tmp_path, asked, phases=phases)
    tokens = {(row["insertion"], row["item"]): row["tokens"] for row in plan.items().to_pylist()}
    expected = np.arange(span[0], span[1], dtype=np.uint32)  # the data holds its own positions
    for row in rows(plan):
        at = row["position"] - span[0]
        expected[at : at + row["length"]] = tokens[row["insertion"], row["item"]]
        slot = phases.first_slot(row["step"]) + row["row"]
        assert phases.position(np.array([slot]), np.array([row["column"]])) == [row["position"]]
        assert row["digest"] == row_digest(np.array(tokens[row["insertion"], row["item"]])).hex()
        assert (row["source_slot"], row["source_column"], row["status"], row["arm"]) == (-1, -1, "planted", "treated")
    assert (expected >= 100_000).sum() == plan.audit["tokens"] == sum(row["length"] for row in rows(plan))
    for i, slot in enumerate(range(phases.first_slot(10), phases.first_slot(60))):
        first = span[0] + i * S
        read = plan.overlay.apply(slot, np.arange(first, first + S, dtype=np.uint32))
        assert read.tolist() == expected[i * S : (i + 1) * S].tolist()
    assert not plan.overlay.touches(phases.first_slot(10) - 1)
    assert not plan.overlay.touches(phases.first_slot(60))


def test_doses_are_exact_and_holdouts_are_items_without_rows(tmp_path: Path) -> None:
    plan = compiled(tmp_path)
    ledger = rows(plan)
    for item in plan.items().to_pylist():
        mine = [row for row in ledger if (row["insertion"], row["item"]) == (item["insertion"], item["item"])]
        assert len(mine) == item["dose"]
        assert sorted(row["copy"] for row in mine) == list(range(item["dose"]))
        assert all((row["dose"], row["group"]) == (item["dose"], item["group"]) for row in mine)
    pool = set(plan.overlay.arrays["pool"].tolist())
    held = next(item for item in plan.items().to_pylist() if item["item"] == "a2")
    assert held["dose"] == 0
    assert not pool & set(held["tokens"])
    assert [row["position"] for row in ledger] == sorted(row["position"] for row in ledger)


def test_the_pool_holds_equal_tokens_once(tmp_path: Path) -> None:
    one = edits("a", [10], 7)
    plan = compiled(tmp_path, [one, replace(one, insertion="b")])
    assert len(plan.overlay.arrays["pool"]) == 10
    assert len(plan.overlay) == 14


def test_an_edit_over_sequences_is_one_row_and_several_operations(tmp_path: Path) -> None:
    plan = compiled(tmp_path, [requests()[2]])
    assert plan.ledger().num_rows == 2
    spans = list(zip(*(plan.overlay.arrays[name].tolist() for name in ("slot", "column", "length")), strict=True))
    assert spans == [(40, 0, 6), (70, 20, 12), (71, 0, 32), (72, 0, 25)]


def test_split_at_sequences_covers_every_token_once() -> None:
    phases = Phases([Phase(0, 3, 8), Phase(2, 1, 20)])
    position, length = np.array([0, 5, 40, 60]), np.array([8, 17, 15, 50])
    pieces = split_at_sequences(position, length, phases)
    at = phases.position(pieces.slot, pieces.column)
    assert (at == position[pieces.row] + pieces.offset).all()
    assert np.bincount(pieces.row, weights=pieces.length).tolist() == length.tolist()
    assert (phases.locate(at + pieces.length - 1)[0] == pieces.slot).all()
    assert pieces.length.tolist() == [8, 3, 8, 6, 8, 7, 8, 20, 20, 2]


def test_the_fingerprint_is_the_content(tmp_path: Path) -> None:
    plan = compiled(tmp_path / "one")
    asked = requests()[::-1]
    turned = []
    for request in asked:  # the items of each in another order as well
        n = len(request.items)
        order = np.argsort(-request.item, kind="stable")
        position = None if request.position is None else request.position[order]
        turned.append(
            replace(
                request,
                items=request.items[::-1],
                item=(n - 1 - request.item[order]).astype(np.int32),
                copy=request.copy[order],
                position=position,
            )
        )
    other = compiled(tmp_path / "two", turned)
    assert other.fingerprint == plan.fingerprint
    assert other.ledger().equals(plan.ledger())
    for file in plan.overlay.folder.iterdir():
        assert file.read_bytes() == (other.overlay.folder / file.name).read_bytes()


def change(request: Edits, **values: object) -> Edits:
    return replace(request, items=[replace(request.items[0], **values), *request.items[1:]])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values", [{"text": "x"}, {"group": "x"}, {"payload": "x"}, {"tokens": np.arange(5)}, {"id": "x"}]
)
def test_whatever_a_plan_holds_changes_its_fingerprint(tmp_path: Path, values: dict) -> None:
    asked = requests()
    assert compiled(tmp_path, [change(asked[0], **values), *asked[1:]]).fingerprint != compiled(tmp_path).fingerprint


def test_seed_window_phases_and_arm_change_the_fingerprint(tmp_path: Path) -> None:
    asked = [requests()[2]]  # explicit: the places stay
    names = {compiled(tmp_path, asked, seed).fingerprint for seed in (0, 1)}
    names.add(compile_plan(asked, PHASES, Window(10, 61), 0, "treated", tmp_path).fingerprint)
    names.add(compile_plan(asked, PHASES, WINDOW, 0, "other", tmp_path).fingerprint)
    names.add(compile_plan(asked, Phases([Phase(0, 8, S)]), Window(5, 30), 0, "treated", tmp_path).fingerprint)
    assert len(names) == 5


def test_a_plan_is_written_once(tmp_path: Path) -> None:
    plan = compiled(tmp_path)
    there = {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in plan.folder.rglob("*")}
    again = compiled(tmp_path)
    assert again.folder == plan.folder
    assert {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in plan.folder.rglob("*")} == there
    assert [file.name for file in tmp_path.iterdir()] == [plan.fingerprint]


def test_a_plan_is_judged_by_what_was_asked_for_last(tmp_path: Path) -> None:
    """What an audit holds against a request changes nothing that the plan does: it is the same plan."""
    failed = {"ok": False, "findings": []}
    plan = compiled(tmp_path)
    sound = plan.audit
    write_json(plan.folder / "audit.json", failed)
    assert compiled(tmp_path).audit == sound


def test_plans_share_the_prefix_before_they_part(tmp_path: Path) -> None:
    """A longer plan in the same run is the same before its first new edit, whatever its pool holds."""
    one = compiled(tmp_path, [requests()[0]])
    late = edits("0late", [7], 1, positions=[SPAN[1] - S])
    two = compiled(tmp_path, [requests()[0], late])
    cut = two.last_slot
    assert cut is not None
    assert one.overlay.prefix_digest(cut) == two.overlay.prefix_digest(cut)
    assert one.overlay.prefix_digest(cut + 1) != two.overlay.prefix_digest(cut + 1)


def test_an_empty_plan_changes_nothing(tmp_path: Path) -> None:
    plan = compiled(tmp_path, [])
    assert (len(plan.overlay), plan.ledger().num_rows, plan.items().num_rows) == (0, 0, 0)
    assert (plan.first_slot, plan.first_step, plan.audit["ok"], plan.audit["share"]) == (None, None, True, 0.0)
    holdouts = compiled(tmp_path, [edits("a", [4, 4], 0)])
    assert holdouts.overlay.prefix_digest(10**9) == plan.overlay.prefix_digest(10**9)
    assert holdouts.items()["dose"].to_pylist() == [0, 0]


def test_first_step_is_that_of_the_first_edit(tmp_path: Path) -> None:
    plan = compiled(tmp_path, [edits("a", [4], 1, positions=[SPAN[0] + 9 * S + 3])])
    assert (plan.first_slot, plan.first_step) == (49, 12)


def test_a_skipped_copy_is_a_row(tmp_path: Path) -> None:
    request = edits("a", [5, 40], [2, 0])
    request = replace(
        request,
        items=[request.items[0], replace(request.items[1], dose=2)],
        skipped=[Skipped("a1", copy, 40, "too long") for copy in range(2)],
    )
    plan = compiled(tmp_path, [request])
    skipped = [row for row in rows(plan) if row["status"] == "skipped"]
    assert [(row["item"], row["copy"], row["position"], row["step"], row["length"]) for row in skipped] == [
        ("a1", 0, -1, -1, 40),
        ("a1", 1, -1, -1, 40),
    ]
    assert plan.audit["ok"]
    assert plan.audit["skipped"] == 2


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([edits("a", [4]), edits("a", [4])], "2 insertions are called a"),
        (
            [replace(edits("a", [4, 4]), items=[EditItem("x", np.arange(4)), EditItem("x", np.arange(4))])],
            "share an id",
        ),
    ],
)
def test_names_that_are_not_unique(tmp_path: Path, asked: list[Edits], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compiled(tmp_path, asked)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("pretrain_exp.plan.folder.write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        compiled(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_schema_is_named(tmp_path: Path) -> None:
    plan = compiled(tmp_path, [])
    meta = json.loads((plan.folder / "meta.json").read_text())
    (plan.folder / "meta.json").write_text(json.dumps(meta | {"schema": 0}))
    with pytest.raises(UserError, match="schema 0, this version reads schema 2"):
        Plan.open(plan.folder)
    with pytest.raises(UserError, match="no plan in this folder"):
        Plan.open(tmp_path / "nowhere")
