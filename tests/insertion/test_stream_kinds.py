"""Every kind that looks at the data, or leaves it as it is, x every promise."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kind_makers import fingerprints_elsewhere
from stream_samples import (
    BATCH,
    DATA,
    KINDS,
    PHASES,
    SLOTS,
    SPAN,
    WINDOW,
    Numbers,
    S,
    compiled,
    edits,
    fingerprints,
    others,
    rows,
)

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.gaussian_poisoning import GaussianPoisoning
from pretrain_exp.items.planned import planted_items
from pretrain_exp.plan.folder import Plan


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_doses_are_exact_and_nothing_overlaps_within_or_between_kinds(tmp_path: Path) -> None:
    asked = [edits(kind, tmp_path) for kind in KINDS]
    plan = compiled(tmp_path, *asked, others(tmp_path))
    assert plan.audit["ok"], plan.audit["findings"]
    doses = {(item["insertion"], item["item"]): item["dose"] for item in plan.items().to_pylist() if not item["probe"]}
    ledger = rows(plan)
    counts = Counter((row["insertion"], row["item"]) for row in ledger)
    assert {name: counts[name] for name in doses} == doses
    assert counts.keys() <= doses.keys()
    taken = [p for row in ledger for p in range(row["position"], row["position"] + row["length"])]
    assert len(taken) == len(set(taken))
    assert SPAN[0] <= min(taken)
    assert max(taken) < SPAN[1]
    sources = [row["source_slot"] for row in ledger if row["kind"] == "base"]
    held = [item for item in plan.items().to_pylist() if item["group"] == "holdout"]
    sources += [item["tokens"][0] // S for item in held]
    assert len(sources) == len(set(sources)) == 4 + 12 + 150 + 6, "an unseen sequence stands for one item"
    assert all(WINDOW.last_step * BATCH <= source < SLOTS for source in sources)
    assert 1300 not in sources, "it holds a document that was removed"


@pytest.mark.parametrize("kind", DATA)
def test_nothing_else_changes(kind: str, tmp_path: Path) -> None:
    plan, order = compiled(tmp_path, edits(kind, tmp_path)), Numbers()
    changed = {}
    for row in rows(plan):
        slot = int(PHASES.first_slot(row["step"])) + row["row"]
        if row["kind"] == "base":
            changed[slot] = order.read(row["source_slot"])
        assert plan.overlay.touches(slot)
    for slot in range(WINDOW.first_step * BATCH - 5, WINDOW.last_step * BATCH + 5):
        read = plan.overlay.apply(slot, order.read(slot), order.read)  # type: ignore[arg-type]
        assert read.tolist() == changed.get(slot, order.read(slot)).tolist()
    noise = {(row["step"] * BATCH + row["row"], row["column"], row["length"]): row["sigma"] for row in rows(plan)}
    found = {(s, c, n): sigma for s in range(SLOTS) for c, n, sigma in plan.overlay.noise(s)}
    assert found == (noise if "nois" in kind or "gauss" in kind else {})


def test_the_same_seed_in_another_process_gives_the_same_plans(tmp_path: Path) -> None:
    there = fingerprints_elsewhere("stream_samples", tmp_path)
    here = fingerprints(tmp_path / "here")
    assert there == here
    assert len(set(here)) == len(KINDS)


def test_another_seed_another_plan(kind: str, tmp_path: Path) -> None:
    one, two = (compiled(tmp_path, edits(kind, tmp_path, seed=seed), seed=seed) for seed in (0, 1))
    assert one.prefix_digest(310) != two.prefix_digest(310)


@pytest.mark.parametrize("other", ["others", *KINDS])
def test_a_neighbour_moves_nothing(kind: str, other: str, tmp_path: Path) -> None:
    """Places and sources: only what really collides moves. A neighbour before or after by name."""
    mine = edits(kind, tmp_path)
    by_itself = compiled(tmp_path, mine)
    alone = {row["item"]: (row["position"], row["source_slot"]) for row in rows(by_itself)}
    for name in ("aaa", "zzz"):
        second = others(tmp_path) if other == "others" else edits(other, tmp_path, name)
        if {kind, other} <= {"batches"} or {kind, other} <= {"noisy_batches"} or {kind, other} <= {"removal"}:
            return  # two that ask for the same places are refused: see below
        plan = compiled(tmp_path, mine, replace(second, insertion=name))
        now = {row["item"]: (row["position"], row["source_slot"]) for row in rows(plan, kind)}
        assert now.keys() == alone.keys()
        moved = [item for item in alone if now[item] != alone[item]]
        assert len(moved) <= 0.35 * len(alone)
        before, after = (covered(each) for each in (by_itself, plan))
        for item in moved:  # its old place is another's now, or its new one was another's before
            old, new = alone[item][0], now[item][0]
            spans = (range(at, at + int(mine.lengths[0])) for at in (old, new))
            gone, come = (any(p in taken for p in span) for span, taken in zip(spans, (after, before), strict=True))
            assert old == new or gone or come
        if mine.mode == "explicit" and len(mine):
            assert all(now[item][0] == alone[item][0] for item in alone)


def covered(plan: Plan) -> dict[int, str]:
    """Position -> the item whose edit lies there."""
    return {p: row["item"] for row in rows(plan) for p in range(row["position"], row["position"] + row["length"])}


def test_the_same_batch_twice_is_refused(tmp_path: Path) -> None:
    context = InsertionContext("more", 0, S, 999, WINDOW, PHASES, lambda texts: [], None, Numbers())  # type: ignore
    noise_at_20 = GaussianPoisoning(steps=[20]).edits(context)
    with pytest.raises(UserError, match="4 explicit edits overlap the next"):
        compiled(tmp_path, edits("batches", tmp_path), noise_at_20)


@pytest.mark.parametrize("kind", ["iid_replacement", "gaussian_poisoning", "noisy_spans"])
def test_positions_are_uniform_beside_many_others(kind: str, tmp_path: Path) -> None:
    plan = compiled(tmp_path, edits(kind, tmp_path), others(tmp_path, 600))
    tests = plan.audit["insertions"][kind]["uniformity"]
    assert tests["n"] >= 120
    assert min(tests["chi_square_p"], tests["ks_p"]) > 1e-3
    if kind == "iid_replacement":
        counts = np.bincount([int(row["item"].split("/")[1][6:]) for row in rows(plan, kind)])
        assert counts.tolist() == [15] * 10
        for row in rows(plan, kind):
            assert 10 * (row["position"] - SPAN[0]) // (SPAN[1] - SPAN[0]) == int(row["item"].split("/")[1][6:])


def test_what_is_scored_is_what_is_read(tmp_path: Path) -> None:
    plan, order = compiled(tmp_path, *(edits(kind, tmp_path) for kind in ("batches", "iid_replacement"))), Numbers()
    texts = planted_items(str(plan.folder / "items.parquet")).texts
    source = {(row["insertion"], row["item"]): row["source_slot"] for row in rows(plan)}
    assert {(text.insertion, text.group, text.dose) for text in texts} == {
        *(("batches", f"step {step}", 1) for step in (20, 100, 305)),
        *(("iid_replacement", f"window {i}", 1) for i in range(10)),
        ("batches", "holdout", 0),
        ("iid_replacement", "holdout", 0),
    }
    assert len(texts) == 3 * 2 + 10 * 2 + 3 + 3
    for text in texts:
        if text.dose:
            assert text.tokens.tolist() == order.read(source[text.insertion, text.item]).tolist()


@pytest.mark.parametrize("kind", ["gaussian_poisoning", "noisy_batches", "noisy_spans"])
def test_noise_can_be_made_again_from_the_item(kind: str, tmp_path: Path) -> None:
    plan, order = compiled(tmp_path, edits(kind, tmp_path), seed=0), Numbers()
    texts = planted_items(str(plan.folder / "items.parquet")).texts
    assert len(texts) == {"gaussian_poisoning": 5, "noisy_batches": 2, "noisy_spans": 64}[kind]
    for text in texts:
        payload = text.payload or {}
        assert payload["seed"] == plan.overlay.seed
        spans = plan.overlay.noise(payload["slot"])
        assert (payload["column"], payload["length"], payload["sigma"]) in spans
        assert text.tokens.tolist() == order.read(payload["slot"]).tolist()
