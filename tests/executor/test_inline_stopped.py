"""The inline executor and what ends it: signals, a killed controller, children that do not save."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from inline_jobs import DEAF, SAVES_ON_TERM, attempts, controller, job, make, wait_until

from pretrain_exp.executor import inline
from pretrain_exp.executor.inline import Inline
from pretrain_exp.store import claims
from pretrain_exp.store.process import describe_process, process_lives


def test_an_interrupt_lets_children_save_and_ends(tmp_path):
    def interrupt():
        wait_until((tmp_path / "ready").exists)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        Inline(parallel=1).run([job(tmp_path, "a", make("a", SAVES_ON_TERM))], tmp_path)
    assert (tmp_path / "saved").exists()
    assert not (tmp_path / "a.made").exists()
    assert not (tmp_path / "a" / "process.json").exists()


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


def test_an_interrupt_ends_the_wait_for_anothers_claim(tmp_path, monkeypatch):
    with claims.claimed(tmp_path, "train-a"), monkeypatch.context() as patched:
        interrupts = SimpleNamespace(sleep=lambda _: os.kill(os.getpid(), signal.SIGINT), monotonic=time.monotonic)
        patched.setattr(inline, "time", interrupts)  # the executor's own alone: no other thread's sleep is meant
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
