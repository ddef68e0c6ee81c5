"""What gc may release: never what a study ends with, asked for, or may still start from."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pretrain_exp.errors import UserError
from pretrain_exp.executor.base import Job
from pretrain_exp.store import gc
from pretrain_exp.store.claims import claimed
from pretrain_exp.store.gc import collect
from pretrain_exp.store.states import can_start, commit, is_complete, stage, state_dir
from pretrain_exp.study.coming import PLANNING, announce
from pretrain_exp.study.registry import write_member, write_study


def state(store, key, step, parent):
    folder = stage(store, key)
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint/weights").write_text(key)
    commit(store, folder, key, {"step": step, "parent": parent})


def study(tmp_path, store, name, arms, ended, jobs=()):
    folder = tmp_path / name
    write_member(folder, {"plan": None, "plan_fingerprint": None, "arms": arms})
    record = {"store": str(store), "members": [str(folder)], "jobs": [job.record() for job in jobs]}
    write_study(folder, record | ({"ended": 1.0} if ended else {}))
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


@pytest.mark.parametrize("ended", [False, True], ids=["under way", "interrupted"])
def test_nothing_goes_that_an_untrained_arm_may_start_from(tmp_path, store, ended):
    whole = study(tmp_path, store, "one", {"control": arm("c", [])}, ended=True)
    to_train = study(tmp_path, store, "two", {"treated": arm("z", [], **{"2": "b", "9": "z"})}, ended=ended)
    assert collect(store, [whole, to_train], apply=True) == ["a"]


@pytest.mark.parametrize("after", ["mark", "move"])
def test_a_release_that_was_killed_is_ended_by_the_next(tmp_path, store, monkeypatch, after):
    class Killed(BaseException):
        pass

    def kill(*_, **__):
        raise Killed

    folder = study(tmp_path, store, "one", {"control": arm("c", ["a"])}, ended=True)
    with monkeypatch.context() as patched:
        patched.setattr(*{"mark": (gc.os, "rename"), "move": (gc.shutil, "rmtree")}[after], kill)
        with pytest.raises(Killed):
            collect(store, [folder], apply=True)
    assert not can_start(store, "b")
    assert collect(store, [folder], apply=False) == (["b"] if after == "mark" else [])
    collect(store, [folder], apply=True)
    assert not (state_dir(store, "b") / "checkpoint").exists()
    assert list((store / "staging").iterdir()) == []


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no states"):
        collect(tmp_path / "typo", [], apply=True)
    assert not (tmp_path / "typo").exists()


def test_a_study_that_lost_a_member_stops_it(tmp_path, store):
    folder = study(tmp_path, store, "one", {"control": arm("c", [])}, ended=True)
    (folder / "member.json").unlink()
    with pytest.raises(UserError, match="was deleted"):
        collect(store, [folder], apply=True)
    assert can_start(store, "a")


@pytest.mark.parametrize("over", [False, True], ids=["under way", "interrupted"])
def test_nothing_goes_from_which_a_planned_job_starts_on_another_studys_way(tmp_path, store, over):
    """The last state of the other study is not there, so that no record leads back from it to b."""
    ended = study(tmp_path, store, "one", {"control": arm("c", [])}, ended=True)
    start = {"start": {"state": str(state_dir(store, "b")), "step": 2}}
    fields = {"folder": store / "jobs/train-j", "command": (), "environment": {}, "needs": frozenset()}
    job = Job(key="j", kind="train", title="j", makes=(state_dir(store, "z") / "state.json",), payload=start, **fields)
    announce(store, [job], tmp_path / "two", None)
    to_train = study(tmp_path, store, "two", {"treated": arm("z", [], **{"9": "z"})}, ended=over, jobs=[job])
    assert collect(store, [ended, to_train], apply=True) == ["a"]


def test_nothing_goes_while_a_study_is_planned(tmp_path, store):
    folder = study(tmp_path, store, "one", {"control": arm("c", [])}, ended=True)
    collecting = threading.Thread(target=collect, args=(store, [folder]), kwargs={"apply": True})
    with claimed(store, PLANNING):
        collecting.start()
        collecting.join(0.5)
        assert collecting.is_alive()
        assert can_start(store, "a")
    collecting.join()
    assert not can_start(store, "a")


def test_weights_that_a_job_puts_back_are_not_deleted_by_a_release_that_is_under_way(tmp_path, store, monkeypatch):
    """Whichever comes first: either the weights are gone and marked so, or they are there and whole."""
    folder = study(tmp_path, store, "one", {"control": arm("c", [])}, ended=True)
    real, put_back = gc.shutil.rmtree, []

    def slow(path: Path, ignore_errors: bool = False) -> None:
        trained = stage(store, "b")
        (trained / "checkpoint").mkdir()
        (trained / "checkpoint/weights").write_text("again")
        put_back.append(threading.Thread(target=commit, args=(store, trained, "b", {"step": 2, "parent": "a"})))
        put_back[-1].start()  # in the midst of a release, after its mark
        time.sleep(0.3)
        real(path, ignore_errors)

    monkeypatch.setattr(gc, "_named_and_kept", lambda store, studies: ({"b"}, set()))
    with monkeypatch.context() as patched:
        patched.setattr(gc, "shutil", type("slowly", (), {"rmtree": staticmethod(slow)}))
        assert collect(store, [folder], apply=True) == ["b"]
    put_back[0].join()
    assert can_start(store, "b")
    assert (state_dir(store, "b") / "checkpoint/weights").read_text() == "again"
