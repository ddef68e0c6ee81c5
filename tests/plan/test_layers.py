"""A layer on a plan: what stands stays, what is added finds the places left, and the beginning keeps its digest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from plan_samples import PHASES, SPAN, WINDOW, S, edits

from pretrain_exp.errors import UserError
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import EditItem, Edits, Hook, Window
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.overlay import Overlay
from pretrain_exp.plan.overlay_writer import Ops, compacted, write_window

HALF = PHASES.position_of_step(35)
EARLY, LATE = (SPAN[0], HALF), (HALF, SPAN[1])


def plan(root: Path, asked: list[Edits], below: Plan | None = None, window: Window = WINDOW, seed: int = 0) -> Plan:
    return compile_plan(asked, PHASES, window, seed, "treated", root, below)


def rows(plan: Plan) -> list[dict]:
    return plan.ledger().to_pylist()


def hooked(name: str, steps: tuple[int, ...]) -> Edits:
    none = np.zeros(0, dtype=np.int32)
    item = EditItem("noise", np.zeros(0, np.uint32), dose=len(steps))
    return Edits(name, [item], none, none, hooks=(Hook("noise", "gradient_noise", steps, 0.5, 7),))


def test_all_rows_of_both_and_no_overlap(tmp_path: Path) -> None:
    first = plan(tmp_path, [edits("a", [6, 9], [200, 100]), edits("c", [4], 0)])
    both = plan(tmp_path, [edits("b", [5, S], [300, 5])], first)
    assert both.audit["ok"], both.audit["findings"]
    assert [row for row in rows(both) if row["insertion"] == "a"] == rows(first)
    assert sum(row["insertion"] == "b" for row in rows(both)) == 305
    taken = [p for row in rows(both) for p in range(row["position"], row["position"] + row["length"])]
    assert len(taken) == len(set(taken))
    assert both.items()["item"].to_pylist() == ["a0", "a1", "b0", "b1", "c0"]  # by insertion
    assert both.audit["insertions"]["a"]["uniformity"] == first.audit["insertions"]["a"]["uniformity"]
    for slot in range(40, 240):
        expected = np.arange(slot * S, slot * S + S, dtype=np.uint32) + 10**6
        for row in rows(both):
            if row["position"] // S == slot:
                tokens = next(i["tokens"] for i in both.items().to_pylist() if i["item"] == row["item"])
                expected[row["column"] : row["column"] + row["length"]] = tokens
        read = both.overlay.apply(slot, np.arange(slot * S, slot * S + S, dtype=np.uint32) + 10**6)
        assert read.tolist() == expected.tolist()


def test_before_the_layer_nothing_is_another(tmp_path: Path) -> None:
    first = plan(tmp_path, [edits("a", [6], 40), hooked("n", (12, 50))])
    both = plan(tmp_path, [edits("b", [5], 20, span=LATE), hooked("m", (40,))], first)
    changed = min(row["step"] for row in rows(both) if row["insertion"] in ("b", "m"))
    for step in range(10, changed + 1):
        assert both.prefix_digest(step) == first.prefix_digest(step), step
    assert both.prefix_digest(changed + 1) != first.prefix_digest(changed + 1)
    assert both.fingerprint != first.fingerprint
    assert {hook["steps"][0] for hook in both.hooks} == {12, 40}


def test_an_item_that_both_plant_is_one_whose_copies_count_on(tmp_path: Path) -> None:
    """And the copies of the layer lie elsewhere in their range than those of the plan in theirs."""
    asked = edits("a", [6], 30, span=EARLY)
    first = plan(tmp_path, [asked])
    both = plan(tmp_path, [replace(asked, span=LATE)], first)
    assert both.items()["dose"].to_pylist() == [60]
    assert sorted(row["copy"] for row in rows(both)) == list(range(60))
    assert {row["dose"] for row in rows(both)} == {60}
    assert len(both.overlay.arrays["pool"]) == 6
    places = [row["position"] for row in rows(both)]
    assert {p - EARLY[0] for p in places if p < HALF} != {p - HALF for p in places if p >= HALF}
    assert both.audit["ok"], both.audit["findings"]
    third = plan(tmp_path, [replace(asked, span=LATE)], both)
    assert sorted(row["copy"] for row in rows(third)) == list(range(90))


def test_an_empty_layer_is_the_plan_itself(tmp_path: Path) -> None:
    first = plan(tmp_path, [edits("a", [6, 3], [7, 0]), hooked("n", (12,))])
    assert plan(tmp_path, [], first).fingerprint == first.fingerprint


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (replace(edits("a", [6]), items=[EditItem("a0", np.arange(6), dose=1)]), "a0 differs in group and text"),
        (edits("b", [6], 1, positions=[SPAN[0] + 3]), "1 explicit edits lie where the plan has edits already"),
        (edits("b", [S] * 200, 1), "the range is full"),
    ],
)  # fmt: skip
def test_what_does_not_fit(tmp_path: Path, layer: Edits, message: str) -> None:
    first = plan(tmp_path, [edits("a", [6], 1, positions=[SPAN[0]])])
    with pytest.raises(UserError, match=message):
        plan(tmp_path, [layer], first)


@pytest.mark.parametrize("other", [{"window": Window(11, 60)}, {"seed": 1}])
def test_a_plan_of_another_run(tmp_path: Path, other: dict) -> None:
    first = plan(tmp_path, [edits("a", [6], 1)])
    with pytest.raises(ValueError, match="another run"):
        plan(tmp_path, [edits("b", [6], 1)], first, **other)


FIRST, END = SPAN[0] // S, SPAN[1] // S


@pytest.mark.parametrize(
    ("first", "stop"),
    [(0, END), (FIRST, FIRST + 1), (FIRST + 60, FIRST + 100), (0, FIRST), (END, END + 9), (FIRST + 9, FIRST + 9)],
    ids=["all", "one slot", "some", "before", "behind", "none"],
)
def test_a_window_of_a_plan_does_the_same_there_and_nothing_elsewhere(tmp_path: Path, first: int, stop: int) -> None:
    """Of long items that are planted in pieces, beside others: with only those tokens that it plants."""
    long = [SPAN[0] + 20, SPAN[0] + 70 * S + 31]
    asked = [edits("a", [70, 90], positions=long), edits("b", [5, 30, 9], [60, 30, 0]), edits("c", [3], 40)]
    whole = plan(tmp_path, asked).overlay
    write_window(tmp_path / "window", whole, first, stop)
    window, blank = Overlay.open(tmp_path / "window"), np.zeros(S, np.uint32)
    for slot in range(FIRST, END):
        expected = whole.apply(slot, blank) if first <= slot < stop else blank
        assert window.apply(slot, blank).tolist() == expected.tolist()
    here = slice(*np.searchsorted(whole.arrays["slot"], [first, stop]))
    assert window.arrays["digest"].tolist() == whole.arrays["digest"][here].tolist()
    planted = [window.apply(slot, blank) for slot in range(max(first, FIRST), min(stop, END))]
    assert set(window.arrays["pool"].tolist()) == set(np.concatenate([blank, *planted]).tolist()) - {0}
    assert len(set(window.arrays["pool"].tolist())) == len(window.arrays["pool"]), "each token of the items once"
    with pytest.raises(FileExistsError):
        write_window(tmp_path / "window", whole, first, stop)


@pytest.mark.parametrize(
    ("ref", "length", "left"),
    [
        ([], [], []),
        ([5], [3], [5, 6, 7]),
        ([5, 5, 5], [3, 1, 2], [5, 6, 7]),
        ([8, 2], [2, 3], [2, 3, 4, 8, 9]),
        ([2, 0, 6, 3], [3, 2, 2, 4], [0, 1, 2, 3, 4, 5, 6, 7]),
        ([0, 1, 7, 7], [6, 2, 1, 3], [0, 1, 2, 3, 4, 5, 7, 8, 9]),
    ],
    ids=["nothing", "one", "from one place", "apart", "in a row", "one in another"],
)
def test_a_pool_keeps_what_is_planted(ref: list[int], length: list[int], left: list[int]) -> None:
    zero, pool = np.zeros(len(ref), np.int64), np.arange(10, dtype=np.uint32)
    base = Ops.base(zero[:1], zero[:1], zero[:1] + 1, zero[:1] + 10**9, zero[:1])
    tokens = Ops.tokens(zero, zero, np.array(length, np.int32), np.array(ref, np.int64))
    ops, kept = compacted(Ops.concatenate([base, tokens]), pool)
    assert kept[: len(kept)].tolist() == left
    assert ops.ref[: len(base)].tolist() == base.ref.tolist(), "what refers to other slots is not moved"
    for at, size, before in zip(ops.ref[len(base) :].tolist(), length, ref, strict=True):
        assert kept[at : at + size].tolist() == pool[before : before + size].tolist()


def test_a_probe_is_scored_and_not_counted(tmp_path: Path) -> None:
    asked = edits("a", [6], 3)
    probe = EditItem("p", np.arange(4), group="probe", dose=3, payload='{"kind": "x"}', probe=True)
    compiled = plan(tmp_path, [replace(asked, items=[*asked.items, probe])])
    assert compiled.audit["ok"], compiled.audit["findings"]
    assert compiled.audit["insertions"]["a"]["probes"] == 1
    assert compiled.audit["insertions"]["a"]["items"] == 1
    assert compiled.items()["probe"].to_pylist() == [False, True]
    assert not set(range(4)) & set(compiled.overlay.arrays["pool"].tolist())
    with pytest.raises(ValueError, match="a probe is planted"):
        replace(asked, items=[replace(asked.items[0], probe=True)])
