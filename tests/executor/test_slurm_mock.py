"""Submission to a Slurm that only pretends: what sbatch is asked, and what happens when it says no."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace

import pytest
from mock_slurm import job, options

from pretrain_exp.errors import UserError
from pretrain_exp.executor import slurm
from pretrain_exp.executor.slurm import Slurm, in_order
from pretrain_exp.executor.slurm_files import (
    Submission,
    read_submission,
    write_submission,
)
from pretrain_exp.executor.slurm_site import SlurmError


def test_each_job_asks_for_its_own_resources_and_depends_on_what_it_needs(mock, tmp_path):
    train = job(tmp_path, "t")
    evaluation = job(tmp_path, "e", train, kind="evaluate")
    report = job(tmp_path, "r", train, evaluation, kind="report")
    executor = Slurm(
        nodes=2,
        gpus_per_node=8,
        time="1:30:00",
        partition="gpu",
        cpu_partition="cpu",
        account="lab",
        extra={"mail_type": "FAIL", "exclusive": True},
        evaluate={"time": 20},
        report={"mem": "2G"},
        setup=("module load cuda",),
    )
    executor.run([report, evaluation, replace(train, rank_command=("python", "rank.py"))], tmp_path)
    asked = [options(mock, number) for number in (1, 2, 3)]
    assert [one["job-name"] for one in asked] == ["train-t", "evaluate-e", "report-r"]
    assert [one.get("dependency") for one in asked] == [None, "afterok:1", "afterany:1:2"]
    assert [one["nodes"] for one in asked] == ["2", "1", "1"]
    assert [one.get("gpus-per-node") for one in asked] == ["8", "1", None]
    assert [one["time"] for one in asked] == ["90", "20", "90"]
    assert [one["partition"] for one in asked] == ["gpu", "gpu", "cpu"]
    assert [one.get("mem") for one in asked] == [None, None, "2G"]
    assert {one["signal"] for one in asked} == {"USR2@120"}
    assert {one["account"] for one in asked} == {"lab"}
    assert asked[0]["mail-type"] == "FAIL"
    assert all("requeue" in one and one["kill-on-invalid-dep"] == "yes" for one in asked)
    # sites without keys refuse one
    assert not any("wckey" in one for one in asked)
    script = (mock / "script.1").read_text()
    assert "\nmodule load cuda\n" in script
    assert f"exec {sys.executable} -u -m submitit.core._submit" in script


def test_no_variable_of_a_job_that_submits_reaches_sbatch_or_the_other_way_round(mock, tmp_path, monkeypatch):
    given = {
        "SLURM_JOB_ID": "7",
        "SLURM_CPU_BIND": "cores",
        "SLURM_CONF": "/etc/x",
        "RANK": "3",
        "SBATCH_ACCOUNT": "lab",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    Slurm(gpus_per_node=0).run([job(tmp_path, "t")], tmp_path)
    seen = dict(line.partition("=")[::2] for line in (mock / "environment.1").read_text().splitlines())
    assert given.keys() & seen.keys() == {"SLURM_CONF", "SBATCH_ACCOUNT"}
    assert {name: os.environ[name] for name in given} == given


def test_a_submission_that_fails_midway_takes_back_those_before(mock, tmp_path):
    (mock / "fail_at").write_text("3")
    first = job(tmp_path, "a")
    jobs = [first, job(tmp_path, "b", first), job(tmp_path, "c", first)]
    with pytest.raises(SlurmError, match="sbatch refused c: sbatch: error: Node count invalid"):
        Slurm(gpus_per_node=0).run(jobs, tmp_path)
    assert (mock / "cancelled").read_text() == "1 2\n"
    assert [read_submission(one.folder) for one in jobs] == [None] * 3


def test_what_another_job_depends_on_by_now_is_not_taken_back_nor_what_that_needs(mock, tmp_path):
    """Between its submission and the failure of a later one, another study found job 2 alive, and needs it."""
    (mock / "fail_at").write_text("4")
    first = job(tmp_path, "a")
    second = job(tmp_path, "b", first)
    (mock / "queue").write_text("1|\n2|afterok:1(unfulfilled)\n3|afterok:1(unfulfilled)\n9|afterok:12:2(unfulfilled)\n")
    jobs = [first, second, job(tmp_path, "c", first), job(tmp_path, "d", first)]
    with pytest.raises(SlurmError, match="sbatch refused d"):
        Slurm(gpus_per_node=0).run(jobs, tmp_path)
    assert (mock / "cancelled").read_text() == "3\n"
    kept = [found.id if (found := read_submission(one.folder)) else None for one in jobs]
    assert kept == ["1", "2", None, None]


def test_a_job_that_lives_is_not_submitted_again_but_depended_upon(mock, tmp_path):
    first = job(tmp_path, "a", payload={"steps": 1})
    second = job(tmp_path, "b", first, payload={"steps": 2})
    write_submission(first.folder, Submission("41", 0.0, [], {}))
    (mock / "queue").write_text("41|PENDING|Priority|\n")
    outcomes = Slurm(gpus_per_node=0).run([first, second], tmp_path)
    # nor is what it reads written under its hands
    assert not (first.folder / "job.json").exists()
    assert json.loads((second.folder / "job.json").read_text()) == {"steps": 2}
    assert (mock / "count").read_text().strip() == "1"
    assert options(mock, 1)["dependency"] == "afterok:41"
    assert {key: outcome.state for key, outcome in outcomes.items()} == {"train-a": "submitted", "train-b": "submitted"}


def test_what_is_done_is_not_submitted_and_what_ended_is_submitted_anew(mock, tmp_path):
    done, ended = job(tmp_path, "done"), job(tmp_path, "ended")
    done.makes[0].touch()
    write_submission(ended.folder, Submission("41", 0.0, [], {}))
    (ended.folder / "slurm").mkdir()
    (ended.folder / "slurm" / "cancelled").touch()
    (mock / "queue").write_text("41|FAILED|NonZeroExitCode|n1\n")
    outcomes = Slurm(gpus_per_node=0).run([done, ended, job(tmp_path, "next", done, ended)], tmp_path)
    assert outcomes["train-done"].state == "done"
    assert read_submission(ended.folder).id == "1"
    assert not (ended.folder / "slurm" / "cancelled").exists()
    assert options(mock, 2)["dependency"] == "afterok:1"


@pytest.mark.parametrize(("queue", "number"), [("2|PENDING|Priority|\n", "2"), ("2|FAILED|None|\n", "3")])
def test_what_a_call_submitted_that_was_killed_before_it_could_note_it(mock, tmp_path, monkeypatch, queue, number):
    first, second = job(tmp_path, "a"), job(tmp_path, "b")
    executor = Slurm(gpus_per_node=0)
    executor.run([first], tmp_path)
    (mock / "queue").write_text("1|FAILED|None|\n")
    with monkeypatch.context() as patched:
        patched.setattr(slurm, "write_submission", lambda *_: os._exit(0))
        if not (pid := os.fork()):
            try:
                executor.run([first], tmp_path)
            finally:
                os._exit(1)  # the tests go on in one process only
    assert os.waitpid(pid, 0)[1] == 0
    assert (read_submission(first.folder).id, (mock / "count").read_text()) == ("1", "2\n")
    (mock / "queue").write_text("1|FAILED|None|\n" + queue)
    executor.run([first, replace(second, needs=frozenset({first.id}))], tmp_path)
    assert read_submission(first.folder).id == number
    assert options(mock, int(number) + 1)["dependency"] == f"afterok:{number}"


def test_jobs_are_put_in_the_order_of_their_needs(tmp_path):
    first = job(tmp_path, "a")
    second = job(tmp_path, "b", first)
    assert in_order([second, first]) == [first, second]
    with pytest.raises(UserError, match="2 jobs need each other"):
        in_order([second, replace(first, needs=frozenset({second.id}))])
