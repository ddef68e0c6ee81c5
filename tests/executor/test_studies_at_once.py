"""Two studies in two processes that overlap without being equal: each span of steps is trained once, and when the
process that trains one is killed, the other takes the job over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STUDY = ["experiment=smoke", "insertion=none", "eval=perplexity", "tracking=none", "training.num_steps=240"]


def start(folder: Path, name: str, *overrides: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pretrain_exp", *STUDY, f"hydra.run.dir={name}", *overrides]
    with open(folder / f"{name}.log", "wb") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)


def jobs_of(study: Path) -> list[dict[str, Any]]:
    return json.loads((study / "study.json").read_text())["jobs"] if (study / "study.json").is_file() else []


def steps_logged(folder: Path) -> list[int]:
    path = folder / "metrics.jsonl"
    whole = path.read_text().rpartition("\n")[0] if path.is_file() else ""  # the last line may be under way
    return [json.loads(line)["step"] for line in whole.splitlines()]


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_depends_on_what_the_other_trains_and_takes_it_over(tmp_path):
    first = start(tmp_path, "first", "training.additional_checkpoint_steps=[120]", "executor.parallel=1")
    wait_until(lambda: jobs_of(tmp_path / "first") or first.poll() is not None)
    whole = Path(jobs_of(tmp_path / "first")[0]["folder"])
    wait_until(lambda: len(steps_logged(whole)) > 3)
    trainer = json.loads((whole / "process.json").read_text())["pid"]
    os.killpg(trainer, signal.SIGSTOP)  # so that it is under way when the other is planned, however slow that is
    second = start(tmp_path, "second", "training.additional_checkpoint_steps=[80,180]", "executor.parallel=2")
    wait_until(lambda: jobs_of(tmp_path / "second") or second.poll() is not None)
    os.kill(first.pid, signal.SIGKILL)  # while its job stands still, so that this cannot have ended by then
    first.wait()
    os.killpg(trainer, signal.SIGCONT)
    folders = {
        (j["first"], j["total"]): Path(j["folder"]) for j in jobs_of(tmp_path / "second") if j["kind"] == "train"
    }
    assert set(folders) == {(0, 80), (0, 240), (120, 180)}, (tmp_path / "second.log").read_text()
    adopted = [(j["kind"], j["first"], j["total"]) for j in jobs_of(tmp_path / "second") if j["adopted"]]
    assert adopted == [("train", 0, 240), ("evaluate", 0, 100)]
    assert folders[0, 240] == whole
    assert second.wait(600) == 0, (tmp_path / "second.log").read_text()
    assert (whole / "log.txt").read_text().count(", attempt 1: ") == 2  # one of each process
    for (begin, end), folder in folders.items():
        assert steps_logged(folder) == list(range(begin, end))
    proof = json.loads((tmp_path / "second/proof/0-control.json").read_text())
    assert (proof["ok"], proof["rows_checked"]) == (True, 240 * 8)
