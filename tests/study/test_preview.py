"""What `plan` says of time: from jobs that trained the same model in the same way, and from no others."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from pretrain_exp.executor.base import Job
from pretrain_exp.study.preview import known_rate, print_cost, shape_of

SMALL: dict[str, Any] = {
    "model": {"config": {"hidden_size": 8}, "checkpoint": None, "tokenizer": "t"},
    "training": {"sequence_length": 16, "batch_size": 4, "precision": "fp32", "num_steps": 5},
    "save": [
        {"step": 5, "record": {"numerics": {"world": 1, "device": "cpu", "versions": {"torch": "1"}, "code": "a"}}}
    ],
}


def changed(path: str, value: object) -> dict[str, Any]:
    job = copy.deepcopy(SMALL)
    inner: Any = job
    *parents, name = path.split(".")
    for parent in parents:
        inner = inner[int(parent) if parent.isdigit() else parent]
    inner[name] = value
    return job


def trained(store: Path, name: str, job: dict[str, Any], rates: list[float], age: int = 0) -> None:
    """A job that once ran, `age` seconds before now; its rows are steps 0, 1, ... like those of any other job."""
    folder = store / "jobs" / f"train-{name}"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps(job))
    rows = [{"step": step, "attempt": 1, "train/tokens_per_second": rate} for step, rate in enumerate(rates)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.utime(folder / "metrics.jsonl", (1e9 - age, 1e9 - age))


@pytest.mark.parametrize(
    ("path", "value", "same"),
    [
        ("model.config.hidden_size", 16, False),
        ("model.checkpoint", "other", False),
        ("training.sequence_length", 32, False),
        ("training.batch_size", 8, False),
        ("training.precision", "bf16", False),
        ("save.0.record.numerics.device", "cuda", False),
        ("save.0.record.numerics.world", 2, False),
        ("save.0.record.numerics.versions", {"torch": "2"}, True),
        ("save.0.record.numerics.code", "b", True),
        ("training.num_steps", 9, True),
        ("model.tokenizer", "u", True),
    ],
)
def test_a_rate_counts_for_its_shape(tmp_path: Path, path: str, value: object, same: bool) -> None:
    trained(tmp_path, "x", changed(path, value), [100.0])
    assert known_rate(tmp_path, shape_of(SMALL)) == (100.0 if same else None)


def test_jobs_that_share_their_steps_all_count(tmp_path: Path) -> None:
    trained(tmp_path, "a", SMALL, [1.0, 1.0, 1.0])
    trained(tmp_path, "b", SMALL, [3.0, 3.0])
    assert known_rate(tmp_path, shape_of(SMALL)) == 1.0


def test_the_newest_of_the_same_shape_count(tmp_path: Path) -> None:
    for age in range(4):
        trained(tmp_path, f"same{age}", SMALL, [float(age)], age=10 + age)
        trained(tmp_path, f"other{age}", changed("training.batch_size", 8), [50.0], age=age)
    assert known_rate(tmp_path, shape_of(SMALL), newest=3) == 1.0


def test_every_job_is_reckoned_with_its_own_batch_and_rate(tmp_path: Path) -> None:
    big = changed("training.batch_size", 8)
    trained(tmp_path, "small", SMALL, [64.0])
    trained(tmp_path, "big", big, [32.0])
    shared: dict[str, Any] = {"folder": tmp_path, "command": (), "environment": {}, "needs": frozenset(), "makes": ()}
    jobs = [
        Job(key="s", kind="train", title="small", total=10, tokens_per_step=64, payload=SMALL, **shared),
        Job(key="b", kind="train", title="big", total=10, tokens_per_step=128, payload=big, **shared),
        Job(
            key="n",
            kind="train",
            title="new",
            total=10,
            tokens_per_step=64,
            payload=changed("model.config", {}),
            **shared,
        ),
    ]
    asked = []
    executor = SimpleNamespace(describe=lambda jobs, seconds: asked.append(seconds) or "")
    member: Any = SimpleNamespace(composed=SimpleNamespace(kinds=SimpleNamespace(executor=executor)))
    console = Console(width=120, record=True)
    for count in (3, 2):
        print_cost([member], jobs[:count], [], tmp_path, console)
    lines = {line.split()[1]: line.split() for line in console.export_text().splitlines() if " to " in line}
    assert "640" in lines["small"]
    assert "10 s" in " ".join(lines["small"])
    assert "1,280" in lines["big"]
    assert "40 s" in " ".join(lines["big"])
    assert "unknown" in lines["new"]
    assert asked == [None, 4.0]
