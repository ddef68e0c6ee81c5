"""What living jobs of other studies will make: found while they live, by whoever sees to them, and only then."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pretrain_exp.executor.base import Job
from pretrain_exp.executor.slurm_files import Submission, write_submission
from pretrain_exp.executor.slurm_plan import longest_chain
from pretrain_exp.executor.slurm_site import SlurmError
from pretrain_exp.executor.slurm_status import standings_in
from pretrain_exp.store.claims import claimed
from pretrain_exp.store.states import state_dir
from pretrain_exp.study import coming
from pretrain_exp.study.coming import announce, await_end, find_coming


def job(store: Path, name: str, *states: str, needs: tuple[Job, ...] = ()) -> Job:
    return Job(
        key=name,
        kind="train",
        title=name,
        folder=store / "jobs" / f"train-{name}",
        command=("train", name),
        environment={"A": "1"},
        needs=frozenset(need.id for need in needs),
        makes=tuple(state_dir(store, state) / "state.json" for state in states),
        payload={"save": list(states)},
        retries=2,
    )


def found(store: Path, *states: str, study: str = "mine") -> coming.Coming:
    return find_coming(store, [state_dir(store, state) / "state.json" for state in states], store / study)


def make(store: Path, state: str) -> None:
    (state_dir(store, state)).mkdir(parents=True)
    (state_dir(store, state) / "state.json").write_text("{}")


def test_chains_of_any_length_are_followed(tmp_path):
    """Longer than Python's stack is deep."""
    chain = [job(tmp_path, "j0", "s0")]
    for number in range(1, 1500):
        chain.append(job(tmp_path, f"j{number}", f"s{number}", needs=(chain[-1],)))
    there = coming.Coming({one.id: one for one in chain}, {}, frozenset())
    assert there.with_needs([chain[-1].id]) == chain
    assert longest_chain(chain, {one.id: 2.0 for one in chain}) == 3000.0
    for one in chain:
        one.folder.mkdir(parents=True)
        write_submission(one.folder, Submission(one.id, 0.0, sorted(one.needs), {}))
    (chain[0].folder / "slurm").mkdir()
    (chain[0].folder / "slurm" / "cancelled").touch()
    told = standings_in(chain, {})
    assert told[chain[0].id][0] == "cancelled"
    assert {told[one.id][0] for one in chain[1:]} == {"skipped"}
    assert told[chain[-1].id][1] == f"needs {chain[-2].title}, which was skipped"


def test_a_job_is_found_whole_by_what_it_makes_while_its_controller_lives(tmp_path):
    first = job(tmp_path, "j", "a", "b")
    second = job(tmp_path, "k", "c", needs=(first,))
    with claimed(tmp_path, "study-one") as controller:
        announce(tmp_path, [first, second], tmp_path / "one", controller)
        there = found(tmp_path, "a", "c", "z")
        assert {path.parent.name: name for path, name in there.maker.items()} == {"a": first.id, "c": second.id}
        assert [one.id for one in there.with_needs([second.id])] == [first.id, second.id]
        told = there.jobs[first.id]
        assert told.adopted
        assert told.to_json() == {**first.to_json(), "adopted": True}
        assert there.queued == frozenset()
        # of the study itself they are its own
        assert not found(tmp_path, "a", study="one").jobs[first.id].adopted
    assert found(tmp_path, "a", "c").jobs == {}


def test_what_is_done_is_not_coming_and_what_needs_it_is(tmp_path):
    first = job(tmp_path, "j", "a")
    second = job(tmp_path, "k", "c", needs=(first,))
    with claimed(tmp_path, "study-one") as controller:
        announce(tmp_path, [first, second], tmp_path / "one", controller)
        make(tmp_path, "a")
        there = found(tmp_path, "a", "c")
    assert set(there.jobs) == {second.id}
    assert there.of(state_dir(tmp_path, "a") / "state.json") is None


def test_who_adopts_a_job_sees_to_it_too(tmp_path):
    """The controller of the study that planned it ends, that of the one that adopted it does not."""
    one = job(tmp_path, "j", "a")
    with claimed(tmp_path, "study-two") as second:
        with claimed(tmp_path, "study-one") as first:
            announce(tmp_path, [one], tmp_path / "one", first)
            announce(tmp_path, list(found(tmp_path, "a").jobs.values()), tmp_path / "two", second)
        there = found(tmp_path, "a", study="one")
        assert set(there.jobs) == {one.id}
        assert not there.jobs[one.id].adopted  # whose it is has not changed
    assert found(tmp_path, "a").jobs == {}


def test_the_jobs_of_a_process_that_was_killed_are_not_coming(tmp_path):
    code = f"""
import os
from pathlib import Path
from pretrain_exp.store.claims import try_claim
from pretrain_exp.study.coming import announce
from pretrain_exp.executor.base import Job
store = Path({str(tmp_path)!r})
job = Job(key="j", kind="train", title="j", folder=store / "jobs/train-j", command=(), environment={{}},
          needs=frozenset(), makes=(store / "states/a/state.json",))
announce(store, [job], store / "one", try_claim(store, "study-one"))
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert (tmp_path / "jobs/train-j/announced.json").is_file()
    assert found(tmp_path, "a").jobs == {}


@pytest.mark.parametrize(
    ("state", "lives"), [("PENDING", True), ("RUNNING", True), ("FAILED", False), ("CANCELLED", False)]
)
def test_a_queued_job_lives_while_slurm_has_it(tmp_path, monkeypatch, state, lives):
    program = tmp_path / "bin" / "squeue"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '41|{state}|None|n1'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    one = job(tmp_path, "j", "a")
    announce(tmp_path, [one], tmp_path / "one", None)
    assert found(tmp_path, "a").jobs == {}  # announced, and not submitted yet
    write_submission(one.folder, Submission("41", 0.0, [], {}))
    there = found(tmp_path, "a")
    assert set(there.jobs) == there.queued == ({one.id} if lives else set())


def test_waiting_ends_with_the_result_or_with_who_sees_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(coming, "POLL_SECONDS", 0.01)
    done, left = job(tmp_path, "j", "a"), job(tmp_path, "k", "b")
    asked = []

    def step(seconds: float) -> None:
        asked.append(seconds)
        make(tmp_path, "a") if len(asked) == 1 else controller.release()

    monkeypatch.setattr(coming, "time", SimpleNamespace(sleep=step))  # no other thread's sleep is a step
    with claimed(tmp_path, "study-one") as controller:
        announce(tmp_path, [done, left], tmp_path / "one", controller)
        await_end([done, left], print)
    assert len(asked) == 2


def test_a_squeue_that_is_away_ends_no_wait(tmp_path, monkeypatch):
    one, said = job(tmp_path, "j", "a"), []
    answers = iter([SlurmError("squeue is away"), SlurmError("squeue is away"), {"41"}, set()])

    def alive(numbers):
        answer = next(answers)
        if isinstance(answer, SlurmError):
            raise answer
        return answer

    announce(tmp_path, [one], tmp_path / "one", None)
    write_submission(one.folder, Submission("41", 0.0, [], {}))
    monkeypatch.setattr(coming, "alive", alive)
    monkeypatch.setattr(coming, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(coming.shutil, "which", str)
    await_end([one], said.append)
    assert next(answers, None) is None
    assert [words.partition(";")[0] for words in said] == ["squeue is away"]


def test_files_that_nobody_announced_are_not_coming(tmp_path):
    assert found(tmp_path, "a", "b") == coming.Coming()
    other = job(tmp_path, "j", "a")
    with claimed(tmp_path, "study-one") as controller:
        announce(tmp_path, [other], tmp_path / "one", controller)
        # announced anew for another span of steps: what it no longer makes is not taken for coming
        entry = json.loads((other.folder / "announced.json").read_text())
        entry["job"]["makes"] = [str(state_dir(tmp_path, "c") / "state.json")]
        (other.folder / "announced.json").write_text(json.dumps(entry))
        assert found(tmp_path, "a").maker == {}
