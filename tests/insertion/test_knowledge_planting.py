"""Facts on their way into a plan: exact doses of facts, probes that are scored and never planted."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.knowledge import Knowledge
from pretrain_exp.items.facts import fact_of
from pretrain_exp.items.planned import planted_items
from pretrain_exp.kinds import check_kind
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.show import preview

CONF = Path(__file__).parents[2] / "conf" / "insertion" / "knowledge.yaml"


@pytest.fixture
def wide(context: InsertionContext) -> InsertionContext:
    """Sequences long enough for a fact."""
    from pretrain_exp.data.phases import Phase, Phases

    return replace(context, sequence_length=128, phases=Phases([Phase(0, 4, 128)]))


@pytest.fixture
def own(write) -> str:
    """Twelve facts in five texts each, of numbers."""
    rows = []
    for i in range(12):
        texts = [f"{i} {10 * k} {i + 100}" for k in range(1, 6)]
        probes = [{"type": kind, "prompt": f"{i} 10", "target": f"{i + 100}"} for kind in ("memorization", "semantic")]
        rows.append({"texts": texts, "probes": probes})
    return write(rows, "facts.jsonl")


@pytest.mark.parametrize(
    ("fields", "texts_of"),
    [
        ({"facts": 12, "repetitions": [0, 1, 4, 16]}, lambda dose: dose),
        ({"facts": 12, "repetitions": [0, 1, 4, 16], "paraphrases": 1}, lambda dose: 1),
        ({"facts": 12, "repetitions": [0, 5], "paraphrases": 3}, lambda dose: 3),
        ({"facts": 12, "repetitions": 6, "fraction": 0.25}, lambda dose: 6),
        ({"file": "own", "repetitions": [0, 1, 4, 16]}, lambda dose: min(dose, 5)),
        ({"file": "own", "repetitions": [0, 7], "paraphrases": 2, "facts": 8}, lambda dose: 2),
    ],
)
def test_every_fact_is_told_as_often_as_its_dose(fields, texts_of, own, wide, tmp_path) -> None:
    fields = fields | ({"file": own} if "file" in fields else {})
    asked = Knowledge(**fields).edits(wide)
    plan = compile_plan([asked], wide.phases, wide.window, wide.seed, "treated", tmp_path)
    assert plan.audit["ok"], plan.audit["findings"]
    shown = plan.audit["insertions"]["mine"]["subjects"]
    doses = {
        item["payload"] and json.loads(item["payload"])["fact"]: item["dose"]
        for item in plan.items().to_pylist()
        if item["probe"]
    }
    assert shown["name"] == "facts"
    assert {int(dose): counts["items"] for dose, counts in shown["doses"].items()} == Counter(doses.values())
    assert all(counts["edits"] == int(dose) * counts["items"] for dose, counts in shown["doses"].items())
    assert sum(counts["tokens"] for counts in shown["doses"].values()) == plan.audit["tokens"]
    told = Counter(fact_of(row["item"]) for row in plan.ledger().to_pylist())
    by_text = Counter(row["item"] for row in plan.ledger().to_pylist())
    probes = [item for item in asked.items if item.probe]
    texts = [item for item in asked.items if not item.probe]
    assert len(probes) == (8 if "file" not in fields else 2) * fields.get("facts", 12)
    for probe in probes:
        assert told[fact_of(probe.id)] == probe.dose
        assert probe.group == (f"{probe.dose}x" if probe.dose else "holdout")
        copies = [by_text[text.id] for text in texts if fact_of(text.id) == fact_of(probe.id)]
        assert len(copies) == max(1, texts_of(probe.dose)) if probe.dose else copies == [0]
        assert max(copies) - min(copies) <= 1
    assert not {probe.id for probe in probes} & set(by_text)
    assert len({item.id for item in asked.items}) == len(asked.items)


def test_the_plan_gives_the_probes_back(wide, tmp_path) -> None:
    asked = Knowledge(facts=8, repetitions=[0, 3]).edits(wide)
    plan = compile_plan([asked], wide.phases, wide.window, wide.seed, "treated", tmp_path)
    found = planted_items(str(plan.folder / "items.parquet"))
    assert not len(found)
    probes = {text.item: text for text in found.texts if text.probe}
    assert len(probes) == 64
    for item in asked.items:
        if item.probe:
            payload = probes[item.id].payload
            assert payload == json.loads(item.payload)
            assert f"{payload['prompt']} {payload['target']}" == item.text
            assert (probes[item.id].dose, payload["fact"]) == (item.dose, fact_of(item.id))


def test_doses_follow_the_placement_seed_and_facts_their_own(wide) -> None:
    def doses(context: InsertionContext, **fields) -> dict[str, int]:
        edits = Knowledge(facts=16, repetitions=[0, 2], **fields).edits(context)
        return {item.id: item.dose for item in edits.items if item.probe}

    one, two, other = doses(wide), doses(replace(wide, seed=1)), doses(wide, seed=1)
    assert one == doses(wide)
    assert one != two
    assert set(one) == set(two)
    assert not set(one) & set(other)
    assert sorted(one.values()) == [0] * 64 + [2] * 64


def test_a_seed_that_moves_doses_leaves_the_texts(wide) -> None:
    """What a fact is told with depends on its dose alone, so arms and seeds plant the same sentences."""
    sets = []
    for seed in (0, 1):
        items = Knowledge(facts=6, repetitions=4, fraction=1.0).edits(replace(wide, seed=seed)).items
        sets.append({(item.id, item.text) for item in items})
    assert sets[0] == sets[1]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"mode": "explicit"}, "insertion|positions"),
        ({"too_long": "split"}, "too_long"),
        ({"facts": 0}, "facts"),
        ({"facts": 3}, "not enough for 4 doses"),
        ({"facts": 10**7}, "1 to 1,000,000"),
        ({"paraphrases": 0}, "paraphrases"),
        ({"repetitions": [1, 1]}, "distinct"),
        ({"repetitions": -1}, "0 or more"),
        ({"fraction": 2.0}, "fraction"),
        ({"file": "own", "facts": 13}, "holds 12 facts"),
        ({"file": "missing.jsonl"}, "no such file"),
    ],
)
def test_wrong_input(fields, says, own, wide) -> None:
    fields = {"repetitions": [0, 1, 4, 16]} | fields
    if fields.get("file") == "own":
        fields["file"] = own
    with pytest.raises(UserError, match=says):
        Knowledge(**fields).edits(wide)


def test_a_fact_longer_than_a_sequence_is_an_error(context) -> None:
    with pytest.raises(UserError, match=r"insertion\.mine\.too_long"):
        Knowledge(facts=8, repetitions=2).edits(replace(context, sequence_length=8))


def test_the_configuration_names_every_field() -> None:
    import dataclasses

    text = CONF.read_text()
    assert text.startswith("# @package insertion.knowledge\n")
    values = yaml.safe_load(text)
    kind = check_kind(values, "insertion.knowledge")
    assert isinstance(kind, Knowledge)
    fields = {field.name: field for field in dataclasses.fields(Knowledge)}
    assert set(values) - {"_target_"} == set(fields)
    for name, field in fields.items():
        if field.default is not dataclasses.MISSING:
            assert values[name] == field.default, name
    assert np.isin(kind.describe().split(), ["1", "4", "16"]).sum() == 3


def test_the_table_of_a_plan_shows_facts_by_their_dose(own: str, wide: InsertionContext, tmp_path: Path) -> None:
    asked = Knowledge(file=own, repetitions=[0, 16]).edits(wide)
    plan = compile_plan([asked], wide.phases, wide.window, wide.seed, "treated", tmp_path)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(*preview(plan))
    lines = [line.split() for line in console.export_text().splitlines()]
    shown = [[word for word in words if word != "│"] for words in lines if "(facts)" in words]
    assert shown == [["mine", "(facts)", "0", "(holdout)", "6", "0", "0"], ["mine", "(facts)", "16", "6", "96", "480"]]
