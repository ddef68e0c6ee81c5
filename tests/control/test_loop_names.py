"""A loop's name, its slices, its aliases, and the graph of its jobs; no model."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_exp.control import loop as loops
from pretrain_exp.control.loop import Loop
from pretrain_exp.store.states import commit, is_complete, read_record, stage
from pretrain_exp.study.graph import Run, build_nodes, build_segments


def run(label, steps, prefix=lambda step: "", **fields):
    return Run(label, "base", 0, frozenset(steps), prefix, {}, **fields)


def spans(runs, complete=frozenset()):
    nodes = build_nodes(runs)
    found = build_segments(nodes, complete.__contains__, complete.__contains__)
    return sorted((s.run.label, s.start_step, s.stop) for s in found)


@given(first=st.integers(0, 50), steps=st.integers(1, 100), every=st.integers(1, 120))
@settings(max_examples=50, deadline=None)
def test_slices_cover_the_run_once(first, steps, every):
    loop = Loop("k", first, first + steps, every)
    trained = [(step, loop.boundary(step), loop.end(step)) for step in range(first, first + steps)]
    assert all(low in loop.boundaries and low <= step < high for step, low, high in trained)
    assert len({low for _, low, _ in trained}) == len(loop.boundaries)
    assert max(high for _, _, high in trained) == loop.last_step


def test_the_name_follows_from_everything_that_decides_and_from_nothing_else():
    name = Loop.named({"a": 1, "b": 2}, 0, 100, 10).key
    assert Loop.named({"b": 2, "a": 1}, 0, 100, 10).key == name
    others = [({"a": 2, "b": 2}, 0, 100, 10), ({"a": 1, "b": 2}, 0, 101, 10), ({"a": 1, "b": 2}, 0, 100, 20)]
    assert len({name, *(Loop.named(*other).key for other in others)}) == 4


def test_a_job_ends_where_a_slice_does_and_checkpoints_lie_on_its_way():
    loop = Loop("k", 0, 30, 10)
    control = run("control", {0, 30})
    treated = run("treated", {0, 10, 15, 20, 30}, loop.prefix(lambda step: ""), cuts=frozenset(loop.boundaries))
    placebo = run("placebo", {0, 10, 30}, loop.prefix(lambda step: "", "placebo"), cuts=frozenset({0}))
    jobs = [("treated", 0, 10), ("treated", 10, 20), ("treated", 20, 30)]
    assert spans([control, treated, placebo]) == [("control", 0, 0), ("control", 0, 30), ("placebo", 0, 30), *jobs]
    # without a control that branches there, the loop still begins with a job of its own
    assert spans([treated]) == [("treated", 0, 0), *jobs]
    done = {control.key(0), *(treated.key(step) for step in (10, 15))}
    assert spans([treated], complete=done) == [("treated", 15, 20), ("treated", 20, 30)]  # its slice is planned already
    keys = {one.key(step) for one in (control, treated, placebo) for step in (10, 30)}
    assert len(keys) == 6
    assert control.key(0) == treated.key(0) == placebo.key(0)


def test_an_alias_stands_for_a_state_before_and_after_it_is_there(tmp_path):
    assert loops.known(tmp_path, "alias") == "alias"
    loops.link(tmp_path, "alias", "real")
    loops.link(tmp_path, "alias", "real")
    assert loops.known(tmp_path, "alias") == "real"
    assert not is_complete(tmp_path, "alias")
    staged = stage(tmp_path, "real")
    (staged / "checkpoint").mkdir()
    commit(tmp_path, staged, "real", {"step": 3, "parent": None})
    assert read_record(tmp_path, "alias")["key"] == "real"
    (tmp_path / "evals" / "alias" / "f").mkdir()
    assert os.listdir(tmp_path / "evals" / "real") == ["f"]


def test_a_members_record_is_known_as_far_as_its_loop_has_come(tmp_path):
    loop = Loop("k", 0, 20, 10)
    arm = {"loop": {**loop.to_json(), "role": "treated"}, "plan": "static", "last": "a20", "keep": ["a10", "a20"]}
    arm["states"] = {"0": "k0", "10": "a10", "20": "a20"}
    member = {"plan": "static", "plan_fingerprint": "static", "arms": {"treated": arm, "control": {"loop": None}}}
    assert loops.realised(tmp_path, member) == {**member, "plan_fingerprint": "static"}
    loops.link(tmp_path, "a10", "k10")
    loops.write(loops.record_path(tmp_path, loop, 0), {"step": 0, "plan": "one", "insertions": {}})
    found = loops.realised(tmp_path, json.loads(json.dumps(member)))
    own = tmp_path / "loops/k/plans/one"
    assert found["plan"] == found["arms"]["treated"]["plan"] == str(own)
    assert found["plan_fingerprint"] == "one"
    (tmp_path / "plans/one").mkdir(parents=True)  # as that of the last slice
    assert loops.realised(tmp_path, member)["plan"] == str(tmp_path / "plans/one")
    assert found["arms"]["treated"]["states"] == {"0": "k0", "10": "k10", "20": "a20"}
    assert found["arms"]["treated"]["keep"] == ["a20", "k10"]


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_ranks_the_first_plans_and_the_others_wait(tmp_path, monkeypatch, rank):
    """The command itself is replaced: only who calls what, and when, is looked at."""
    from pretrain_exp.control import launch

    said = []
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7-0-2")
    monkeypatch.setattr(launch.os, "execvp", lambda file, command: said.append(("exec", command)))
    job = tmp_path / "job.json"

    def plan(command, env, check):
        said.append(("plan", "RANK" in env))
        return type("Done", (), {"returncode": 0})

    def wait(seconds):
        said.append(("wait", seconds))
        launch.write_json(tmp_path / "planned.json", {"attempt": "7-0-2"})

    monkeypatch.setattr(launch.subprocess, "run", plan)
    monkeypatch.setattr(launch.time, "sleep", wait)
    launch.write_json(tmp_path / "planned.json", {"attempt": "7-0-1"})  # of the attempt before
    launch.main([str(job), "--python", "py", "--", "worker", "resolved.json", "--device", "cpu"])
    before = ("plan", False) if rank == "0" else ("wait", 0.5)
    assert said == [before, ("exec", ["worker", "resolved.json", "--device", "cpu"])]


@pytest.mark.parametrize(("code", "status"), [(2, 2), (1, 1), (-15, 143)])
def test_a_slice_that_cannot_be_planned_is_not_trained(tmp_path, monkeypatch, code, status):
    from pretrain_exp.control import launch

    monkeypatch.setattr(launch.subprocess, "run", lambda *_, **__: type("Done", (), {"returncode": code}))
    monkeypatch.setattr(launch.os, "execvp", lambda *_: pytest.fail("trained"))
    assert launch.main([str(tmp_path / "job.json"), "--python", "py", "--", "worker"]) == status
