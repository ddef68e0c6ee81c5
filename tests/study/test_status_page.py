"""`pretrain-exp status` on a narrow terminal: every label and every id of a wide sweep can be read."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pretrain_exp.executor.base import Job
from pretrain_exp.executor.progress import Board
from pretrain_exp.study.registry import write_study
from pretrain_exp.study.status import print_status, run_label


def job(store: Path, kind: str, key: str, title: str, **fields) -> Job:
    made = {"command": (), "environment": {}, "needs": frozenset(), "makes": (store / key,), **fields}
    one = Job(key=key, kind=kind, title=title, folder=store / "jobs" / f"{kind}-{key}", **made)
    one.folder.mkdir(parents=True)
    return one


def shown(store: Path, jobs: list[Job], width: int, **fields) -> list[str]:
    record = {"title": "t", "store": str(store), "status": "running", "reused": [], "members": [], "controller": None}
    write_study(store / "study", {**record, "jobs": [one.record() for one in jobs], **fields})
    console = Console(width=width, record=True)
    print_status(store / "study", console)
    return [line.rstrip() for line in console.export_text().splitlines()]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("width", [80, 200])
def test_labels_ids_and_progress_stay_in_one_piece(tmp_path, width):
    labels = [f"treated repetitions={n}, rate=0.0{n}, mode=range seed {seed}" for seed in (0, 1) for n in range(1, 9)]
    jobs = [job(tmp_path, "train", f"{i:02}abcdef", f"train {label}", total=1000) for i, label in enumerate(labels)]
    for one in jobs:
        row = {"step": 411, "train/loss": 2.345, "train/tokens_per_second": 123456.0}
        (one.folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    jobs += [
        job(tmp_path, "evaluate", f"{i:02}fedcba", f"evaluate {label} step 1000", total=100, unit="percent")
        for i, label in enumerate(labels)
    ]
    lines = shown(tmp_path, jobs, width)
    assert max(map(len, lines[1:])) <= width
    for number, label in enumerate(labels):
        at = lines.index(label)  # once, and whole
        train = next(line for line in lines[at:] if line.startswith(f"  train-{number:02}abcd"))
        score = next(line for line in lines[at:] if line.startswith(f"  evaluate-{number:02}fedc"))
        assert "412/1000 steps" in train
        assert "loss 2.345" in train
        assert " 0%" in score
        assert "step 1000" in score
    assert len([line for line in lines if line.startswith("treated")]) == len(labels)


def test_brackets_of_a_label_and_of_a_message_stay(tmp_path):
    """To Rich `[a,b]` would be a style, which it drops, and `[/a]` the end of one, which it refuses."""
    label = "treated insertion=[a,b] seed 0"
    failed = job(tmp_path, "train", "0abcdef", f"train {label}")
    (failed.folder / "error.json").write_text(json.dumps({"message": "no such file [got '/a'] [/b]"}))
    lines = "\n".join(shown(tmp_path, [failed], 200))
    assert lines.count("insertion=[a,b]") == 2
    assert "no such file [got '/a'] [/b]" in lines
    with (board := Board(Console(force_terminal=True, file=StringIO()))), board.follow(failed) as line:
        line.failed("no such file [got '/a'] [/b]")
        board.progress.refresh()
    assert "[/b]" in board.console.file.getvalue()


def test_the_jobs_of_a_run_stand_together_and_those_of_other_studies_are_named(tmp_path):
    jobs = [
        job(tmp_path, "train", "a1", "train control seed 0", total=10),
        job(tmp_path, "train", "b1", "train treated seed 0", total=10),
        job(tmp_path, "evaluate", "a2", "evaluate control seed 0 step 5", adopted=True),
        job(tmp_path, "report", "r", "report"),
    ]
    (tmp_path / "a1").touch()
    lines = [line.split("  ")[0] or line.strip() for line in shown(tmp_path, jobs, 100)]
    order = [lines.index("control seed 0"), lines.index("treated seed 0"), lines.index("report")]
    assert order == sorted(order)
    text = "\n".join(shown(tmp_path, jobs, 100))
    assert text.index("evaluate-a2") < text.index("treated seed 0")
    assert "step 5, of another study" in text
    assert "10/10 steps" in text


@pytest.mark.parametrize(
    ("kind", "title", "label"),
    [
        ("train", "train treated x=1 seed 0", "treated x=1 seed 0"),
        ("evaluate", "evaluate control seed 0 step 40", "control seed 0"),
        ("evaluate", "evaluate gpt2@main", "gpt2@main"),
        ("report", "report", "report"),
    ],
)
def test_the_label_of_a_run(kind, title, label):
    assert run_label({"kind": kind, "title": title}) == label
