"""Every insertion kind that plants texts or tokens x every promise; test_stream_kinds.py has the others."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from kind_makers import KINDS, Numbers, fingerprints_elsewhere, make_kind, small_context
from scipy.stats import chisquare

from pretrain_exp.insertion.base import Insertion, InsertionContext
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Edits
from pretrain_exp.plan.folder import Plan

OF_A_FILE = ["add_texts", "add_tokens", "benchmark_contamination"]
OF_THE_STREAM = ("removal", "batches", "iid_replacement", "gaussian_poisoning", "gradient_noise")
# fields without a default of the class, for which conf/ chooses
CHOSEN = {"benchmark_contamination": {"benchmark": "olmes:arc_easy", "repetitions": [0, 1, 4, 16, 64]}}
RANGE = {"start": 0.25, "end": 0.5, "unit": "share"}
MODES = [("random", None), ("range", RANGE), ("explicit", None)]
CASES = [
    (kind, mode, bounds) for kind in KINDS for mode, bounds in MODES if mode != "explicit" or kind in OF_A_FILE[:2]
]
Make = Callable[..., Insertion]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request: pytest.FixtureRequest) -> tuple[str, dict]:
    kind, mode, bounds = request.param
    return kind, {"mode": mode, "range": bounds}


@pytest.fixture
def context() -> InsertionContext:
    return small_context(order=Numbers())


def plan_of(context: InsertionContext, root: Path, *asked: Edits, seed: int | None = None) -> Plan:
    return compile_plan(asked, context.phases, context.window, context.seed if seed is None else seed, "treated", root)


def places(plan: Plan, insertion: str = "mine") -> set[tuple[str, int, int]]:
    return {(r["item"], r["copy"], r["position"]) for r in plan.ledger().to_pylist() if r["insertion"] == insertion}


def test_dose_overlap_and_range(case: tuple, make: Make, context: InsertionContext, tmp_path: Path) -> None:
    kind, fields = case
    asked = make(kind, **fields).edits(context)
    plan = plan_of(context, tmp_path, asked)
    assert plan.audit["ok"], plan.audit["findings"]
    doses = {item.id: 0 if item.probe else item.dose for item in asked.items}
    rows = plan.ledger().to_pylist()
    for item, dose in doses.items():
        assert sum(row["item"] == item for row in rows) == dose
    taken = [p for row in rows for p in range(row["position"], row["position"] + row["length"])]
    assert len(taken) == len(set(taken)) == plan.audit["tokens"]
    low, high = (1280, 26880) if fields["mode"] != "range" else (1280 + 6400, 1280 + 12800)
    assert low <= min(taken)
    assert max(taken) < high


def test_nothing_else_changes_and_holdouts_stay_out(
    case: tuple, make: Make, context: InsertionContext, tmp_path: Path
) -> None:
    kind, fields = case
    plan = plan_of(context, tmp_path, make(kind, **fields).edits(context))
    tokens = {item["item"]: item["tokens"] for item in plan.items().to_pylist()}
    expected = np.arange(26880, dtype=np.uint32) + 10_000
    for row in plan.ledger().to_pylist():
        expected[row["position"] : row["position"] + row["length"]] = tokens[row["item"]]
    for slot in range(26880 // 32):
        assert plan.overlay.apply(slot, Numbers().read(slot)).tolist() == expected[slot * 32 : slot * 32 + 32].tolist()
    planted = {row["item"] for row in plan.ledger().to_pylist()}
    held = {item["item"] for item in plan.items().to_pylist() if item["dose"] == 0 and not item["probe"]}
    probes = {item["item"] for item in plan.items().to_pylist() if item["probe"]}
    assert not planted & (held | probes)
    expected_held = {"benchmark_contamination": 10, "knowledge": 10, "canaries": 10, "documents_split": 6}
    expected_probes = {"knowledge": 40, "reasoning": 10, "canaries": 2, "poisoning": 10, "documents_split": 22}
    assert (len(held), len(probes)) == (expected_held.get(kind, 0), expected_probes.get(kind, 0))


def test_same_seed_same_plan_and_another_seed_another(
    case: tuple, make: Make, context: InsertionContext, tmp_path: Path
) -> None:
    kind, fields = case
    one, two, turned = (plan_of(context, tmp_path, make(kind, order, **fields).edits(context)) for order in (1, 1, -1))
    assert one.fingerprint == two.fingerprint == turned.fingerprint  # also with the rows of the file turned round
    context = replace(context, seed=1)
    other = plan_of(context, tmp_path, make(kind, **fields).edits(context))
    assert (places(other) == places(one)) == (fields["mode"] == "explicit")


def test_the_same_seed_in_another_process_gives_the_same_plans(tmp_path: Path) -> None:
    there = fingerprints_elsewhere("test_kinds", tmp_path)
    here = fingerprints(tmp_path / "here")
    assert there == here
    assert len(set(here)) == len(KINDS)


def fingerprints(folder: Path) -> list[str]:
    """Of a plan of each kind."""
    folder.mkdir(exist_ok=True)
    context = small_context(order=Numbers())
    return [plan_of(context, folder, make_kind(folder, kind).edits(context)).fingerprint for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS)
def test_positions_are_uniform(kind: str, make: Make, context: InsertionContext, tmp_path: Path) -> None:
    """Of six placements together, in 200 steps; the audit of each plan looks as well."""
    steps = np.concatenate(
        [
            plan_of(each, tmp_path, make(kind).edits(each)).ledger()["step"].to_numpy()
            for each in (replace(context, seed=seed) for seed in range(6))
        ]
    )
    counts = np.bincount((steps - 10) // 20, minlength=10)
    assert len(counts) == 10
    assert chisquare(counts).pvalue > 1e-3


def test_a_neighbour_moves_nothing(case: tuple, make: Make, context: InsertionContext, tmp_path: Path) -> None:
    """Adding another insertion, before or after by name, leaves all but real collisions where they were."""
    kind, fields = case
    mine = make(kind, **fields).edits(context)
    alone = plan_of(context, tmp_path, mine)
    was = {place[:2]: place[2] for place in places(alone)}
    for name in ("a", "z"):
        other = replace(mine, insertion=name, mode="random", span=(1280, 26880), position=None)
        crowded = plan_of(context, tmp_path, *((other, mine) if name == "z" else (mine, other)))
        now = {place[:2]: place[2] for place in places(crowded)}
        moved = [key for key in was if was[key] != now[key]]
        assert len(moved) <= (0 if mine.mode == "explicit" else 0.15 * len(was))
        for key in moved:  # its old place is taken now, or its new one was taken before by one that moved
            longest = int(mine.lengths.max())
            assert taken(crowded, was[key], longest) or taken(alone, now[key], longest)


def taken(plan: Plan, position: int, length: int) -> bool:
    """Whether an edit of the plan lies in these positions."""
    rows = plan.ledger().to_pylist()
    return any(row["position"] < position + length and position < row["position"] + row["length"] for row in rows)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_planted_is_what_was_given(kind: str, make: Make, context: InsertionContext) -> None:
    expected = {
        "add_texts": [999, 7, 8, 9, 999],
        "add_tokens": [999, 7, 8, 9, 10, 999],
        "benchmark_contamination": [999, 7, 7, 2, 207, 999],
        "knowledge": [999, 7, 8, 9, 999],
        "reasoning": [999, 9, 2, 9, 8, 7, 8, 999],
        "canaries": [999, *range(720, 726), 999],  # the text of a plain one
        "poisoning": [999, 8, 3, 1, 999],
        "documents_split": [999, *range(140, 154), 999],
    }[kind]
    assert expected in [item.tokens.tolist() for item in make(kind).edits(context).items]


@pytest.mark.parametrize("kind", [*OF_A_FILE, *OF_THE_STREAM])
def test_the_configuration_names_every_field(kind: str) -> None:
    """conf/insertion/<kind>.yaml composes the class with the defaults that the class has."""
    text = (Path(__file__).parents[2] / "conf" / "insertion" / f"{kind}.yaml").read_text()
    assert text.startswith(f"# @package insertion.{kind}\n")
    values = yaml.safe_load(text)
    module, name = values.pop("_target_").rsplit(".", 1)
    fields = {field.name: field for field in dataclasses.fields(getattr(importlib.import_module(module), name))}
    assert set(values) == set(fields)
    for key, value in values.items():
        default = fields[key].default
        assert value == (CHOSEN.get(kind, {}).get(key, "???") if default is dataclasses.MISSING else default), key
    assert all("#" in line for line in text.splitlines() if not line.startswith("_target_"))


def test_none_plants_nothing() -> None:
    text = (Path(__file__).parents[2] / "conf" / "insertion" / "none.yaml").read_text()
    assert text.startswith("# @package insertion\n")
    assert yaml.safe_load(text) == {}


class TestBenchmark:
    def doses(self, make: Make, context: InsertionContext, **fields: object) -> dict[str, int]:
        edits = make("benchmark_contamination", **fields).edits(context)
        return {item.id: item.dose for item in edits.items}

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"repetitions": [0, 1, 4, 16]}, {0: 10, 1: 10, 4: 10, 16: 10}),
            ({"repetitions": [0, 1, 4]}, {0: 14, 1: 13, 4: 13}),
            ({"repetitions": [0, 2, 4], "fraction": 0.2}, {0: 32, 2: 4, 4: 4}),
            ({"repetitions": [2, 4], "fraction": 0.5}, {0: 20, 2: 10, 4: 10}),
            ({"repetitions": 16}, {0: 20, 16: 20}),
            ({"repetitions": 16, "fraction": 0.1}, {0: 36, 16: 4}),
            ({"repetitions": 4, "fraction": 1.0}, {4: 40}),
            ({"repetitions": 0}, {0: 40}),
            ({"repetitions": [0], "fraction": 0.5}, {0: 40}),
            ({"repetitions": 3, "fraction": 0.0}, {0: 40}),
            ({"repetitions": 1.5, "fraction": 1.0}, {1: 20, 2: 20}),
            ({"repetitions": [0, 3], "limit": 10}, {0: 5, 3: 5}),
        ],
    )
    def test_groups_are_of_equal_size(
        self, make: Make, context: InsertionContext, fields: dict, expected: dict
    ) -> None:
        doses = list(self.doses(make, context, **fields).values())
        assert {dose: doses.count(dose) for dose in set(doses)} == expected

    def test_groups_are_seeded_and_independent_of_the_order(self, make: Make, context: InsertionContext) -> None:
        one, turned = self.doses(make, context), self.doses(make, context, order=-1)
        other = self.doses(make, replace(context, seed=1))
        renamed = self.doses(make, replace(context, name="second"))
        assert one == turned
        assert one != other
        assert one != renamed
        assert set(one) == set(other)

    def test_a_limit_takes_the_same_items_for_every_seed(self, make: Make, context: InsertionContext) -> None:
        assert set(self.doses(make, context, limit=10)) == set(self.doses(make, replace(context, seed=5), limit=10))

    def test_items_carry_what_is_scored(self, make: Make, context: InsertionContext) -> None:
        from pretrain_exp.items.choice import ChoiceItem

        for item in make("benchmark_contamination").edits(context).items:
            scored = ChoiceItem.from_json(item.payload)
            assert scored.id == item.id
            assert scored.planted_text() == item.text
            assert item.group == (f"{item.dose}x" if item.dose else "holdout")
