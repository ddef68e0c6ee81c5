"""Jobs in a queue that only pretends: waited for, looked at, cancelled."""

from __future__ import annotations

import pytest
from mock_slurm import job
from rich.console import Console

from pretrain_exp.executor import slurm
from pretrain_exp.executor.slurm import Slurm
from pretrain_exp.executor.slurm_files import (
    Submission,
    write_submission,
)
from pretrain_exp.executor.slurm_queue import Queued, alive, look
from pretrain_exp.executor.slurm_site import SlurmError, minutes, partitions
from pretrain_exp.executor.slurm_status import cancel_jobs, standings
from pretrain_exp.study.registry import write_study
from pretrain_exp.study.status import print_status
from pretrain_exp.verbs import read_verb


def test_who_waits_goes_on_when_squeue_was_away(mock, tmp_path, monkeypatch, capsys):
    """It answers when it was asked four times: jobs in the queue have not ended by that."""
    one = job(tmp_path, "a")
    away = "echo x >>asked; [ $(wc -l <asked) -ge 4 ] || { echo 'Unable to contact slurm controller' >&2; exit 1; }"
    (mock / "squeue").write_text(f"#!/bin/sh\ncd {mock}\n{away}\ntouch {one.makes[0]}; echo '1|COMPLETED|None|n1'\n")
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.0)
    assert Slurm(gpus_per_node=0, wait=True).run([one], tmp_path)[one.id].state == "done"
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("Unable to contact slurm controller") == 1


def test_who_waits_follows_a_job_that_another_call_submits_anew(mock, tmp_path, monkeypatch):
    """Its first number fails when it is asked for the second time, and is 9 by then, which makes the file."""
    one = job(tmp_path, "a")
    anew = f"""sed -i 's/"id": "1"/"id": "9"/' {one.folder}/slurm.json"""
    first = f"case $(wc -l <asked) in 1) echo '1|RUNNING|None|n1';; *) {anew}; echo '1|FAILED|None|n1';; esac"
    new = f"touch {one.makes[0]}; echo '9|COMPLETED|None|n1'"
    ask = f"echo x >>asked; case $* in *jobs=9*) {new};; *) {first};; esac"
    (mock / "squeue").write_text(f"#!/bin/sh\ncd {mock}\n{ask}\n")
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.0)
    assert Slurm(gpus_per_node=0, wait=True).run([one], tmp_path)[one.id].state == "done"


def test_where_squeue_does_not_answer_nothing_is_taken_for_ended(mock, tmp_path):
    one = job(tmp_path, "a")
    write_submission(one.folder, Submission("41", 0.0, [], {}))
    (mock / "silent").touch()
    with pytest.raises(SlurmError, match="squeue failed: Unable to contact slurm controller"):
        Slurm(gpus_per_node=0).run([one], tmp_path)
    assert (mock / "count").read_text() == "0"
    assert standings([one])[one.id][0] == "unknown"


@pytest.mark.parametrize(
    ("time", "expected"),
    [(90, 90), ("90", 90), ("1:30", 2), ("1:30:00", 90), ("1-2", 1560), ("1-2:30", 1590), ("1-00:00:01", 1441)],
)
def test_minutes(time, expected):
    assert minutes(time) == expected


def test_partitions_and_their_limits(mock):
    assert {name: partition.limit for name, partition in partitions().items()} == {"gpu": 120, "cpu": None}


def test_a_busy_controller_is_asked_again(mock):
    (mock / "queue").write_text("7|RUNNING|None|node1\n")
    (mock / "busy").touch()
    assert alive(["7"]) == {"7"}
    assert not (mock / "busy").exists()


def test_the_queue(mock):
    (mock / "queue").write_text("1|RUNNING|None|n[1-2]\n2|COMPLETED|None|n1\n3|SOMETHING_NEW|None|\n")
    assert look(["1"])["1"] == Queued("RUNNING", "None", "n[1-2]")
    # a state that a later Slurm invents is not taken for an end
    assert alive(["1", "2", "3", "4"]) == {"1", "3"}
    assert look([]) == {}


def test_cancel_ends_what_waits_and_asks_what_runs_and_insists_the_second_time(mock, tmp_path):
    jobs = [job(tmp_path, key) for key in ("runs", "waits", "ended")]
    for number, one in enumerate(jobs, 1):
        (one.folder / "slurm").mkdir()
        write_submission(one.folder, Submission(str(number), 0.0, [], {}))
    (mock / "queue").write_text("1|RUNNING|None|n1\n2|PENDING|Dependency|\n3|FAILED|None|n1\n")
    assert len(cancel_jobs(jobs)) == 2
    assert (mock / "cancelled").read_text() == "--signal=USR2 1\n2\n"
    cancel_jobs(jobs[:1])
    assert (mock / "cancelled").read_text().endswith("\n1\n")


def test_status_logs_and_cancel_of_a_study_in_the_queue(mock, tmp_path, capsys):
    train = job(tmp_path, "t")
    jobs = [train, job(tmp_path, "e", train, kind="evaluate")]
    Slurm(gpus_per_node=0).run(jobs, tmp_path)
    (mock / "queue").write_text("1|RUNNING|None|n[1-2]\n2|PENDING|Dependency|\n")
    record = {"title": "x", "store": str(tmp_path), "status": "running", "reused": [], "members": []}
    write_study(tmp_path / "study", {**record, "jobs": [one.record() for one in jobs], "controller": None})
    console = Console(width=200, record=True)
    assert print_status(tmp_path / "study", console)
    shown = console.export_text()
    assert "Slurm job 1 on n[1-2]" in shown
    assert "Slurm job 2: Dependency" in shown
    (train.folder / "slurm" / "1_0_log.out").write_text("module: command not found\n")
    capsys.readouterr()
    assert read_verb("logs", [str(tmp_path / "study"), "train-t"]) == 0
    assert capsys.readouterr().out == "module: command not found\n"
    assert read_verb("cancel", [str(tmp_path / "study")]) == 0
    assert (mock / "cancelled").read_text() == "--signal=USR2 1\n2\n"
    (mock / "queue").write_text("1|FAILED|None|n1\n")
    assert not print_status(tmp_path / "study", console)
    assert console.export_text().count("cancelled") >= 2
