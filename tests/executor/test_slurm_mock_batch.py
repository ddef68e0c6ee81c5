"""The batch side of a job: requeued, given up, done; and the command of its step."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mock_slurm import job

import pretrain_exp
from pretrain_exp.executor import slurm_agent, slurm_job
from pretrain_exp.executor.slurm import Slurm
from pretrain_exp.executor.slurm_files import (
    Attempts,
    read_attempts,
    write_spec,
)
from pretrain_exp.framework.ranked import START


@pytest.fixture
def batch(mock, tmp_path, monkeypatch):
    """batch(shell command, fields of Job) --> the batch side of a job; srun runs its command here."""
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGCONT)}

    def make(command: str, **fields) -> slurm_job.Batch:
        one = job(tmp_path, "a", command=("sh", "-c", command), **fields)
        write_spec(one, tmp_path, Slurm(gpus_per_node=0, time=10).resources("train"))
        return slurm_job.Batch(one.folder)

    yield make
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_stopped_job_requeues_itself_and_stays_until_slurm_ends_it(batch, mock, monkeypatch):
    monkeypatch.setattr(slurm_job, "REQUEUE_SECONDS", 0.0)
    made = batch("exit 75")
    assert made.run() == 75
    assert (mock / "control").read_text() == "requeue 5\n"
    assert read_attempts(made.folder).failures == 0


@pytest.mark.parametrize("code", [128 + signal.SIGTERM, 128 + signal.SIGUSR2, 256 - signal.SIGUSR2])
def test_a_process_that_dies_of_the_signal_was_stopped_not_wrong(batch, mock, monkeypatch, code):
    monkeypatch.setattr(slurm_job, "REQUEUE_SECONDS", 0.0)
    assert batch(f"exit {code}").run() == 75
    assert (mock / "control").exists()


@pytest.mark.parametrize("squeue", ["answers", "silent"])
def test_a_job_that_cannot_be_requeued_fails_and_says_so(batch, mock, monkeypatch, squeue):
    (mock / "refuse").write_text("scontrol: error: Requested operation is presently disabled\n")
    (mock / "queue").write_text("5|RUNNING|None|n1\n")
    if squeue == "silent":
        (mock / "silent").touch()
        monkeypatch.setattr(slurm_job, "REQUEUE_SECONDS", 0.0)
    made = batch("exit 75")
    assert made.run() == 1
    assert "could not be requeued (scontrol failed: Requested operation" in read_attempts(made.folder).given_up


@pytest.mark.parametrize("squeue", ["answers", "silent"])
def test_a_controller_that_was_away_requeues_the_job_when_it_is_back(batch, mock, monkeypatch, squeue):
    """squeue may answer again when scontrol just did not. In the end Slurm ends the batch script."""
    times = {"answers": 2, "silent": 4}[squeue]
    away = f"[ $(wc -l <control) -ge {times} ] || {{ echo 'Unable to contact slurm controller' >&2; exit 1; }}"
    (mock / "scontrol").write_text(f'#!/bin/sh\ncd {mock}\necho "$@" >>control\n{away}\nkill -TERM $PPID\n')
    (mock / "queue").write_text("5|RUNNING|None|n1\n")
    if squeue == "silent":
        (mock / "silent").touch()
    made = batch("exit 75")
    assert made.run() == 75
    assert (mock / "control").read_text() == times * "requeue 5\n"
    assert not read_attempts(made.folder).given_up


def test_a_job_that_never_gets_anywhere_within_its_time_is_given_up(batch, mock, monkeypatch):
    monkeypatch.setattr(slurm_job, "REQUEUE_SECONDS", 0.0)
    codes = []
    for _ in range(3):
        made = batch("exit 75")
        made.deadline = 0.0
        codes.append(made.run())
    assert codes == [75, 75, 1]
    assert "10 min were over 2 times in a row without a step of progress" in read_attempts(made.folder).given_up


def test_a_job_that_something_stops_again_and_again_is_given_up_in_the_end(batch, mock, monkeypatch):
    monkeypatch.setattr(slurm_job, "REQUEUE_SECONDS", 0.0)
    monkeypatch.setattr(slurm_job, "IDLE_STOPS", 2)
    assert [batch("exit 143").run() for _ in range(3)] == [75, 75, 1]


def test_near_the_end_of_its_time_a_job_is_requeued_instead_of_waiting(batch, mock, monkeypatch):
    monkeypatch.setattr(slurm_job, "REQUEUE_SECONDS", 0.0)
    made = batch("exit 1", retries=3, retry_seconds=600.0)
    made.deadline -= 10 * 60 - 120 - 30
    assert made.run() == 75
    assert read_attempts(made.folder).failures == 1


def test_a_job_is_done_when_what_it_makes_is_there_and_only_then(batch, tmp_path):
    lying = batch("exit 0")
    assert lying.run() == 1
    assert "exit status 0" in read_attempts(lying.folder).given_up
    assert batch(f"echo x >>{tmp_path}/ran; touch {tmp_path}/a.json; exit 3").run() == 0
    assert batch(f"echo x >>{tmp_path}/ran").run() == 0
    assert (tmp_path / "ran").read_text() == "x\n"


def test_a_failure_is_known_again_by_its_way_and_step_not_by_its_numbers(tmp_path):
    def print_of(message: str, step: int | None, code: int = 1, furthest: int = 7) -> str:
        (tmp_path / "error.json").write_text(json.dumps({"message": message, "step": step}))
        return slurm_job.fingerprint(tmp_path, code, furthest)

    first = print_of("timeout on 10.0.0.3:4242\nmore", 5)
    assert first == print_of("timeout on 10.1.0.3:17\nother", 5)
    assert first != print_of("timeout on 10.0.0.3:4242", 6)
    assert first != print_of("out of memory", 5)
    assert print_of("x", None, furthest=7) != print_of("x", None, furthest=8)
    (tmp_path / "error.json").unlink()
    assert slurm_job.fingerprint(tmp_path, 137, 7) != slurm_job.fingerprint(tmp_path, 1, 7)


def test_the_command_of_a_step(mock, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    one = job(tmp_path, "a", rank_command=("/its/python", "-m", "worker", "{device}"))
    write_spec(one, tmp_path, Slurm(nodes=2, gpus_per_node=4, cpus_per_task=32).resources("train"))
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    planned = Path.cwd()
    monkeypatch.chdir(tmp_path)  # somebody else's
    made = slurm_job.Batch(one.folder)
    command = slurm_job.step_command(made.spec, "5", 3)
    assert command[0] == "srun"
    asked = {"--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=32", "--cpu-bind=none", f"--chdir={planned}"}
    assert asked <= set(command)
    agent = command[command.index("/its/python") :]
    assert agent[:5] == ["/its/python", START, "pretrain_exp.executor.slurm_agent", "--nodes=2", "--ranks=4"]
    assert "--id=5-2-3" in agent
    assert agent[agent.index("--") + 1 :] == ["/its/python", "-m", "worker", "cuda"]
    assert slurm_job.port_of("5", 3) != slurm_job.port_of("5", 4)


def test_attempts_outlive_a_requeue(batch):
    made = batch("exit 1", retries=0)
    assert read_attempts(made.folder) == Attempts()
    made.run()
    again = batch("exit 1")
    assert again.attempts.attempts == 1
    assert again.attempts.failures == 1


def test_the_address_where_nodes_meet_needs_no_name_that_resolves(mock, monkeypatch):
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.3")
    assert slurm_agent.master_address() == "10.0.0.3"
    monkeypatch.delenv("SLURM_LAUNCH_NODE_IPADDR")
    assert slurm_agent.master_address() == "127.0.0.1"
    (mock / "scontrol").write_text("#!/bin/sh\n[ \"$*\" = 'show hostnames n[1-2]' ] && printf 'n1\\nn2\\n'")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    assert slurm_agent.master_address() == "n1"
    assert slurm_agent.own_address("127.0.0.1") == "127.0.0.1"


def test_the_agent_imports_nothing_but_the_standard_library_until_it_runs():
    """It runs in the Python of a framework, which may have none of our dependencies."""
    code = "import sys, pretrain_exp.executor.slurm_agent; print(*{m.split('.')[0] for m in sys.modules})"
    found_from = Path(pretrain_exp.__file__).parents[1]  # -S: it is not installed
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=found_from
    )
    ours = [name for name in done.stdout.split() if name not in sys.stdlib_module_names]
    assert [name for name in ours if not name.startswith("_")] == ["pretrain_exp"]
