"""metrics.jsonl: what is written is what is read, whatever was killed, resumed or split over files."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_lines import append

from pretrain_exp.tracking.metrics import LOSS, read_metrics


def write(path: Path, attempt: int, steps: range, value: float = 0.0) -> None:
    append(path, ((step, {LOSS: step + value}) for step in steps), attempt)


def losses(paths: Path | list[Path]) -> dict[int, float]:
    return {int(row["step"]): row[LOSS] for row in read_metrics(paths)}


@given(st.lists(st.floats(), min_size=1, max_size=5))
def test_every_float_comes_back(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    path = append(tmp_path_factory.mktemp("floats") / "m.jsonl", ((i, {LOSS: each}) for i, each in enumerate(values)))
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
    late = append(tmp_path / "late.jsonl", [(3, {LOSS: 1.0})], 1)
    early = append(tmp_path / "early.jsonl", [(3, {LOSS: 2.0, "eval/choice/arc/acc": 0.5})])
    (row,) = read_metrics([late, early])
    assert (row[LOSS], row["eval/choice/arc/acc"], row["attempt"]) == (1.0, 0.5, 1)


def test_a_half_written_last_line_is_skipped_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "m.jsonl"
    write(path, 0, range(3))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with caplog.at_level(logging.WARNING):
        assert losses(path) == {0: 0, 1: 1}
    assert "line (3)" in caplog.text
    path.write_bytes(path.read_bytes() + b"\n")  # a half line spoils no other
    write(path, 1, range(2, 4))
    assert losses(path) == {step: step for step in range(4)}


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_a_worker_can_import_it_with_the_standard_library_alone() -> None:
    code = "import sys, pretrain_exp.tracking.metrics; print({'numpy', 'torch', 'rich', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
