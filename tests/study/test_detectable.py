"""The spread that a plan expects comes from a study of the store that measured the same thing, and says which."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from pretrain_exp.plan.items import Items
from pretrain_exp.plan.ledger import ITEMS_SCHEMA
from pretrain_exp.study.detectable import Detectable, detectable, detectable_table, stored_spread
from pretrain_exp.study.registry import write_member, write_study

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
        "insertion": {"texts": {"_target_": "add"}}, "eval": {"own_name": TEXTS}, "model": {"name": "tiny"},
        "training": {"num_steps": 120},
    }  # fmt: skip
    write_member(folder, {"arms": {}, "plan": None, "config": config})
    write_study(folder, {"store": str(store), "members": [str(folder)]})
    (folder / "report").mkdir()
    (folder / "report" / "power.json").write_text(json.dumps([ROW]))
    return store


def planned(evaluation: dict[str, str], model: str = "tiny") -> Any:
    insertion = {"mine": {"_target_": "add"}}
    config = SimpleNamespace(insertion=insertion, eval={"texts": evaluation}, model=SimpleNamespace(name=model))
    return SimpleNamespace(config=config)


def test_the_same_kinds_under_other_names_tell_the_spread(store: Path) -> None:
    spread = stored_spread(store, planned(TEXTS), "mine", 4)
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
    spread = stored_spread(store, planned(TEXTS), "mine", 4)
    assert spread is not None
    table = detectable_table([Detectable("", "mine", 4, 25, 2, spread, 0.535, 0.2)])
    texts = [next(iter(column.cells)).plain for column in table.columns]
    assert [texts[3], texts[4], texts[6]] == cells


@pytest.mark.parametrize(("evaluation", "model", "dose"), [(TRACE, "tiny", 4), (TEXTS, "large", 4), (TEXTS, "tiny", 2)])
def test_what_another_evaluation_model_or_dose_told_is_not_taken(
    store: Path, evaluation: dict[str, str], model: str, dose: int
) -> None:
    assert stored_spread(store, planned(evaluation, model), "mine", dose) is None


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
