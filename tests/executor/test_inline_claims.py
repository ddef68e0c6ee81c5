"""The inline executor beside others: each job has one writer, whoever was killed and whoever takes over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from inline_jobs import SAVES_ON_TERM, attempts, controller, job, make, wait_until

from pretrain_exp.executor.inline import Inline
from pretrain_exp.store import claims
from pretrain_exp.store.process import describe_process, process_lives


def test_a_claim_that_was_lost_between_two_attempts_starts_no_other(tmp_path, monkeypatch):
    """What another process took over while this one waited to try again is not touched."""
    real = Inline._run_job

    def loses_while_it_waits(self, given, claim, board, lifeline):
        def lose(seconds):
            (claim.path.parent / "2.json").write_text(json.dumps({"owner": "another"}))
            claim.lost.set()

        monkeypatch.setattr(self._stop, "wait", lose)
        assert real(self, given, claim, board, lifeline) is None
        (tmp_path / "a.made").write_text("by the other")

    monkeypatch.setattr(Inline, "_run_job", loses_while_it_waits)
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", "raise SystemExit(1)")], tmp_path)
    assert outcomes["train-a"].state == "done"
    assert attempts(tmp_path, "a") == 1


def test_two_executors_at_once_run_a_job_once(tmp_path):
    slow = make("a", "time.sleep(0.5)")
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(Inline(parallel=1).run([job(tmp_path, "a", slow)], tmp_path)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [r["train-a"].state for r in results] == ["done", "done"]
    assert attempts(tmp_path, "a") == 1


def test_no_second_writer_starts_while_a_former_one_lives(tmp_path):
    """Its controller was killed, and the watcher with it: the process itself is known by process.json."""
    place = job(tmp_path, "a", "").folder
    code = make("a", SAVES_ON_TERM)
    former = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "FOLDER": str(tmp_path)}, start_new_session=True
    )
    reaper = threading.Thread(target=former.wait, daemon=True)
    reaper.start()
    (place / "process.json").write_text(json.dumps(describe_process(former.pid)))
    wait_until((tmp_path / "ready").exists)
    (tmp_path / "ready").unlink()
    alone = make("a", "(folder / 'alone').write_text(str((folder / 'saved').exists()))")
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", alone)], tmp_path)
    assert outcomes["train-a"].state == "done"
    assert (tmp_path / "alone").read_text() == "True"
    reaper.join()


def test_another_process_with_the_pid_of_a_former_one_is_left_alone(tmp_path):
    place = job(tmp_path, "a", "").folder
    (place / "process.json").write_text(json.dumps({**describe_process(), "started": 1}))
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", make("a"))], tmp_path)
    assert outcomes["train-a"].state == "done"


def test_a_child_knows_the_claim_it_writes_under(tmp_path):
    check = "import os; from pretrain_exp.store.claims import demand_claim; demand_claim(os.environ)"
    look = f"{check}; (folder / 'claim').write_text(os.environ['PRETRAIN_EXP_CLAIM'])"
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", make("a", look))], tmp_path)
    assert outcomes["train-a"].state == "done"
    assert Path((tmp_path / "claim").read_text()).parent == tmp_path / "claims" / "train-a"


def test_a_lost_claim_ends_the_child_and_the_job_is_waited_for_again(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.02)
    first = make("a", "(folder / 'ready').write_text(''); time.sleep(0 if (folder / 'again').exists() else 120)")

    def take():
        wait_until((tmp_path / "ready").exists)
        folder = tmp_path / "claims" / "train-a"
        (folder / "2.json").write_text(json.dumps({"owner": "x", **describe_process()}))
        wait_until(lambda: not process_lives(json.loads((tmp_path / "a" / "process.json").read_text())))
        (tmp_path / "again").write_text("")
        (folder / "2.json").write_text(json.dumps({"owner": None}))

    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", first)], tmp_path)
    taker.join()
    assert outcomes["train-a"].state == "done"
    assert attempts(tmp_path, "a") == 2


def test_what_a_living_former_one_saves_is_saved_under_its_own_claim(tmp_path):
    """Its controller was killed. Until it has ended nobody takes its claim over, or what it saves would be refused."""
    check = "from pretrain_exp.store.claims import demand_claim; time.sleep(1); demand_claim(os.environ); "
    saves = SAVES_ON_TERM.replace("(folder / 'saved')", check + "(folder / 'saved')")
    first = controller(tmp_path, make("a", saves))
    wait_until((tmp_path / "ready").exists)
    first.kill()
    first.wait()
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", make("a"))], tmp_path)
    assert outcomes["train-a"].state == "done"
    assert (tmp_path / "saved").exists()


def test_a_job_that_another_process_runs_takes_no_place_and_is_done_when_it_is(tmp_path):
    """One place: while the other runs a, this one runs b, and then finds a done."""
    a, b = job(tmp_path, "a", "raise SystemExit(1)"), job(tmp_path, "b", make("b"))

    def end_other(other):
        wait_until((tmp_path / "b.made").exists)
        (tmp_path / "a.made").write_text("")
        other.release()

    with claims.claimed(tmp_path, "train-a") as other:
        ender = threading.Thread(target=end_other, args=(other,), daemon=True)
        ender.start()
        outcomes = Inline(parallel=1).run([a, b, job(tmp_path, "c", make("c"), ["train-a"])], tmp_path)
        ender.join()
    assert {name: outcome.state for name, outcome in outcomes.items()} == dict.fromkeys(
        ["train-a", "train-b", "train-c"], "done"
    )
    assert not (tmp_path / "a/log.txt").exists()
