"""The spread that a plan expects comes from a study of the store that measured the same thing, and says which."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pretrain_exp.study.detectable import stored_spread
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


@pytest.mark.parametrize(("evaluation", "model", "dose"), [(TRACE, "tiny", 4), (TEXTS, "large", 4), (TEXTS, "tiny", 2)])
def test_what_another_evaluation_model_or_dose_told_is_not_taken(
    store: Path, evaluation: dict[str, str], model: str, dose: int
) -> None:
    assert stored_spread(store, planned(evaluation, model), "mine", dose) is None
