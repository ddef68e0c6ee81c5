"""metrics.jsonl: what is written is what is read, whatever was killed, resumed or split over files."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain_exp.tracking.metrics import LOSS, METRICS, MetricsWriter, eval_metric, follow, read_metrics


def write(path: Path, attempt: int, steps: range, value: float = 0.0) -> None:
    with MetricsWriter(path, attempt) as writer:
        for step in steps:
            writer.log(step, {LOSS: step + value})


def losses(paths: Path | list[Path]) -> dict[int, float]:
    return {int(row["step"]): row[LOSS] for row in read_metrics(paths)}


def test_a_line_holds_step_time_attempt_and_floats(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "m.jsonl", attempt=2) as writer:
        writer.log(7, {LOSS: np.float32(0.5)}, **{"train/tokens": 64})
        row = json.loads((tmp_path / "m.jsonl").read_text())  # before close: the line is out already
    assert row.pop("time") > 1e9
    assert row == {"step": 7, "attempt": 2, LOSS: 0.5, "train/tokens": 64.0}


@pytest.mark.parametrize("name", ["step", "time", "attempt"])
def test_reserved_names_are_refused(tmp_path: Path, name: str) -> None:
    with MetricsWriter(tmp_path / "m.jsonl") as writer, pytest.raises(ValueError, match=name):
        writer.log(0, {name: 1.0})


def test_text_is_refused(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "m.jsonl") as writer, pytest.raises(TypeError, match="train/loss"):
        writer.log(0, {LOSS: "3"})  # type: ignore[dict-item]


@given(st.lists(st.floats(), min_size=1, max_size=5))
def test_every_float_comes_back_and_every_line_is_json(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    path = tmp_path_factory.mktemp("floats") / "m.jsonl"
    with MetricsWriter(path) as writer:
        for step, value in enumerate(values):
            writer.log(step, {LOSS: value})

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is no JSON")

    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    for value, row in zip(values, read_metrics(path), strict=True):
        assert row[LOSS] == value or (math.isnan(value) and math.isnan(row[LOSS]))


def test_a_later_attempt_supersedes_from_its_first_step_on(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write(path, 0, range(10))
    write(path, 1, range(4, 6), 100)
    assert losses(path) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 104, 5: 105}  # 6..9 led to no state that stands


def test_attempts_count_within_a_file_only(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 3, range(4))
    write(tmp_path / "b.jsonl", 0, range(4, 8))
    assert losses([tmp_path / "b.jsonl", tmp_path / "a.jsonl"]) == {step: step for step in range(8)}


def test_of_two_files_with_one_step_the_later_attempt_counts_and_names_are_joined(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "late.jsonl", 1) as late, MetricsWriter(tmp_path / "early.jsonl", 0) as early:
        late.log(3, {LOSS: 1.0})
        early.log(3, {LOSS: 2.0, eval_metric("choice", "arc", "acc"): 0.5})
    (row,) = read_metrics([tmp_path / "late.jsonl", tmp_path / "early.jsonl"])
    assert (row[LOSS], row["eval/choice/arc/acc"], row["attempt"]) == (1.0, 0.5, 1)


def test_a_half_written_last_line_is_skipped_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "m.jsonl"
    write(path, 0, range(3))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with caplog.at_level(logging.WARNING):
        assert losses(path) == {0: 0, 1: 1}
    assert "line (3)" in caplog.text
    write(path, 1, range(2, 4))  # goes on after a kill: the half line spoils no other
    assert losses(path) == {step: step for step in range(4)}


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_follow_yields_lines_once_whole_and_ends(tmp_path: Path) -> None:
    path, done = tmp_path / "m.jsonl", threading.Event()
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.extend(int(row["step"]) for row in follow(path, done.is_set, 0.01)))
    reader.start()
    with open(path, "wb", buffering=0) as file:
        for step in range(20):
            line = json.dumps({"step": step, "time": 0, "attempt": 0, LOSS: 1.0}).encode() + b"\n"
            file.write(line[:9])
            file.write(line[9:])
    done.set()
    reader.join(10)
    assert seen == list(range(20))


def test_every_listed_metric_says_what_it_is() -> None:
    assert all(name.startswith("train/") and meaning for name, meaning in METRICS.items())


def test_a_worker_can_import_it_with_the_standard_library_alone() -> None:
    code = "import sys, pretrain_exp.tracking.metrics; print({'numpy', 'torch', 'rich', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
