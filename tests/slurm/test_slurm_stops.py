"""Every way in which a job is stopped on a real Slurm: it saves, comes back and goes on, or is said to have failed."""

from __future__ import annotations

import json
import subprocess

import pytest
from slurm_jobs import SMALL, counting_job, log_of, number_of, rank_job, wait_for, wait_until_ended

from pretrain_exp.executor.base import Job
from pretrain_exp.executor.slurm import Slurm
from pretrain_exp.executor.slurm_queue import look
from pretrain_exp.executor.slurm_status import standings

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def stopped(slurm, tmp_path_factory) -> dict[str, Job]:
    """Jobs that were all stopped while they ran, each in its way, side by side since Slurm takes its time."""
    store = tmp_path_factory.mktemp("stopped")

    def start(key: str, steps: int = 3_000, needs: tuple[Job, ...] = (), deaf: bool = False, **fields) -> Job:
        job = counting_job(store, key, steps, 0.1, needs, deaf=deaf)
        Slurm(**{**SMALL, **fields}).run([*needs, job], store)
        return job

    first, second = {"extra": {"nodelist": "n1"}}, {"extra": {"nodelist": "n2", "exclusive": True}}
    jobs = {
        # Slurm looks every 30 s and signals early rather than late: 30 s before the end of one minute is within 30 s
        "time limit": start("limit", 320, time=1, signal_delay_s=30, **first),
        "deaf": start("deaf", 10_000, deaf=True, time=1, **first),
        "scancel --signal=USR2": start("usr2", **first),
        "scancel --signal=TERM": start("term", **first),
        "scontrol requeue": start("requeue", **first),
        "preemption": start("preempted", **second),
    }
    jobs["child of deaf"] = start("child", 1, needs=(jobs["deaf"],), **first)
    for way, job in jobs.items():
        if way != "child of deaf":
            wait_for((job.folder / "metrics.jsonl").is_file, why=way)
    high = [
        "sbatch",
        "--partition=high",
        "--nodelist=n2",
        "--exclusive",
        "--mem=100",
        "--output=/dev/null",
        "--wrap=sleep 1",
    ]
    subprocess.run(["scancel", "--signal=USR2", number_of(jobs["scancel --signal=USR2"])], check=True)
    subprocess.run(["scancel", "--signal=TERM", number_of(jobs["scancel --signal=TERM"])], check=True)
    subprocess.run(["scontrol", "requeue", number_of(jobs["scontrol requeue"])], check=True)
    subprocess.run(high, check=True, capture_output=True)
    return jobs


WAYS = ["scancel --signal=USR2", "scancel --signal=TERM", "scontrol requeue", "preemption", "time limit"]


@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_job_saves_requeues_itself_and_goes_on_from_there(stopped, way):
    job = stopped[way]
    assert list(wait_until_ended(job).values()) == ["COMPLETED"], log_of(job)
    done = json.loads(job.makes[0].read_text())
    assert done["steps"] == job.total
    assert len(done["starts"]) > 1, log_of(job)
    assert done["starts"][0] == 0
    assert done["starts"][-1 if way == "time limit" else 1] > 0  # Slurm may tell of the time before the first step
    # each step was done once: nothing was lost and nothing was done again
    steps = [json.loads(line)["step"] for line in (job.folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(job.total))


def test_two_nodes_meet_save_together_on_a_signal_and_go_on(slurm, tmp_path):
    job = rank_job(tmp_path, "ranks", steps=600, seconds=0.5)
    Slurm(**{**SMALL, "nodes": 2, "gpus_per_node": 2, "cpus_per_task": 2}).run([job], tmp_path)
    ranks = [job.folder / f"rank{rank}.json" for rank in range(4)]
    wait_for((job.folder / "metrics.jsonl").is_file, why=log_of(job))  # its first step is behind all ranks
    seen = [json.loads(path.read_text()) for path in ranks]
    subprocess.run(["scancel", "--signal=USR2", number_of(job)], check=True)
    assert list(wait_until_ended(job).values()) == ["COMPLETED"], log_of(job)
    done = json.loads(job.makes[0].read_text())
    assert done["sum"] == 600 * (1 + 2 + 3 + 4)
    assert done["starts"] == [0, done["starts"][1]]
    assert done["starts"][1] > 0
    # torchrun outlived the signal and waited for its ranks
    assert "User defined signal" not in (job.folder / "log.txt").read_text()
    assert sorted((rank["SLURM_NODEID"], rank["LOCAL_RANK"]) for rank in seen) == [
        ("0", "0"),
        ("0", "1"),
        ("1", "0"),
        ("1", "1"),
    ]
    # the devices that Slurm gave, all of them to every rank of the node, which picks its own by LOCAL_RANK
    assert {rank["CUDA_VISIBLE_DEVICES"] for rank in seen} == {"0,1"}
    assert {rank["MASTER_ADDR"] for rank in seen} == {"127.0.0.1"}
    assert {rank["device"] for rank in seen} == {"cuda"}


def test_a_rank_that_is_killed_on_one_of_two_nodes_is_tried_again(slurm, tmp_path):
    job = Job(**{**vars(rank_job(tmp_path, "ranks", steps=600, seconds=0.5)), "retries": 1})
    Slurm(**{**SMALL, "nodes": 2, "ranks_per_node": 1}).run([job], tmp_path)
    wait_for((job.folder / "metrics.jsonl").is_file, why=log_of(job))
    pid = json.loads((job.folder / "rank1.json").read_text())["pid"]
    subprocess.run(["kill", "-KILL", str(pid)], check=True)
    assert list(wait_until_ended(job).values()) == ["COMPLETED"], log_of(job)
    assert "--- attempt 2" in (job.folder / "log.txt").read_text()


def test_a_job_that_ran_out_of_time_is_no_success(stopped):
    """Last in this file, since Slurm takes more than a minute to end a job of one minute."""
    deaf, child = stopped["deaf"], stopped["child of deaf"]
    assert wait_until_ended(deaf, child) == {"deaf": "TIMEOUT", "child": "CANCELLED"}
    told = standings([deaf, child])
    assert told[deaf.id][0] == "failed"
    assert f"Slurm job {number_of(deaf)} ended (TIMEOUT)" in told[deaf.id][1]
    assert told[child.id] == ("skipped", "needs count deaf, which was failed")
    assert not child.folder.joinpath("log.txt").exists()
    assert look([number_of(child)])[number_of(child)].state == "CANCELLED"
