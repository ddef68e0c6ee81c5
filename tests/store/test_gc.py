"""What gc may release: never what a study ends with, asked for, or may still start from."""

from __future__ import annotations

import pytest

from pretrain_exp.errors import UserError
from pretrain_exp.store.gc import collect
from pretrain_exp.store.states import can_start, commit, is_complete, stage
from pretrain_exp.study.registry import write_member, write_study


def state(store, key, step, parent):
    folder = stage(store, key)
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint/weights").write_text(key)
    commit(store, folder, key, {"step": step, "parent": parent})


def study(tmp_path, store, name, arms, ended):
    folder = tmp_path / name
    write_member(folder, {"arms": arms})
    write_study(folder, {"store": str(store), "members": [str(folder)], **({"ended": 1.0} if ended else {})})
    return folder


@pytest.fixture
def store(tmp_path, monkeypatch):
    """a - b - c, and d beside c: a run branched at b; e belongs to nobody here."""
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "store"
    for key, step, parent in (("a", 1, None), ("b", 2, "a"), ("c", 3, "b"), ("d", 3, "b"), ("e", 9, None)):
        state(store, key, step, parent)
    return store


def arm(last, keep, **states):
    return {"last": last, "keep": keep, "states": states}


def test_only_states_that_nobody_asked_for_go(tmp_path, store):
    arms = {"control": arm("c", ["a", "c"]), "treated": arm("d", ["d"])}
    folder = study(tmp_path, store, "one", arms, ended=True)
    assert collect(store, [folder], apply=False) == ["b"]
    assert can_start(store, "b")
    assert collect(store, [folder], apply=True) == ["b"]
    assert not can_start(store, "b")
    assert is_complete(store, "b")
    assert [key for key in "acde" if can_start(store, key)] == list("acde")
    assert collect(store, [folder], apply=True) == []


def test_nothing_goes_that_a_study_under_way_may_start_from(tmp_path, store):
    ended = study(tmp_path, store, "one", {"control": arm("c", [])}, ended=True)
    under_way = study(tmp_path, store, "two", {"treated": arm("z", [], **{"2": "b", "9": "z"})}, ended=False)
    assert collect(store, [ended, under_way], apply=True) == ["a"]


def test_a_study_that_lost_a_member_stops_it(tmp_path, store):
    folder = study(tmp_path, store, "one", {"control": arm("c", [])}, ended=True)
    (folder / "member.json").unlink()
    with pytest.raises(UserError, match="was deleted"):
        collect(store, [folder], apply=True)
    assert can_start(store, "a")
