"""The event files hold what metrics.jsonl holds, once, read back record by record."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.image import imsave
from metric_lines import append
from PIL import Image

from pretrain_exp.tracking import tensorboard_sink
from pretrain_exp.tracking.metrics import LOSS, Row
from pretrain_exp.tracking.sync import Contents, sync
from pretrain_exp.tracking.tensorboard_sink import TensorboardSink

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")


def records(path: Path) -> Iterator[Any]:
    """The events of a file: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield event_pb2.Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def values(folder: Path) -> list[tuple[str, int, float, Any]]:
    """(tag, step, wall time, value) of everything in a folder, file by file in the order of the calls."""
    files = sorted(folder.glob("events.*"), key=lambda path: int(path.name.rpartition(".part")[2]))
    return [(v.tag, e.step, e.wall_time, v) for file in files for e in records(file) for v in e.summary.value]


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    return [(tag, step, v.simple_value) for tag, step, _, v in values(folder) if v.HasField("simple_value")]


def write(path: Path, steps: Iterable[int]) -> Path:
    return append(path, ((step, {LOSS: step / 2}) for step in steps))


def test_scalars_tables_and_pictures_are_in_the_event_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item": ["a", "b"], "value": [1.0, 2.0]}), tmp_path / "items.parquet")
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    imsave(tmp_path / "effect.png", pixels)
    contents = Contents(
        name="treated",
        metrics=[write(tmp_path / "m.jsonl", range(3))],
        evaluations=[{"step": 2, "eval/choice/arc/acc": 0.5}, {"step": 0, "eval/choice/arc/acc": 0.25}],
        tables={"items": tmp_path / "items.parquet"},
        pictures={"effect": tmp_path / "effect.png"},
    )
    sync(tmp_path / "run", [TensorboardSink()], contents)
    folder = tmp_path / "run" / "tensorboard"
    losses = [(LOSS, 0, 0.0), (LOSS, 1, 0.5), (LOSS, 2, 1.0)]
    assert scalars(folder) == [*losses, ("eval/choice/arc/acc", 0, 0.25), ("eval/choice/arc/acc", 2, 0.5)]
    found = {tag: value for tag, _, _, value in values(folder)}
    assert b"| item | value |\n| --- | --- |\n| a | 1.0 |" in found["table/items/text_summary"].tensor.string_val[0]
    picture = Image.open(BytesIO(found["picture/effect"].image.encoded_image_string))
    assert np.array_equal(np.asarray(picture), pixels)


def test_the_wall_time_is_that_of_training(tmp_path: Path) -> None:
    rows: list[Row] = [{"step": 0, "time": 1234.5, "eval/choice/arc/acc": 1.0}]
    sync(tmp_path, [TensorboardSink()], Contents(name="treated", evaluations=rows))
    assert [time for _, _, time, _ in values(tmp_path / "tensorboard")] == [1234.5]


def test_a_second_call_adds_what_is_new_and_replaces_what_a_killed_one_left(tmp_path: Path) -> None:
    metrics, run = tmp_path / "m.jsonl", tmp_path / "run"

    class Killed(TensorboardSink):
        def close(self) -> None:
            super().close()
            raise OSError("no space")

    sync(run, [TensorboardSink()], Contents(name="treated", metrics=[write(metrics, range(3))]))
    write(metrics, range(3, 5))
    for sink in (Killed(), Killed(), TensorboardSink(), TensorboardSink()):
        sync(run, [sink], Contents(name="treated", metrics=[metrics]))
    assert [step for _, step, _ in scalars(run / "tensorboard")] == [0, 1, 2, 3, 4]


def test_a_long_table_says_that_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard_sink, "TABLE_ROWS", 3)
    pq.write_table(pa.table({"value": list(range(7))}), tmp_path / "items.parquet")
    sync(tmp_path, [TensorboardSink()], Contents(name="treated", tables={"items": tmp_path / "items.parquet"}))
    ((_, _, _, value),) = values(tmp_path / "tensorboard")
    text = value.tensor.string_val[0].decode()
    assert text.endswith("| 2 |\n\nThe first 3 of 7 rows.")
