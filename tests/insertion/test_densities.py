"""When copies are read: every density x every promise, each against its definition."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import Entry, InsertionContext, Planting, build_edits
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Edits, Window
from pretrain_exp.plan.placement import place

SLOTS = range(40, 840)  # of the run: steps 10 to 210 of 4 sequences of 32 tokens
DENSITIES = {
    "uniform": "uniform",
    "early": "early",
    "late": "late",
    "spaced": "spaced",
    "weights": [4, 1, 0, 3],
    "periodic": {"every": 10},
    "periodic_from": {"every": 25, "first": 20},
}
WEIGHTS = {"early": np.arange(16, 0, -1), "late": np.arange(1, 17), "weights": np.array([4, 1, 0, 3])}


@pytest.fixture(params=DENSITIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def asked(context: InsertionContext, density: object, items: int = 16, copies: int = 4, **fields: object) -> Edits:
    entries = [
        Entry(id=f"{i}", origin=f"row {i}", tokens=np.arange(3, dtype=np.uint32), group="g", repetitions=copies)
        for i in range(items)
    ]
    return build_edits(context, Planting(density=density, **fields), entries)  # type: ignore[arg-type]


def slots_of(edits: Edits, context: InsertionContext) -> np.ndarray:
    """The slot of each row."""
    return context.phases.locate(place([edits], context.phases, context.window, context.seed).positions[0])[0]


def allowed(name: str, item: np.ndarray, copy: np.ndarray, copies: int) -> np.ndarray:
    """First and last slot that each row may have, from the definition of its density; (n, 2)."""
    first, last = np.full(len(copy), SLOTS.start), np.full(len(copy), SLOTS.stop - 1)
    if name == "spaced":
        width = len(SLOTS) // ((copies - 1) ** 2 + 1)
        first = SLOTS.start + width * copy**2
        last = first + width - 1
    return np.stack([first, last], axis=1)


def test_doses_are_exact_and_nothing_overlaps(name: str, context: InsertionContext, tmp_path: Path) -> None:
    edits = asked(context, DENSITIES[name])
    plan = compile_plan([edits], context.phases, context.window, context.seed, "treated", tmp_path)
    assert plan.audit["ok"]
    assert not [found for found in plan.audit["findings"] if found["level"] != "note"]
    rows = plan.ledger().to_pylist()
    assert Counter(row["item"] for row in rows) == Counter({f"{i}": 4 for i in range(16)})
    taken = [p for row in rows for p in range(row["position"], row["position"] + row["length"])]
    assert len(taken) == len(set(taken)) == 64 * 5
    slots = np.array([row["position"] // 32 for row in rows])
    item, copy = (np.array([int(row[key]) for row in rows]) for key in ("item", "copy"))
    low, high = allowed(name, item, copy, 4).T
    assert ((low <= slots) & (slots <= high)).all()
    if name.startswith("periodic"):
        first, every = (20, 25) if name == "periodic_from" else (10, 10)
        assert set((slots // 4 - first) % every) == {0}


def test_a_neighbour_moves_nobody_to_another_part(name: str, context: InsertionContext) -> None:
    mine = asked(context, DENSITIES[name])
    alone = place([mine], context.phases, context.window, 0).positions[0]
    for other in ("a", "z"):
        there = asked(replace(context, name=other), "uniform", items=100)
        both = place([there, mine], context.phases, context.window, 0).positions[1]
        assert (both == alone).mean() > 0.85
    fewer = asked(context, DENSITIES[name], items=8)
    wanted = mine.item < 8
    assert fewer.spans is None or np.array_equal(fewer.spans, mine.spans[wanted])


def test_the_seed_decides(name: str, context: InsertionContext) -> None:
    one, two = (asked(context, DENSITIES[name]) for _ in range(2))
    other = asked(replace(context, seed=1), DENSITIES[name])
    assert np.array_equal(slots_of(one, context), slots_of(two, context))
    assert not np.array_equal(slots_of(one, context), slots_of(other, replace(context, seed=1)))


@pytest.mark.parametrize("name", WEIGHTS)
def test_parts_have_their_weights(name: str, context: InsertionContext) -> None:
    weights = WEIGHTS[name]
    long = replace(context, window=Window(0, 4000))
    slots = slots_of(asked(long, DENSITIES[name], items=500, copies=8), long)
    counts = np.bincount(slots * len(weights) // 16000, minlength=len(weights))
    expected = 4000 * weights / weights.sum()
    assert (counts[weights == 0] == 0).all()
    assert chisquare(counts[weights > 0], expected[weights > 0]).pvalue > 1e-3
    within = slots * len(weights) / 16000 % 1
    assert kstest(within, "uniform").pvalue > 1e-3
    assert chisquare(counts[weights > 0]).pvalue < 1e-6  # the test can fail: this is not uniform


@pytest.mark.parametrize("copies", [2, 3, 5, 9])
def test_spaced_gaps_grow(copies: int, context: InsertionContext) -> None:
    edits = asked(context, "spaced", items=8, copies=copies)
    slots = slots_of(edits, context)
    for item in range(8):
        mine = slots[edits.item == item][np.argsort(edits.copy[edits.item == item])]
        gaps = np.diff(mine)
        assert (gaps > 0).all()
        assert (np.diff(gaps) >= 0).all()


def test_periodic_copies_follow_each_other(context: InsertionContext) -> None:
    edits = asked(context, {"every": 10}, items=60, copies=4)
    steps = slots_of(edits, context) // 4
    for item in range(60):
        assert set(np.diff(steps[edits.item == item]) % 200) == {10}  # after the last of 200 steps follows the first
    first = (steps[edits.copy == 0] - 10) // 10
    assert chisquare(np.bincount(first, minlength=20).reshape(5, 4).sum(1)).pvalue > 1e-3


def test_a_density_lies_in_its_range(context: InsertionContext) -> None:
    bounds = {"start": 0.25, "end": 0.75, "unit": "share"}
    for density in DENSITIES.values():
        if density != DENSITIES["periodic_from"]:
            slots = slots_of(asked(context, density, mode="range", range=bounds), context)
            assert slots.min() >= 240
            assert slots.max() < 640


def test_where_the_length_of_a_sequence_changes(context: InsertionContext) -> None:
    phases = Phases([Phase(0, 4, 32), Phase(100, 2, 64)])
    longer = replace(context, phases=phases)
    for density in DENSITIES.values():
        edits = asked(longer, density)
        position = place([edits], phases, longer.window, 0).positions[0]
        first, last = phases.locate(position)[0], phases.locate(position + 4)[0]
        assert np.array_equal(first, last)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"density": "sometimes"}, None),
        ({"density": {"every": 0}}, "no steps"),
        ({"density": {"every": 10, "first": -1}}, "no steps"),
        ({"density": [1]}, "two or more"),
        ({"density": [0, 0]}, "not all 0"),
        ({"density": [1, -1]}, "0 or more"),
        ({"density": "early", "mode": "explicit"}, "explicit"),
        ({"density": "spaced", "copies": 40}, "1,522 sequences, the range has 800"),
        ({"density": {"every": 10, "first": 500}}, "no such step"),
        ({"density": [1] * 801}, "fewer than there are weights"),
    ],
)
def test_wrong_densities(fields: dict, says: str | None, context: InsertionContext) -> None:
    if says is None:
        from pretrain_exp.errors import Problems
        from pretrain_exp.kinds import check_kind

        with pytest.raises(Problems, match="density"):
            check_kind({"_target_": "pretrain_exp.insertion.base.Planting", **fields}, "insertion.mine")
        return
    with pytest.raises(UserError, match=says) as error:
        asked(context, **fields)
    assert "density" in str(error.value)
