"""States appear whole or not at all, and a state that is there wins."""

from __future__ import annotations

from pretrain_exp.store.states import RELEASED, can_start, commit, is_complete, read_record, stage, state_dir


def put(store, key, content, **record):
    folder = stage(store, key)
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "weights").write_text(content)
    return commit(store, folder, key, {"step": 3, "parent": None, **record})


def test_a_staged_state_is_not_there_until_it_is_committed(tmp_path):
    folder = stage(tmp_path, "k")
    (folder / "half").write_text("x")
    assert not is_complete(tmp_path, "k")
    commit(tmp_path, folder, "k", {"step": 3})
    assert is_complete(tmp_path, "k")
    assert read_record(tmp_path, "k")["step"] == 3


def test_the_first_of_two_writers_wins_and_nothing_is_left_in_staging(tmp_path):
    put(tmp_path, "k", "first")
    put(tmp_path, "k", "second")
    assert (state_dir(tmp_path, "k") / "checkpoint/weights").read_text() == "first"
    assert list((tmp_path / "staging").iterdir()) == []


def test_a_state_that_lost_its_weights_is_replaced(tmp_path):
    put(tmp_path, "k", "first")
    (state_dir(tmp_path, "k") / RELEASED).write_text("")
    assert is_complete(tmp_path, "k")
    assert not can_start(tmp_path, "k")
    put(tmp_path, "k", "second")
    assert can_start(tmp_path, "k")
    assert (state_dir(tmp_path, "k") / "checkpoint/weights").read_text() == "second"
