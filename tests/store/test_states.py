"""States appear whole or not at all, and a state that is there wins."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest

from pretrain_exp.store.states import RELEASED, can_start, commit, is_complete, read_record, stage, state_dir


def fill(store, key, text):
    folder = stage(store, key)
    for name in ("checkpoint/weights", "probe.json", "metrics.jsonl", "reads/rank00000.npy"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def put(store, key, text, **record):
    return commit(store, fill(store, key, text), key, {"step": 3, "parent": None, **record})


def content(store, key):
    """What the files of a state hold, without its record."""
    folder = state_dir(store, key)
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_text() for name, path in files.items() if name not in ("state.json", RELEASED)}


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


def release(store, key):
    (state_dir(store, key) / RELEASED).write_text("")
    shutil.rmtree(state_dir(store, key) / "checkpoint")


def test_a_state_that_lost_its_weights_gets_new_ones_and_keeps_its_logs(tmp_path):
    put(tmp_path, "k", "first", parent="p")
    release(tmp_path, "k")
    assert is_complete(tmp_path, "k")
    assert not can_start(tmp_path, "k")
    put(tmp_path, "k", "second", parent="q", numerics={"world": 2})
    assert can_start(tmp_path, "k")
    assert content(tmp_path, "k") == {
        "checkpoint/weights": "second",
        "probe.json": "second",
        "metrics.jsonl": "first",
        "reads/rank00000.npy": "first",
    }
    record = read_record(tmp_path, "k")
    assert record["parent"] == "p"
    assert record["restored"]["numerics"] == {"world": 2}
    assert list((tmp_path / "staging").iterdir()) == []


def die(store):
    """What this process holds is from now on that of an earlier one, which had the same pid."""
    for path in (store / "claims").rglob("*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "started": 1}))


@pytest.mark.parametrize("killed_at", range(1, 9))
def test_killed_anywhere_while_weights_return_nothing_is_lost(tmp_path, monkeypatch, killed_at):
    """At each call that changes the disk; whole or released, never neither, and the next try succeeds."""
    put(tmp_path, "k", "first")
    release(tmp_path, "k")
    calls = 0

    def watched(original):
        def call(*arguments, **named):
            nonlocal calls
            calls += 1
            if calls >= killed_at:  # nothing is put in order afterwards either
                raise KeyboardInterrupt
            return original(*arguments, **named)

        return call

    staging = fill(tmp_path, "k", "second")
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        for module, name in ((os, "rename"), (os, "replace"), (shutil, "rmtree"), (Path, "unlink")):
            patch.setattr(module, name, watched(getattr(module, name)))
        commit(tmp_path, staging, "k", {"step": 3})
    assert calls >= killed_at, "fewer calls than this test thinks"
    assert is_complete(tmp_path, "k")
    assert content(tmp_path, "k")["metrics.jsonl"] == "first"
    if can_start(tmp_path, "k"):
        assert content(tmp_path, "k")["checkpoint/weights"] == content(tmp_path, "k")["probe.json"] == "second"
    die(tmp_path)
    put(tmp_path, "k", "third")
    assert can_start(tmp_path, "k")
