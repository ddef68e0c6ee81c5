"""Mirrors get each row once, whatever fails, changes or comes late; a mirror that fails harms nothing."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from metric_lines import append

from pretrain_exp.tracking.config import TensorboardConfig, TrackingConfig, WandbConfig
from pretrain_exp.tracking.metrics import LOSS, Row
from pretrain_exp.tracking.sync import STATE, Contents, Start, Synced, sinks_of, sync


class Broken(Exception):
    pass


class Memory:
    """A sink that keeps what it gets, and fails where it is told to."""

    title = "memory"

    def __init__(self, destination: str = "memory", fail_at: str = "", fallback: Memory | None = None):
        self.destination, self.fail_at, self.next = destination, fail_at, fallback
        self.starts: list[Start] = []
        self.lines: list[Any] = []
        self.is_open = False

    def errors(self) -> tuple[type[Exception], ...]:
        return (Broken,)

    def fallback(self) -> Memory | None:
        return self.next

    def _point(self, name: str) -> None:
        if self.fail_at == name:
            raise Broken(f"in {name}\nand a long story")

    def open(self, start: Start) -> None:
        self._point("open")
        self.starts.append(start)
        self.is_open = True

    def log_rows(self, rows: Iterable[Row]) -> None:
        self._point("log_rows")
        self.lines += [int(row["step"]) for row in rows]

    def log_table(self, name: str, table: pa.Table) -> None:
        self.lines.append((name, table.num_rows))

    def log_image(self, name: str, path: Path) -> None:
        self.lines.append((name, path.name))

    def close(self) -> None:
        self.is_open = False
        self._point("close")


def write(path: Path, steps: Sequence[int], attempt: int = 0) -> Path:
    return append(path, ((step, {LOSS: step / 2 + attempt}) for step in steps), attempt)


def contents(metrics: Path, **more: Any) -> Contents:
    return Contents(name="treated", metrics=[metrics], **more)


def test_a_second_call_sends_only_what_is_new(tmp_path: Path) -> None:
    sink, metrics, run = Memory(), tmp_path / "m.jsonl", tmp_path / "run"
    assert sync(run, [sink], contents(write(metrics, range(3)))) == [Synced("memory", 3, 0)]
    assert sync(run, [sink], contents(metrics)) == []
    assert sync(run, [sink], contents(write(metrics, range(3, 5)))) == [Synced("memory", 2, 0)]
    assert sink.lines == [0, 1, 2, 3, 4]
    assert [(start.part, start.line, start.step) for start in sink.starts] == [(0, 0, 2), (1, 3, 4)]
    assert len({start.run_id for start in sink.starts}) == 1
    assert not list(run.glob(".*")), "the state file was moved into place"


def test_an_early_evaluation_that_comes_late_is_sent(tmp_path: Path) -> None:
    sink, run = Memory(), tmp_path / "run"
    metrics = write(tmp_path / "m.jsonl", range(3))
    late: list[Row] = [{"step": 2, "eval/choice/arc/acc": 0.5}]
    sync(run, [sink], contents(metrics, evaluations=late))
    early: list[Row] = [{"step": 0, "eval/choice/arc/acc": 0.25}, *late]
    assert sync(run, [sink], contents(metrics, evaluations=early)) == [Synced("memory", 1, 0)]
    assert sink.lines == [0, 1, 2, 2, 0]


def test_a_table_or_picture_is_sent_again_only_when_it_changed(tmp_path: Path) -> None:
    sink, run = Memory(), tmp_path / "run"
    metrics = write(tmp_path / "m.jsonl", range(1))
    table, picture = tmp_path / "items.parquet", tmp_path / "effect.png"
    pq.write_table(pa.table({"item": ["a", "b"]}), table)
    picture.write_bytes(b"one")
    everything = contents(metrics, tables={"effect": table}, pictures={"effect": picture})  # one name, two things
    assert sync(run, [sink], everything) == [Synced("memory", 1, 2)]
    assert sync(run, [sink], everything) == []
    picture.write_bytes(b"two")
    assert sync(run, [sink], everything) == [Synced("memory", 0, 1)]
    assert sink.lines == [0, ("effect", 2), ("effect", "effect.png"), ("effect", "effect.png")]


def test_rows_that_changed_fill_the_mirror_again_under_a_new_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink, metrics, run = Memory(), tmp_path / "m.jsonl", tmp_path / "run"
    sync(run, [sink], contents(write(metrics, range(4))))
    sync(run, [sink], contents(write(metrics, range(2, 4), attempt=1)))
    assert sink.lines == [0, 1, 2, 3, 0, 1, 2, 3]
    assert [start.line for start in sink.starts] == [0, 0]
    assert len({start.run_id for start in sink.starts}) == 2
    assert "changed" in caplog.text


def test_the_same_rows_written_by_another_attempt_are_no_news(tmp_path: Path) -> None:
    sink, metrics, run = Memory(), tmp_path / "m.jsonl", tmp_path / "run"
    for attempt in range(2):
        append(metrics, [(0, {LOSS: 1.0})], attempt)
        sync(run, [sink], contents(metrics))
    assert sink.lines == [0]


@pytest.mark.parametrize("point", ["open", "log_rows", "close"])
def test_a_failure_is_reported_and_sent_with_the_next_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, point: str
) -> None:
    broken, whole, run = Memory("broken", point), Memory("whole"), tmp_path / "run"
    metrics = write(tmp_path / "m.jsonl", range(3))
    with caplog.at_level(logging.WARNING):
        assert sync(run, [broken, whole], contents(metrics)) == [Synced("whole", 3, 0)]
    assert [record.getMessage() for record in caplog.records] == [f"treated: memory: Broken: in {point}"]
    assert not broken.is_open
    broken.fail_at, broken.lines = "", []
    assert sync(run, [broken, whole], contents(metrics)) == [Synced("broken", 3, 0)]
    assert broken.lines == whole.lines == [0, 1, 2]


def test_the_fallback_takes_over_and_remembers_for_itself(tmp_path: Path) -> None:
    offline = Memory("offline")
    online = Memory("online", "open", offline)
    metrics = write(tmp_path / "m.jsonl", range(3))
    assert sync(tmp_path / "run", [online], contents(metrics)) == [Synced("offline", 3, 0)]
    online.fail_at = ""
    assert sync(tmp_path / "run", [online], contents(metrics)) == [Synced("online", 3, 0)], "the server had none of it"


def test_an_error_of_our_own_is_not_swallowed(tmp_path: Path) -> None:
    class Wrong(Memory):
        def log_rows(self, rows: Iterable[Row]) -> None:
            raise KeyError("a mistake in a sink")

    sink = Wrong()
    with pytest.raises(KeyError):
        sync(tmp_path / "run", [sink], contents(write(tmp_path / "m.jsonl", range(1))))
    assert not sink.is_open


@pytest.mark.parametrize(("left", "error"), [(None, FileNotFoundError), ("a,b\n1\n", pa.ArrowInvalid)])
def test_a_table_of_ours_that_cannot_be_read_is_no_failure_of_the_sink(
    tmp_path: Path, left: str | None, error: type[Exception]
) -> None:
    class Disk(Memory):
        def errors(self) -> tuple[type[Exception], ...]:
            return (OSError,)

    sink, table = Disk(fallback=Disk("offline")), tmp_path / "effects.csv"
    if left is not None:
        table.write_text(left)
    with pytest.raises(error):
        sync(tmp_path / "run", [sink], contents(write(tmp_path / "m.jsonl", range(1)), tables={"effects": table}))
    assert not sink.starts, "it was not even opened"


def test_the_state_of_another_version_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink, run = Memory(), tmp_path / "run"
    metrics = write(tmp_path / "m.jsonl", range(2))
    sync(run, [sink], contents(metrics))
    state = json.loads((run / STATE).read_text())
    (run / STATE).write_text(json.dumps(state | {"schema": 0, "sent": {"memory": {"other": 1}}}))
    assert sync(run, [sink], contents(metrics)) == [Synced("memory", 2, 0)]
    assert sink.lines == [0, 1, 0, 1]
    assert "another version" in caplog.text


def test_of_two_calls_at_once_the_second_sends_nothing(tmp_path: Path) -> None:
    run, metrics = tmp_path / "run", write(tmp_path / "m.jsonl", range(2))
    opened, go_on = threading.Event(), threading.Event()

    class Slow(Memory):
        def open(self, start: Start) -> None:
            super().open(start)
            opened.set()
            assert go_on.wait(600)

    first, second = Slow(), Memory()
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(sync, run, [first], contents(metrics))
        assert opened.wait(600)
        other = pool.submit(sync, run, [second], contents(metrics))
        with pytest.raises(TimeoutError):
            other.result(0.2)
        go_on.set()
        assert (slow.result(600), other.result(600)) == ([Synced("memory", 2, 0)], [])
    assert second.lines == []


@pytest.mark.parametrize(("wandb", "tensorboard"), [(True, True), (True, False), (False, True), (False, False)])
def test_the_configuration_names_the_sinks(wandb: bool, tensorboard: bool) -> None:
    config = TrackingConfig(wandb=WandbConfig(enabled=wandb), tensorboard=TensorboardConfig(enabled=tensorboard))
    expected = ["wandb-offline"] * wandb + ["tensorboard"] * tensorboard
    assert [sink.destination for sink in sinks_of(config)] == expected
