"""Two studies on a real Slurm that overlap without being equal: what one makes already, the other depends on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from slurm_jobs import log_of, wait_until_ended

from pretrain_exp.executor.base import Job
from pretrain_exp.executor.slurm_files import read_submission

pytestmark = pytest.mark.slurm
STUDY = ["experiment=smoke", "insertion=none", "eval=perplexity", "tracking=none", "training.num_steps=12"]
STUDY += ["training.schedule.warmup_steps=1", "executor=slurm", "executor.gpus_per_node=0", "executor.mem=500"]
STUDY += ["executor.cpus_per_task=1", "executor.signal_delay_s=5"]


def start(folder: Path, name: str, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pretrain_exp", *STUDY, f"hydra.run.dir={name}", *overrides]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def jobs_of(study: Path) -> list[dict[str, Any]]:
    return json.loads((study / "study.json").read_text())["jobs"]


def spans(study: Path, adopted: bool) -> list[tuple[int, int]]:
    jobs = [job for job in jobs_of(study) if job["kind"] == "train" and job["adopted"] == adopted]
    return sorted((job["first"], job["total"]) for job in jobs)


def end_well(*studies: Path) -> None:
    """Waits for all jobs of these studies; each must have completed, and both reports be written."""
    jobs = {record["id"]: Job.from_record(record) for study in studies for record in jobs_of(study)}
    ended = wait_until_ended(*jobs.values())
    assert set(ended.values()) == {"COMPLETED"}, "\n".join(log_of(job) for job in jobs.values())
    for study in studies:
        record = json.loads((study / "study.json").read_text())
        assert (record["status"], record["failures"]) == ("done", [])
        assert (study / "report/report.html").is_file()


def test_what_waits_in_the_queue_for_another_study_is_depended_upon(slurm, tmp_path):
    """The training of one is held, so that it still waits when the other is planned."""
    first = start(tmp_path, "first", "training.additional_checkpoint_steps=[6]", "+executor.extra.hold=true")
    assert first.wait(600) == 0, first.communicate()[0]
    second = start(tmp_path, "second", "training.additional_checkpoint_steps=[4,9]")
    assert second.wait(600) == 0, second.communicate()[0]
    one, two = tmp_path / "first", tmp_path / "second"
    assert spans(one, adopted=False) == [(0, 12)]
    # step 4 is saved by nobody, step 9 lies after one that is to come, and the last state and its scores are to come
    assert (spans(two, adopted=False), spans(two, adopted=True)) == ([(0, 4), (6, 9)], [(0, 12)])
    assert [job["adopted"] for job in jobs_of(two) if job["kind"] == "evaluate"] == [True]
    making = next(job for job in jobs_of(one) if job["kind"] == "train")
    following = next(job for job in jobs_of(two) if (job["first"], job["total"]) == (6, 9))
    found = read_submission(Path(following["folder"]))
    assert found is not None
    assert found.needs == [making["id"]]
    asked = subprocess.run(["squeue", "-h", "-j", found.id, "-o", "%E"], capture_output=True, text=True, check=True)
    number = read_submission(Path(making["folder"])).id
    assert f"afterok:{number}(" in asked.stdout
    said = subprocess.run(
        [sys.executable, "-m", "pretrain_exp", "status", "second"], cwd=tmp_path, capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    subprocess.run(["scontrol", "release", number], check=True)
    end_well(one, two)


def test_two_that_are_submitted_at_once_train_no_state_twice(slurm, tmp_path):
    both = [
        start(tmp_path, "first", "training.additional_checkpoint_steps=[6]"),
        start(tmp_path, "second", "training.additional_checkpoint_steps=[4,9]"),
    ]
    for controller in both:
        said, _ = controller.communicate(timeout=600)
        assert controller.returncode == 0, said
    studies = [tmp_path / "first", tmp_path / "second"]
    made = Counter(path for study in studies for job in jobs_of(study) if not job["adopted"] for path in job["makes"])
    assert {path: count for path, count in made.items() if count > 1} == {}
    trained = sorted(span for study in studies for span in spans(study, adopted=False))
    # whichever was first: steps 1 to 12 in one piece, and of the others only what its own states left out
    assert trained in ([(0, 4), (0, 12), (6, 9)], [(0, 12), (4, 6)])
    end_well(*studies)
