"""Graphs of jobs on a real Slurm: each is submitted once, by whoever comes first, and what fails is said and mended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from slurm_jobs import FOUR, HERE, SIX, counting_job, log_of, number_of, sweep, wait_for, wait_until_ended

from pretrain_exp.errors import Problems
from pretrain_exp.executor.slurm_files import read_attempts
from pretrain_exp.executor.slurm_queue import look
from pretrain_exp.executor.slurm_status import cancel_jobs, standings
from pretrain_exp.store.process import describe_process, process_lives
from pretrain_exp.store.states import write_json

pytestmark = pytest.mark.slurm


def all_numbers() -> set[str]:
    shown = subprocess.run(["squeue", "-h", "-t", "all", "-o", "%A"], capture_output=True, text=True, check=True)
    return set(shown.stdout.split())


def saved_steps(job) -> int:
    path = job.folder / "saved.json"
    return json.loads(path.read_text())["steps"] if path.is_file() else 0


def test_a_sweep_of_six_members_submits_each_segment_once_and_a_second_time_nothing(submit, tmp_path):
    jobs = sweep(tmp_path, SIX)
    # of each of two seeds: the first step of all, the second of aa and ab, the third of each of these, and both of bb
    assert len(jobs) == 2 * 5
    before = all_numbers()
    numbers = submit(jobs)
    assert all_numbers() - before == set(numbers.values())
    assert len(numbers) == 10
    again = submit(sweep(tmp_path, SIX))
    assert again.items() <= numbers.items()
    assert set(wait_until_ended(*jobs).values()) == {"COMPLETED"}
    assert all(job.done() for job in jobs)
    assert submit(sweep(tmp_path, SIX)) == {}
    assert all_numbers() - before == set(numbers.values())
    assert {state for state, _ in standings(jobs).values()} == {"done"}


def test_four_controllers_at_once_submit_each_job_once(slurm, tmp_path):
    before = all_numbers()
    command = [sys.executable, str(HERE / "slurm_jobs.py"), str(tmp_path), "main"]
    controllers = [subprocess.Popen(command) for _ in range(4)]
    assert [controller.wait(600) for controller in controllers] == [0] * 4
    assert len(all_numbers() - before) == 2 * 3
    jobs = sweep(tmp_path, FOUR)
    assert set(wait_until_ended(*jobs).values()) == {"COMPLETED"}


def test_kill_9_fails_the_job_and_names_the_reason_and_the_next_submission_goes_on(submit, tmp_path):
    victim = counting_job(tmp_path, "victim", 3_000, 0.1, save_every=2)
    child = counting_job(tmp_path, "child", 1, needs=(victim,))
    report = counting_job(tmp_path, "report", 1, needs=(victim, child), kind="report")
    jobs = [victim, child, report]
    first = submit(jobs)
    wait_for(lambda: saved_steps(victim) >= 4)
    os.kill(int((victim.folder / "pid").read_text()), signal.SIGKILL)
    assert wait_until_ended(*jobs) == {"victim": "FAILED", "child": "CANCELLED", "report": "COMPLETED"}
    told = standings(jobs)
    assert told[victim.id][0] == "failed"
    assert "exit status 137" in told[victim.id][1]
    assert told[child.id] == ("skipped", "needs count victim, which was failed")
    report.makes[0].unlink()
    second = submit(jobs)
    assert not set(second.values()) & set(first.values())
    assert set(wait_until_ended(*jobs).values()) == {"COMPLETED"}
    starts = json.loads(victim.makes[0].read_text())["starts"]
    assert starts[0] == 0
    assert starts[1] >= 4


def test_what_may_pass_is_retried_from_the_checkpoint_and_what_does_not_is_not(submit, tmp_path):
    once = {"step": 2, "times": 1, "message": "NCCL timeout on port 1234", "kind": "crash"}
    jobs = {
        "passes": counting_job(tmp_path, "passes", retries=3, fail=once),
        "repeats": counting_job(tmp_path, "repeats", retries=9, fail={**once, "times": 99}),
        "user": counting_job(tmp_path, "user", retries=9, fail={**once, "kind": "user", "message": "lr is wrong"}),
        "never": counting_job(tmp_path, "never", retries=0, fail=once),
    }
    submit(list(jobs.values()))
    ended = wait_until_ended(*jobs.values())
    assert ended == {"passes": "COMPLETED", "repeats": "FAILED", "user": "FAILED", "never": "FAILED"}
    assert json.loads(jobs["passes"].makes[0].read_text())["starts"] == [0, 2]
    assert {key: read_attempts(job.folder).attempts for key, job in jobs.items()} == {
        "passes": 2,
        "repeats": 2,
        "user": 1,
        "never": 1,
    }
    told = standings(list(jobs.values()))
    assert told[jobs["repeats"].id][1].startswith("failed twice in the same way at the same step")
    assert told[jobs["user"].id] == ("failed", "lr is wrong")


def test_a_job_whose_claim_is_lost_ends_its_step_and_waits_for_the_claim(submit, tmp_path):
    """As after a node was suspended for longer than others wait. The program is deaf to signals: srun must end it."""
    job = counting_job(tmp_path, "a", 3_000, 0.1, deaf=True)
    submit([job])
    wait_for((job.folder / "metrics.jsonl").is_file)
    taken = tmp_path / "claims" / job.id / "2.json"
    write_json(taken, {"owner": "other", **describe_process()})
    writer = describe_process(int((job.folder / "pid").read_text()))
    wait_for(lambda: not process_lives(writer), why=log_of(job))
    assert look([number_of(job)])[number_of(job)].state == "RUNNING"
    assert "attempt 2" not in (job.folder / "log.txt").read_text()
    changed = json.loads((job.folder / "job.json").read_text()) | {"steps": 1}
    write_json(job.folder / "job.json", changed)
    write_json(taken, {"owner": None})
    assert wait_until_ended(job) == {"a": "COMPLETED"}, log_of(job)
    assert "attempt 2" in (job.folder / "log.txt").read_text()


def test_cancel_lets_running_jobs_save_and_a_new_submission_goes_on(submit, tmp_path):
    running = counting_job(tmp_path, "running", 3_000, 0.1)
    child = counting_job(tmp_path, "child", 1, needs=(running,))
    submit([running, child])
    wait_for((running.folder / "metrics.jsonl").is_file)
    assert len(cancel_jobs([running, child])) == 2
    assert wait_until_ended(running, child) == {"running": "FAILED", "child": "CANCELLED"}
    assert {state for state, _ in standings([running, child]).values()} == {"cancelled"}
    assert cancel_jobs([running, child]) == []
    saved = saved_steps(running)
    assert saved > 0
    submit([running, child])
    assert set(wait_until_ended(running, child).values()) == {"COMPLETED"}
    assert json.loads(running.makes[0].read_text())["starts"] == [0, saved]


def test_a_controller_inside_a_job_submits_jobs_that_inherit_nothing_of_it(slurm, tmp_path):
    """In a step with other memory options, bound to a CPU, with its own devices: each would break an inner job."""
    store = tmp_path / "store"
    controller = f"{sys.executable} {HERE / 'slurm_jobs.py'} {store} main"
    step = f"export CUDA_VISIBLE_DEVICES=9 RANK=7; srun --cpu-bind=cores {controller}"
    outer = ["sbatch", "--parsable", "--ntasks=1", "--mem-per-cpu=100", f"--output={tmp_path}/outer.out"]
    outer += [f"--chdir={HERE.parents[1]}", f"--wrap={step}"]
    number = subprocess.run(outer, capture_output=True, text=True, check=True).stdout.strip()
    wait_for(lambda: not look([number])[number].alive)
    assert look([number])[number].state == "COMPLETED", (tmp_path / "outer.out").read_text()
    jobs = sweep(store, FOUR)
    assert set(wait_until_ended(*jobs).values()) == {"COMPLETED"}
    environment = json.loads(jobs[0].makes[0].read_text())["environment"]
    assert environment["SLURM_JOB_ID"] == number_of(jobs[0])
    assert "SLURM_MEM_PER_CPU" not in environment
    assert not {"RANK", "CUDA_VISIBLE_DEVICES"} & environment.keys()
    assert environment.get("SLURM_CPU_BIND", "quiet,none") == "quiet,none"


@pytest.mark.parametrize(
    ("fields", "key", "words"),
    [
        ({"partition": "nosuch"}, "executor.partition", "one of: high, main, short"),
        (
            {"partition": "short", "time": "0:03:00"},
            "executor.time",
            "3 min are above the limit of partition short, 2 min",
        ),
        ({"extra": {"nosuch-option": 1}}, "executor", "unrecognized option '--nosuch-option=1'"),
        ({"extra": {"licenses": "nosuch"}}, "executor", "Invalid license"),
        ({"gpus_per_node": 9}, "executor", "Requested node configuration is not available"),
        ({"nodes": 2}, "executor.nodes", "trains on one node only"),
    ],
)
def test_what_slurm_would_refuse_is_told_before_anything_is_submitted(submit, tmp_path, fields, key, words):
    before = all_numbers()
    with pytest.raises(Problems, match=re.escape(words)) as caught:
        submit([counting_job(tmp_path, "a")], **fields)
    assert [problem.key for problem in caught.value.problems] == [key]
    assert all_numbers() == before


def test_a_controller_that_waits_sees_a_killed_job_end_without_sacct(slurm, tmp_path):
    """submitit's own Job.result() would wait for ever: it asks sacct."""
    assert subprocess.run(["sacct"], capture_output=True, check=False).returncode != 0
    killed = counting_job(tmp_path, "killed", 3_000, 0.1)
    good = counting_job(tmp_path, "good")
    command = f"""
import sys; sys.path.insert(0, {str(HERE)!r})
from pathlib import Path
from slurm_jobs import SMALL, counting_job
from pretrain_exp.executor import slurm
slurm.POLL_SECONDS = 0.5
store = Path({str(tmp_path)!r})
jobs = [counting_job(store, "killed", 3_000, 0.1), counting_job(store, "good")]
print({{key: outcome.state for key, outcome in slurm.Slurm(**SMALL, wait=True).run(jobs, store).items()}})
"""
    controller = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True)
    wait_for((killed.folder / "pid").is_file)
    subprocess.run(["scancel", "--signal=KILL", "--full", number_of(killed)], check=True)
    assert controller.communicate(timeout=600)[0].strip() == "{'train-killed': 'failed', 'train-good': 'done'}"
    assert good.done()
