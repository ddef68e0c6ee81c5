"""The inline executor: order, retries, failure, interruption. Jobs are small real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pretrain_exp.executor import inline
from pretrain_exp.executor.base import Job
from pretrain_exp.executor.inline import Inline
from pretrain_exp.store import claims
from pretrain_exp.store.process import describe_process, process_lives


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
    return (folder / name / "log.txt").read_text().count(", attempt ")


def test_needs_come_first_and_independent_jobs_run_side_by_side(tmp_path):
    here = "(folder / '{0}.here').exists()"
    meet = f"[time.sleep(0.01) for _ in range(6000) if not {here}]; {here} or sys.exit(1)"
    a = make("a", "(folder / 'a.here').write_text(''); " + meet.format("b"))
    b = make("b", "(folder / 'b.here').write_text(''); " + meet.format("a"))
    jobs = [job(tmp_path, "c", make("c"), needs=["train-a", "train-b"]), job(tmp_path, "a", a), job(tmp_path, "b", b)]
    outcomes = Inline(parallel=2).run(jobs, tmp_path)
    assert {o.state for o in outcomes.values()} == {"done"}
    times = {name: float((tmp_path / f"{name}.made").read_text()) for name in "abc"}
    assert times["c"] > max(times["a"], times["b"])


@pytest.mark.parametrize("is_there", [True, False])
def test_a_job_of_another_study_runs_where_that_was_planned(tmp_path, monkeypatch, is_there):
    planned, here = tmp_path / "planned", tmp_path / "here"
    for folder in (planned, here):
        folder.mkdir()
    (planned / "text").write_text("")
    monkeypatch.chdir(planned)
    record = job(tmp_path, "a", make("a", "open('text')"), retries=0).to_json()
    monkeypatch.chdir(here)
    if not is_there:
        planned.rename(tmp_path / "gone")
    outcome = Inline(parallel=1).run([Job.from_json(record)], tmp_path)["train-a"]
    assert outcome.state == ("done" if is_there else "failed")
    assert is_there or str(planned) in outcome.message
    del record["directory"]  # an older record: where it is run
    assert Job.from_json(record).directory == here


def test_what_is_made_already_is_not_run_again(tmp_path):
    (tmp_path / "a.made").write_text("")
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", "raise SystemExit(1)")], tmp_path)
    assert outcomes["train-a"].state == "done"
    assert not (tmp_path / "a" / "log.txt").exists()


def test_a_job_is_no_rank_of_the_shell_that_starts_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    code = make("a", "{'RANK', 'WORLD_SIZE'} & os.environ.keys() and sys.exit(2)")
    assert Inline(parallel=1).run([job(tmp_path, "a", code, retries=0)], tmp_path)["train-a"].state == "done"


LONGER_LOG = (
    "log = folder / 'a' / 'metrics.jsonl'; n = len(log.read_text().splitlines()) if log.exists() else 0; "
    "log.open('a').write(json.dumps({'step': %s}) + chr(10)); "
)


def test_a_failure_that_passes_is_retried(tmp_path):
    # each attempt gets a step further, as a job does that resumes from its last checkpoint
    further = LONGER_LOG % "n" + "n < 2 and sys.exit(9)"
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", make("a", further))], tmp_path)
    assert outcomes["train-a"].state == "done"
    assert attempts(tmp_path, "a") == 3


@pytest.mark.parametrize(("messages", "expected"), [(["at 0x5", "at 0x7"], 2), (["one", "two", "two"], 3)])
def test_the_same_failure_at_the_same_step_is_given_up_however_long_the_log_grew(tmp_path, messages, expected):
    error = "(folder / 'a' / 'error.json').write_text(json.dumps({'kind': 'crash', 'step': 50, 'message': m[n]})); "
    code = LONGER_LOG % "49" + f"m = {messages}; {error} sys.exit(1)"
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", make("a", code), retries=10)], tmp_path)
    assert outcomes["train-a"].state == "failed"
    assert attempts(tmp_path, "a") == expected


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


def test_a_job_that_cannot_be_started_fails_alone(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/log.txt").mkdir()  # where its log should be
    jobs = [job(tmp_path, "a", make("a")), job(tmp_path, "b", make("b"))]
    outcomes = Inline(parallel=1).run(jobs, tmp_path)
    assert {name: one.state for name, one in outcomes.items()} == {"train-a": "failed", "train-b": "done"}
    assert "log.txt" in outcomes["train-a"].message


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
        wait_until((tmp_path / "ready").exists)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
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


CONTROLLER = """
import sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
from test_inline import Inline, job
folder = Path({folder!r})
Inline(parallel=1).run([job(folder, "a", {code!r})], folder)
"""


def controller(folder, code, before=()):
    """Another process that runs job `a` of this folder. before: what its command begins with."""
    program = CONTROLLER.format(tests=str(Path(__file__).parent), folder=str(folder), code=code)
    command = [*before, sys.executable, "-c", program]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_until(condition):
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


SAVES_ON_TERM = (
    "import signal; stop = []; signal.signal(signal.SIGTERM, lambda *a: stop.append(1)); "
    "(folder / 'ready').write_text(''); [time.sleep(0.02) for _ in range(3000) if not stop]; "
    "(folder / 'saved').write_text(''); sys.exit(75)"
)
DEAF = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); (folder / 'ready').write_text(''); time.sleep(120)"
)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_child_saves_and_ends_when_its_controller_is_gone(tmp_path, number):
    started = controller(tmp_path, make("a", SAVES_ON_TERM))
    wait_until((tmp_path / "ready").exists)
    left = json.loads((tmp_path / "a" / "process.json").read_text())
    assert process_lives(left)
    started.send_signal(number)
    started.wait()
    if number != signal.SIGKILL:  # asked to end, it waits until its child has saved
        assert not process_lives(left)
    wait_until(lambda: not process_lives(left))
    assert (tmp_path / "saved").exists()


def test_a_closed_terminal_does_not_end_what_nohup_started(tmp_path):
    waits = "(folder / 'ready').write_text(''); [time.sleep(0.02) for _ in range(3000) if not (folder / 'go').exists()]"
    started = controller(tmp_path, make("a", waits), before=["nohup"])
    wait_until((tmp_path / "ready").exists)
    started.send_signal(signal.SIGHUP)
    (tmp_path / "go").write_text("")
    assert started.wait(600) == 0
    assert (tmp_path / "a.made").exists()
    assert attempts(tmp_path, "a") == 1


def test_a_child_that_does_not_save_in_time_is_killed_with_all_it_started(tmp_path, monkeypatch):
    """Started as the executor starts it, by a process that then closes its end of the pipe."""
    lifeline, own_end = os.pipe()
    grandchild = f"import subprocess; p = subprocess.Popen([sys.executable, '-c', {make('b', DEAF)!r}]); "
    code = make("a", grandchild + "(folder / 'pid').write_text(str(p.pid)); p.wait()")
    runner = (
        "from pretrain_exp.executor import child; import sys; child.GRACE_SECONDS = 0.2; sys.exit(child.main({!r}))"
    )
    arguments = [str(lifeline), str(tmp_path), sys.executable, "-c", code]
    process = subprocess.Popen(
        [sys.executable, "-c", runner.format(arguments)],
        env={**os.environ, "FOLDER": str(tmp_path)},
        pass_fds=[lifeline],
        start_new_session=True,
    )
    os.close(lifeline)
    wait_until((tmp_path / "ready").exists)
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    deaf = describe_process(int((tmp_path / "pid").read_text()))
    assert json.loads((tmp_path / "process.json").read_text()) == describe_process(process.pid)
    os.close(own_end)
    assert process.wait(600) < 0
    wait_until(lambda: not process_lives(deaf))
    assert not (tmp_path / "a.made").exists()


@pytest.mark.parametrize(("command", "status"), [(["sh", "-c", "kill -9 $$"], -9), (["sh", "-c", "exit 7"], 7)])
def test_the_exit_status_is_the_commands_own(tmp_path, command, status):
    lifeline, own_end = os.pipe()
    runner = [sys.executable, "-m", "pretrain_exp.executor.child", str(lifeline), str(tmp_path)]
    assert subprocess.run([*runner, *command], pass_fds=[lifeline], check=False).returncode == status
    os.close(own_end)
    os.close(lifeline)


def test_a_command_that_is_not_there_fails_and_is_named(tmp_path):
    lacking = replace(job(tmp_path, "a", ""), command=("/no/such/python", "-c", "pass"))
    outcomes = Inline(parallel=1).run([lacking], tmp_path)
    assert "/no/such/python: No such file" in outcomes["train-a"].message


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


def test_what_needs_a_failed_job_by_way_of_others_is_skipped(tmp_path):
    jobs = [job(tmp_path, name, make(name), [f"train-{need}"] if need else []) for name, need in ("dc", "cb", "ba")]
    jobs.append(job(tmp_path, "a", "raise SystemExit(1)", retries=0))
    outcomes = Inline(parallel=2).run(jobs, tmp_path)
    assert [outcomes[f"train-{name}"].state for name in "abcd"] == ["failed", "skipped", "skipped", "skipped"]


def test_an_interrupt_ends_the_wait_for_anothers_claim(tmp_path, monkeypatch):
    with claims.claimed(tmp_path, "train-a"), monkeypatch.context() as patched:
        patched.setattr(inline.time, "sleep", lambda seconds: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            Inline(parallel=1).run([job(tmp_path, "a", make("a"))], tmp_path)
    assert not (tmp_path / "a.made").exists()


@pytest.mark.parametrize(("seconds", "interrupts"), [(0.2, 1), (600.0, 2)])
def test_a_child_that_does_not_save_is_killed_in_time_or_at_a_second_interrupt(tmp_path, seconds, interrupts, capfd):
    executor = Inline(parallel=1, save_seconds=seconds)

    def interrupt():
        wait_until((tmp_path / "ready").exists)
        os.kill(os.getpid(), signal.SIGINT)
        if interrupts == 2:  # as soon as the first is known of
            wait_until(executor._stop.is_set)
            os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=interrupt, daemon=True)
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        executor.run([job(tmp_path, "a", make("a", DEAF))], tmp_path)
    sender.join()
    assert not (tmp_path / "a" / "process.json").exists()
    if interrupts == 1:  # else the second may come before it is said
        assert f"for at most {seconds:.0f} s; Ctrl-C again" in " ".join(capfd.readouterr().err.split())


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(1)"])
def test_what_reads_a_file_starts_when_it_is_there_while_its_maker_goes_on(tmp_path, end):
    """An evaluation of a state that training has left behind, whether training ends well or not."""
    waits = "[time.sleep(0.01) for _ in range(6000) if not (folder / 'eval.made').exists()]"
    training = f"(folder / 'state').write_text(''); {waits}; {end}"
    trains = job(tmp_path, "train", make("train", training), retries=0)
    scores = replace(job(tmp_path, "eval", make("eval"), ["train-train"]), reads=(tmp_path / "state",))
    outcomes = Inline(parallel=2).run([trains, scores], tmp_path)
    assert outcomes["train-eval"].state == "done"
    assert (tmp_path / "train.made").exists() == (end == "pass")
    if end == "pass":
        assert float((tmp_path / "train.made").read_text()) > float((tmp_path / "eval.made").read_text())
    assert Job.from_json(scores.to_json()).reads == scores.reads


def test_what_reads_a_file_that_a_failed_job_did_not_make_is_skipped(tmp_path):
    trains = job(tmp_path, "train", "raise SystemExit(1)", retries=0)
    scores = replace(job(tmp_path, "eval", make("eval"), ["train-train"]), reads=(tmp_path / "state",))
    outcomes = Inline(parallel=2).run([trains, scores], tmp_path)
    assert [outcomes[name].state for name in ("train-train", "train-eval")] == ["failed", "skipped"]
