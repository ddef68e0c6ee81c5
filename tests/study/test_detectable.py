"""The spread that a plan expects comes from a study of the store that measured the same thing, and says which."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from pretrain_exp.plan.items import Items
from pretrain_exp.plan.ledger import ITEMS_SCHEMA
from pretrain_exp.study.detectable import (
    Detectable,
    Spread,
    detectable,
    detectable_table,
    earlier_studies,
    stored_spread,
)
from pretrain_exp.study.registry import write_member, write_study

MODEL = {"name": "hf", "checkpoint": "mine/a", "config": None}
TEXTS, TRACE = {"_target_": "planted"}, {"_target_": "membership"}
ROW = {
    "evaluation": "own_name", "metric": "ce", "insertion": "texts", "dose": 4, "n": 25, "seeds": 1,
    "sd_items": 0.1, "sd_seeds": None,
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store that one study used, whose evaluation `own_name` is of the kind `planted`."""
    monkeypatch.chdir(tmp_path)
    folder, store = tmp_path / "earlier", tmp_path / "store"
    config = {
        "insertion": {"texts": {"_target_": "add"}}, "eval": {"own_name": TEXTS}, "model": MODEL,
        "training": {"num_steps": 120},
    }  # fmt: skip
    write_member(folder, {"arms": {}, "plan": None, "config": config})
    write_study(folder, {"store": str(store), "members": [str(folder)]})
    (folder / "report").mkdir()
    (folder / "report" / "power.json").write_text(json.dumps([ROW]))
    return store


def planned(evaluation: dict[str, str], **model: Any) -> Any:
    config = SimpleNamespace(insertion={"mine": {"_target_": "add"}}, eval={"texts": evaluation})
    return SimpleNamespace(config=config, composed=SimpleNamespace(raw={"model": MODEL | model}))


def test_the_same_kinds_under_other_names_tell_the_spread(store: Path) -> None:
    spread = stored_spread(earlier_studies(store), planned(TEXTS), "mine", 4)
    assert spread is not None
    assert (spread.metric, spread.items) == ("ce", 0.1)
    assert spread.seeds == pytest.approx(0.1 / 5)
    assert spread.ground == "as in earlier, 120 steps, one seed, so items stand for runs"


@pytest.mark.parametrize(
    ("name", "binary", "cells"),
    [
        ("own", False, ["own", "0.535", "0.200"]), ("own", True, ["own [points]", "53.5", "20.0"]),
        ("ce", False, ["cross-entropy [nats per token]", "0.535", "0.200"]),
    ],
)  # fmt: skip
def test_points_are_only_for_what_is_right_or_wrong(
    store: Path, tmp_path: Path, name: str, binary: bool, cells: list[str]
) -> None:
    power = tmp_path / "earlier" / "report" / "power.json"
    power.write_text(json.dumps([ROW | {"metric": name, "binary": binary}]))
    spread = stored_spread(earlier_studies(store), planned(TEXTS), "mine", 4)
    assert spread is not None
    table = detectable_table([Detectable("", "mine", 4, 25, 2, spread, 0.535, 0.2)])
    texts = [next(iter(column.cells)).plain for column in table.columns]
    assert [texts[3], texts[4], texts[6]] == cells


@pytest.mark.parametrize(
    ("evaluation", "model", "dose", "taken"),
    [
        (TEXTS, {}, 4, True),
        (TEXTS, {"name": "of my own", "batch_size": 8}, 4, True),
        (TRACE, {}, 4, False),
        (TEXTS, {}, 2, False),
        (TEXTS, {"checkpoint": "mine/b"}, 4, False),
        (TEXTS, {"revision": "main"}, 4, False),
        (TEXTS, {"checkpoint": None, "config": {"hidden_size": 8}}, 4, False),
    ],
)
def test_what_another_evaluation_model_or_dose_told_is_not_taken(
    store: Path, evaluation: dict[str, str], model: dict[str, Any], dose: int, taken: bool
) -> None:
    assert (stored_spread(earlier_studies(store), planned(evaluation, **model), "mine", dose) is not None) == taken


def shown(rows: list[Detectable]) -> str:
    console = Console(width=80, record=True, file=StringIO())
    console.print(detectable_table(rows))
    return console.export_text()


def test_variants_that_are_alike_are_said_once_and_no_effect_is_beyond_what_is_possible() -> None:
    choices = Spread("acc", True, 0.4, 0.4, "assumed")
    row = Detectable("density=uniform", "mine", 4, 25, 2, choices, 0.4, 1.334)
    alike = shown([row, replace(row, variant="density=front")])
    assert "variant" not in alike
    assert re.findall(r" 40\.0 +2 +none +\[1\]", alike) != []
    assert "133.4" not in alike
    assert "none: not even the largest effect that is possible would be seen" in alike
    losses = replace(row, spread=Spread("ce", False, 0.4, 0.4, "assumed"))
    other = shown([losses, replace(losses, variant="density=front", in_a_run=0.8)])
    assert "1.334" in other
    assert "none:" not in other
    assert "variant 0: density=uniform" in other
    assert "variant 1: density=front" in other


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("report/power.json", "[{"),
        ("report/power.json", '[{"insertion": "texts", "dose": 4}]'),
        ("study.json", "{}"),
        ("member.json", "{}"),
        ("member.json", None),
    ],
)
def test_a_study_that_is_damaged_or_older_tells_nothing_and_stops_nothing(
    store: Path, tmp_path: Path, path: str, text: str | None
) -> None:
    damaged = tmp_path / "earlier" / path
    damaged.unlink() if text is None else damaged.write_text(text)
    assert stored_spread(earlier_studies(store), planned(TEXTS), "mine", 4) is None


CHOICE, CANARY = {"query": "q", "choices": ["a", "b"], "gold": 0}, {"kind": "canary", "type": "rare", "span": [3, 5]}


@pytest.mark.parametrize(
    ("payloads", "metric", "items", "sd"),
    [
        ([None, None], "ce", 2, 0.15),
        ([CHOICE, CHOICE], "acc", 2, math.sqrt(0.2)),
        ([{"kind": "gaussian_watermark"}], "watermark", 1, 1.0),
        ([CANARY, CANARY, {"kind": "canary", "type": "plain"}], "exposure", 2, 1 / math.log(2)),
        ([{"kind": "canary", "type": "plain"}], "ce", 1, 0.15),
        ([{"kind": "poison"}], "attack", 1, math.sqrt(0.2)),
        ([{"kind": "probe"}] * 3, "target_logprob", 3, 3.0),
        ([{"kind": "problem"}], "acc", 1, math.sqrt(0.2)),
        ([{"kind": "verbatim"}], "exact", 1, math.sqrt(0.2)),
        ([{"kind": "document"}], "ce", 1, 0.15),
    ],
)
def test_what_is_assumed_follows_what_is_scored(
    tmp_path: Path, payloads: list[dict[str, Any] | None], metric: str, items: int, sd: float
) -> None:
    texts = ["" if payload is None else json.dumps(payload) for payload in payloads]
    fields = {"insertion": "mine", "group": "", "dose": 4, "text": "", "probe": False}
    rows = [fields | {"item": f"i{i}", "tokens": [i], "payload": text} for i, text in enumerate(texts)]
    table = pa.Table.from_pylist(rows, ITEMS_SCHEMA)
    plan = SimpleNamespace(stored_items=lambda: Items.of(table))
    member: Any = SimpleNamespace(label="", plan=plan, config=SimpleNamespace(insertion={}))
    (row,) = detectable([member, member], tmp_path)
    assert (row.dose, row.items, row.seeds, row.spread.metric, row.spread.items) == (4, items, 2, metric, sd)
    assert row.spread.seeds == pytest.approx(sd / math.sqrt(items))
    assert row.in_a_run == pytest.approx(2.8016 * sd / math.sqrt(items), rel=1e-4)
