"""`pretrain-exp logs [STUDY] [JOB]`: the log that is meant, or which there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def study(tmp_path: Path) -> Any:
    """A study of some jobs, a log each, as the folder of a study tells of them; the last one is the newest."""

    def make(name: str, *jobs: str) -> Path:
        folder = tmp_path / name
        records = []
        for job in jobs:
            place = folder / "jobs" / job
            place.mkdir(parents=True)
            (place / "log.txt").write_text(f"first line of {job}\nlast line of {job}\n")
            records.append({"id": f"train-{job}", "title": f"train arm {job}", "folder": str(place)})
        folder.mkdir(exist_ok=True)
        (folder / "study.json").write_text(json.dumps({"jobs": records}))
        (tmp_path / "outputs").mkdir(exist_ok=True)
        (tmp_path / "outputs" / "last_study.json").write_text(json.dumps({"folder": str(folder), "store": "s"}))
        return folder

    return make


def test_the_study_and_the_job_by_position(command: Any, study: Any) -> None:
    first = study("first", "abc", "xyz")
    study("second", "abc")
    assert command("logs", str(first), "xyz") == (0, "first line of xyz\nlast line of xyz\n")
    assert command("logs", str(first), "xyz", "--lines", "1") == (0, "last line of xyz\n")
    assert command("logs", "abc")[1].startswith("first line of abc")  # of the newest study
    assert command("logs")[1].startswith("first line of abc")  # its only job
    assert command("logs", str(first)) == (0, "train-abc  train arm abc\ntrain-xyz  train arm xyz\n")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["arm"], "matches several jobs"),
        (["none"], "matches no job of this study [got 'none']"),
        (["nowhere", "abc"], "no study.json"),
        (["a", "b", "c"], "takes a study and a job"),
    ],
)
def test_what_is_not_there(command: Any, study: Any, names: list[str], words: str) -> None:
    study("first", "abc", "xyz")
    status, said = command("logs", *names)
    assert status == 2
    assert words in said


def test_a_study_without_jobs(command: Any, study: Any) -> None:
    assert command("logs", str(study("empty"))) == (0, "this study needed no job\n")
