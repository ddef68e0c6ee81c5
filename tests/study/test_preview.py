"""What `plan` says of time: from jobs that trained the same model in the same way, and from no others."""

from __future__ import annotations

import copy
import json
import os
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from pretrain_exp import experiment
from pretrain_exp.executor.base import Job
from pretrain_exp.study import estimate
from pretrain_exp.study.estimate import earlier_training, known_rate, shape_of
from pretrain_exp.study.preview import duration, print_cost

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
    assert known_rate(earlier_training(tmp_path).get(shape_of(SMALL), ())) == (100.0 if same else None)


def test_jobs_that_share_their_steps_all_count(tmp_path: Path) -> None:
    trained(tmp_path, "a", SMALL, [1.0, 1.0, 1.0])
    trained(tmp_path, "b", SMALL, [3.0, 3.0])
    assert known_rate(earlier_training(tmp_path).get(shape_of(SMALL), ())) == 1.0


def test_the_newest_of_the_same_shape_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "NEWEST", 3)
    for age in range(4):
        trained(tmp_path, f"same{age}", SMALL, [float(age)], age=10 + age)
        trained(tmp_path, f"other{age}", changed("training.batch_size", 8), [50.0], age=age)
    assert known_rate(earlier_training(tmp_path).get(shape_of(SMALL), ())) == 1.0


def planned(store: Path, kind: str, name: str, payload: dict[str, Any], *needs: Job, **fields: Any) -> Job:
    folder, ids = store / "jobs" / f"{kind}-{name}", frozenset(need.id for need in needs)
    shared: dict[str, Any] = {"folder": folder, "command": (), "environment": {}, "needs": ids, "makes": ()}
    return Job(key=name, kind=kind, title=name, payload=payload, **{**shared, **fields})  # type: ignore[arg-type]


def cost(store: Path, jobs: list[Job], executor: Any = None) -> str:
    """What `plan` prints of these jobs."""
    member: Any = SimpleNamespace(composed=SimpleNamespace(kinds=SimpleNamespace(executor=executor or object())))
    console = Console(width=160, record=True)
    print_cost([member], jobs, [], store, console)
    return console.export_text()


def test_every_job_is_reckoned_with_its_own_batch_and_rate(tmp_path: Path) -> None:
    big = changed("training.batch_size", 8)
    trained(tmp_path, "small", SMALL, [64.0])
    trained(tmp_path, "big", big, [32.0])
    jobs = [
        planned(tmp_path, "train", "small", SMALL, total=10, tokens_per_step=64),
        planned(tmp_path, "train", "big", big, total=10, tokens_per_step=128),
        planned(tmp_path, "train", "new", changed("model.config", {}), total=10, tokens_per_step=64),
    ]
    asked: list[dict[str, float | None]] = []
    executor = SimpleNamespace(describe=lambda jobs, seconds: asked.append(seconds) or "")
    said = cost(tmp_path, jobs, executor)
    lines = {line.split()[1]: " ".join(line.split()) for line in said.splitlines() if " to " in line and "│" in line}
    assert "640 │ 10 s" in lines["small"]
    assert "1,280 │ 40 s" in lines["big"]
    assert "unknown" in lines["new"]
    assert asked == [{"train-small": 10.0, "train-big": 40.0, "train-new": None}]
    assert "3 jobs to run, about 50 s one after the other" in said
    assert "training at 32, 64 tokens/s, the median of earlier jobs of the same shape" in said
    assert "no earlier job of the same shape tells the rate of the others" in said
    assert "what starting, loading and saving take: counted as nothing" in said


def test_what_a_start_takes_beside_its_steps_is_counted(tmp_path: Path) -> None:
    """The attempt that ended took 60 s, of which ten steps of a second; what earlier attempts did is not part of it."""
    trained(tmp_path, "small", SMALL, [])
    folder = tmp_path / "jobs/train-small"
    rows = [{"step": step, "attempt": 1, "time": 0.0} for step in range(5)]
    rows += [
        {"step": step, "attempt": 2, "time": 500.0 + step, "train/tokens_per_second": 64.0} for step in range(5, 15)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = planned(tmp_path, "train", "small", SMALL, total=100, tokens_per_step=64)
    assert "│ 100 s" in cost(tmp_path, [job])
    job.write_took(60.0)
    said = cost(tmp_path, [job])
    assert "│ 150 s" in said
    assert "a start with loading and saving at 50.0 s, the median of the same jobs" in said


TASK = {"name": "p", "target": "x.Perplexity", "args": {"limit": 5}, "out": "here"}


@pytest.mark.parametrize(
    ("change", "known"),
    [({}, True), ({"name": "other", "out": "there"}, True), ({"args": {"limit": 6}}, False), ({"target": "y"}, False)],
)
def test_an_evaluation_is_reckoned_by_those_of_the_same_kinds_on_the_same_model(
    tmp_path: Path, change: dict[str, Any], known: bool
) -> None:
    state = tmp_path / "states/s"
    state.mkdir(parents=True)
    (state / "job.json").write_text(json.dumps(SMALL))
    payload = {"state": str(state), "device": "auto", "dtype": "float32", "evaluations": [TASK]}
    for name, seconds in (("a", 10.0), ("b", 30.0), ("c", 20.0)):
        earlier = planned(tmp_path, "evaluate", name, payload)
        earlier.write()
        earlier.write_took(seconds)
    train = planned(tmp_path, "train", "t", SMALL, total=10, tokens_per_step=64)
    to_come = {**payload, "state": str(tmp_path / "states/none yet"), "evaluations": [{**TASK, **change}]}
    said = cost(tmp_path, [train, planned(tmp_path, "evaluate", "new", to_come, train)])
    assert (" 20 s │" in said) == known
    assert ("an evaluation at 20.0 s, the median of earlier ones" in said) == known
    assert ("evaluations of these kinds take on this model: counted as nothing" in said) == (not known)
    other = planned(tmp_path, "train", "u", changed("model.checkpoint", "other"), total=10, tokens_per_step=64)
    assert " 20 s │" not in cost(tmp_path, [other, planned(tmp_path, "evaluate", "new", to_come, other)])


def test_jobs_of_other_studies_are_awaited_and_cost_nothing(tmp_path: Path) -> None:
    own = planned(tmp_path, "train", "own", SMALL, total=10, tokens_per_step=64)
    adopted = planned(tmp_path, "train", "theirs", SMALL, total=10, tokens_per_step=64, adopted=True)
    said = cost(tmp_path, [adopted, own])
    assert "1 jobs to run, of unknown length" in said
    assert "theirs of another study is under way: it is awaited, not run" in said


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize("adopted", [False, True])
def test_others_may_plan_while_it_is_reckoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adopted: bool) -> None:
    """What a study could see is said where it runs anything itself."""
    saw: list[str] = []
    for name in ("print_cost", "print_detectable"):
        monkeypatch.setattr(experiment, name, lambda *_, name=name: saw.append(name))
    with ExitStack() as planning:
        planning.callback(saw.append, "planned")
        job = planned(tmp_path, "train", "a", SMALL, adopted=adopted)
        experiment._planned(planning, [], [job], [], tmp_path, Console())
    assert saw == ["planned", "print_cost", *(() if adopted else ("print_detectable",))]
