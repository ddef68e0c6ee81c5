"""The inline executor: order, retries, failure, interruption. Jobs are small real processes."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

import pytest

from pretrain_exp.executor.base import Job
from pretrain_exp.executor.inline import Inline


def job(folder, name, code, needs=(), makes=None, retries=3):
    """A job whose command is Python `code`; it has made something once the file <name>.made exists."""
    place = folder / name
    place.mkdir(exist_ok=True)
    return Job(
        key=name,
        kind="train",
        title=name,
        folder=place,
        command=(sys.executable, "-c", code),
        environment={"FOLDER": str(folder)},
        needs=frozenset(needs),
        makes=(folder / f"{name}.made",) if makes is None else makes,
        total=1,
        retries=retries,
        retry_seconds=0.01,
    )


def make(name, before="pass"):
    start = "import os, pathlib, sys, time, json; folder = pathlib.Path(os.environ['FOLDER'])"
    return f"{start}; {before}; (folder / '{name}.made').write_text(str(time.time()))"


def attempts(folder, name):
    return (folder / name / "log.txt").read_text().count("--- attempt")


def test_needs_come_first_and_independent_jobs_run_side_by_side(tmp_path):
    meet = "[time.sleep(0.01) for _ in range(1000) if not (folder / '{}.here').exists()]"
    a = make("a", "(folder / 'a.here').write_text(''); " + meet.format("b"))
    b = make("b", "(folder / 'b.here').write_text(''); " + meet.format("a"))
    jobs = [job(tmp_path, "c", make("c"), needs=["train-a", "train-b"]), job(tmp_path, "a", a), job(tmp_path, "b", b)]
    outcomes = Inline(parallel=2).run(jobs, tmp_path)
    assert {o.state for o in outcomes.values()} == {"done"}
    times = {name: float((tmp_path / f"{name}.made").read_text()) for name in "abc"}
    assert times["c"] > max(times["a"], times["b"])


def test_what_is_made_already_is_not_run_again(tmp_path):
    (tmp_path / "a.made").write_text("")
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", "raise SystemExit(1)")], tmp_path)
    assert outcomes["train-a"].state == "done"
    assert not (tmp_path / "a" / "log.txt").exists()


def test_a_failure_that_passes_is_retried(tmp_path):
    # each attempt gets a step further, as a job does that resumes from its last checkpoint
    further = (
        "log = folder / 'a' / 'metrics.jsonl'; n = len(log.read_text().splitlines()) if log.exists() else 0; "
        "log.write_text('{\"step\": 1}\\n' * (n + 1)); n < 2 and sys.exit(9)"
    )
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", make("a", further))], tmp_path)
    assert outcomes["train-a"].state == "done"
    assert attempts(tmp_path, "a") == 3


def test_the_same_failure_at_the_same_step_is_not_retried_for_ever(tmp_path):
    jobs = [
        job(tmp_path, "a", "print('no such luck'); raise SystemExit(3)", retries=10),
        job(tmp_path, "b", make("b"), ["train-a"]),
    ]
    outcomes = Inline(parallel=1).run(jobs, tmp_path)
    assert outcomes["train-a"].state == "failed"
    assert "exit status 3" in outcomes["train-a"].message
    assert "no such luck" in outcomes["train-a"].message
    assert attempts(tmp_path, "a") == 2
    assert outcomes["train-b"].state == "skipped"
    assert "train-a" in outcomes["train-b"].message


def test_a_failure_of_the_user_is_not_retried_and_its_message_is_the_workers(tmp_path):
    said = {"kind": "user", "message": "the learning rate is a banana", "step": 0}
    path = "pathlib.Path(os.environ['FOLDER']) / 'a' / 'error.json'"
    code = f"import os, pathlib; ({path}).write_text({json.dumps(said)!r}); raise SystemExit(2)"
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", code)], tmp_path)
    assert outcomes["train-a"].message == "the learning rate is a banana"
    assert attempts(tmp_path, "a") == 1


def test_a_killed_job_is_started_again(tmp_path):
    once = "mark = folder / 'once'; mark.exists() or (mark.write_text(''), os.kill(os.getpid(), 9))"
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", make("a", once))], tmp_path)
    assert outcomes["train-a"].state == "done"
    assert attempts(tmp_path, "a") == 2


def test_a_preempted_job_goes_on_without_a_limit(tmp_path):
    four = "n = len(list(folder.glob('try*'))); (folder / f'try{n}').write_text(''); n < 4 and sys.exit(75)"
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", make("a", four), retries=0)], tmp_path)
    assert outcomes["train-a"].state == "done"
    assert attempts(tmp_path, "a") == 5


def test_an_interrupt_lets_children_save_and_ends(tmp_path):
    saves = (
        "import signal; stop = []; signal.signal(signal.SIGTERM, lambda *a: stop.append(1)); "
        "(folder / 'ready').write_text(''); "
        "[time.sleep(0.02) for _ in range(3000) if not stop]; (folder / 'saved').write_text(''); sys.exit(75)"
    )

    def interrupt():
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        Inline(parallel=1).run([job(tmp_path, "a", make("a", saves))], tmp_path)
    assert (tmp_path / "saved").exists()
    assert not (tmp_path / "a.made").exists()
    assert not (tmp_path / "a" / "process.json").exists()


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
