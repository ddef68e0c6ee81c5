"""`pretrain-exp status` on a narrow terminal: every label and every id of a wide sweep can be read."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from pretrain_exp.executor.base import Job
from pretrain_exp.executor.progress import Board
from pretrain_exp.store.process import describe_process
from pretrain_exp.study.registry import read_study, write_study
from pretrain_exp.study.status import print_status, run_label
from pretrain_exp.verbs import read_verb


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
    ("first", "step", "tokens_per_step", "rate", "left"),
    [
        (0, 411, 2048, 1000.0, "0:20:04"),  # 588 steps of 2,048 tokens
        (400, 411, 2048, 1000.0, "0:20:04"),  # that it begins at 400 changes nothing of what is to come
        (0, 9, 65536, 1000.0, "18:01:20"),
        (0, 411, 0, 1000.0, ""),  # a record that does not say how much a step is
        (0, 411, 2048, 0.0, ""),
    ],
)
def test_the_time_left_of_a_running_job(tmp_path, first, step, tokens_per_step, rate, left):
    one = job(tmp_path, "train", "a1", "train control seed 0", first=first, total=1000, tokens_per_step=tokens_per_step)
    (one.folder / "process.json").write_text(json.dumps(describe_process()))
    row = {"step": step, "train/loss": 2.5, "train/tokens_per_second": rate}
    (one.folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (line,) = [line for line in shown(tmp_path, [one], 120) if "train-a1" in line]
    assert re.findall(r"\d+:\d\d:\d\d", line) == [left] * bool(left)
    assert f"{step + 1 - first}/{1000 - first} steps" in line


def test_watch_looks_again_until_the_study_has_ended(tmp_path, monkeypatch, capsys):
    one = job(tmp_path, "train", "a1", "train control seed 0", total=10)
    (one.folder / "process.json").write_text(json.dumps(describe_process()))
    shown(tmp_path, [one], 120, controller=describe_process())
    slept = []

    def sleep(seconds: float) -> None:
        """After one look the job is done, after two its study too: proofs and report come between."""
        slept.append(seconds)
        one.makes[0].touch()
        if len(slept) == 2:
            write_study(tmp_path / "study", {**read_study(tmp_path / "study"), "status": "done", "ended": "now"})

    monkeypatch.setattr("pretrain_exp.verbs.time", SimpleNamespace(sleep=sleep))  # no other thread's sleep is a look
    assert read_verb("status", ["study", "--watch", "--seconds", "7"]) == 0
    assert slept == [7.0, 7.0]
    said = capsys.readouterr().out.partition("t  (study)")[2]
    assert [word for word in said.split() if word in ("0/10", "10/10")] == ["0/10", "10/10", "10/10"]


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
