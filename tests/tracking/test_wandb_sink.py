"""A real W&B run on disk, filled without a network; online falls back to it."""

from __future__ import annotations

import logging
import math
import os
import socket
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from matplotlib.image import imsave
from metric_lines import append

from pretrain_exp.tracking import wandb_sink
from pretrain_exp.tracking.config import WandbConfig
from pretrain_exp.tracking.metrics import LOSS, Row
from pretrain_exp.tracking.sync import Contents, Start, sync
from pretrain_exp.tracking.wandb_sink import WandbSink

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


@pytest.fixture(scope="session", autouse=True)
def _stop_the_service() -> Any:
    yield
    wandb.teardown()


def start(folder: Path) -> Start:
    return Start(folder=folder, run_id="run7", name="treated", group="study", config={"a": 1}, step=20, part=0, line=0)


def folders(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "wandb").iterdir() if path.name.startswith("offline-run-"))


def test_rows_tables_and_pictures_reach_the_run(tmp_path: Path) -> None:
    sink = WandbSink(WandbConfig(entity="team", project="demo", add_step_to_name=True, tags=["x"]))
    sink.open(start(tmp_path))
    run = sink.run
    assert (run.id, run.name, run.entity, run.project, run.group) == (
        "run7",
        "treated-step20",
        "team",
        "demo",
        "study",
    )
    assert (run.offline, run.tags, dict(run.config)) == (True, ("x",), {"a": 1})
    imsave(tmp_path / "effect.png", [[0.0, 1.0], [1.0, 0.0]])
    rows: list[Row] = [{"step": step, "time": 1.0, "attempt": 3, LOSS: step / 2} for step in (10, 20)]
    sink.log_rows(rows)
    sink.log_rows([{"step": 0, "eval/choice/arc/acc": 0.25}])  # of a step long past
    sink.log_table("items", pa.table({"item": ["a", "b"], "value": [1.0, math.nan]}))
    sink.log_image("effect", tmp_path / "effect.png")
    summary = dict(run.summary)
    assert {name: summary[name] for name in (LOSS, "train/step", "eval/step", "eval/choice/arc/acc")} == {
        LOSS: 10.0,
        "train/step": 20,
        "eval/step": 0,
        "eval/choice/arc/acc": 0.25,
    }
    assert "time" not in summary
    assert "attempt" not in summary
    assert summary["table/items"]["nrows"] == 2
    assert (summary["picture/effect"]["width"], summary["picture/effect"]["height"]) == (2, 2)
    assert run.step == 5, "five lines, 0 to 4"
    sink.close()
    (folder,) = folders(tmp_path)
    assert (folder / "run-run7.wandb").stat().st_size > 0


def test_a_second_call_continues_the_run_in_a_folder_of_its_own(tmp_path: Path) -> None:
    metrics, steps = tmp_path / "m.jsonl", []

    class Watched(WandbSink):
        def close(self) -> None:
            steps.append((self.run.id, self.run.step, self.run.summary[LOSS]))  # step: of the next line
            super().close()

    for first in (0, 3):
        append(metrics, ((step, {LOSS: step}) for step in range(first, first + 3)))
        sync(tmp_path / "run", [Watched(WandbConfig())], Contents(name="treated", metrics=[metrics]))
    (first_id, first_step, first_loss), (second_id, second_step, second_loss) = steps
    assert first_id == second_id
    assert (first_step, second_step) == (3, 6)
    assert (first_loss, second_loss) == (2.0, 5.0)
    assert len(folders(tmp_path / "run")) == 2


def test_a_long_table_is_cut_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_sink, "TABLE_ROWS", 5)
    sink = WandbSink(WandbConfig())
    sink.open(start(tmp_path))
    sink.log_table("items", pa.table({"value": list(range(8))}))
    assert sink.run.summary["table/items"]["nrows"] == 5
    sink.close()
    assert "first 5 of 8 rows" in caplog.text


def test_online_without_a_server_goes_on_offline_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, nobody: str
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", nobody)
    metrics = append(tmp_path / "m.jsonl", [(0, {LOSS: 1.0})])
    sink = WandbSink(WandbConfig(mode="online"))
    with caplog.at_level(logging.WARNING):
        for name in ("treated", "control"):
            (sent,) = sync(tmp_path / name, [sink], Contents(name=name, metrics=[metrics]))
            assert (sent.destination, sent.rows) == ("wandb-offline", 1)
            assert len(folders(tmp_path / name)) == 1
    reported = [record.getMessage() for record in caplog.records if record.name.startswith("pretrain_exp")]
    assert len(reported) == 2, "what failed, and what follows from it"
    assert "does not answer" in reported[0]


def test_online_without_a_key_goes_on_offline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = append(tmp_path / "m.jsonl", [(0, {LOSS: 1.0})])
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, so the pre-flight passes
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        (sent,) = sync(
            tmp_path / "run", [WandbSink(WandbConfig(mode="online"))], Contents(name="treated", metrics=[metrics])
        )
    assert sent.destination == "wandb-offline"
    assert "W&B: UsageError" in caplog.text


def test_offline_failures_end_there(tmp_path: Path) -> None:
    assert WandbSink(WandbConfig()).fallback() is None
