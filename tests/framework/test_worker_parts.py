"""Parts that all workers share, without a model: the boundary of a step, its numbers, folders that are converted."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.errors import UserError
from pretrain_exp.framework.worker.boundary import Boundary
from pretrain_exp.framework.worker.conversion import whole_folder
from pretrain_exp.framework.worker.launch import OF_A_RANK
from pretrain_exp.framework.worker.main import INTERRUPTED, PLANNED, Attempt, tell_ranks
from pretrain_exp.framework.worker.ranks import Ranks
from pretrain_exp.framework.worker.steps import PendingSteps
from pretrain_exp.framework.worker.tokenizer_files import copy_tokenizer
from pretrain_exp.tracking import metrics

RANKS = Ranks(0, 1, torch.device("cpu"))


@pytest.mark.parametrize(
    ("step", "signal", "written", "status"),
    [
        (1, False, [], None),
        (1, True, ["flush", "resume 1"], INTERRUPTED),
        (2, False, ["flush", "state 2"], None),
        (2, True, ["flush", "state 2"], INTERRUPTED),  # which a restart goes on from: no second checkpoint is written
        (4, True, ["flush", "state 4"], PLANNED),
    ],
)
def test_what_is_written_between_two_steps(step: int, signal: bool, written: list[str], status: int | None) -> None:
    saw: list[str] = []
    job = SimpleNamespace(
        saves=(SimpleNamespace(step=2), SimpleNamespace(step=4)), training={"resume_every_minutes": 15.0}
    )
    checkpoints: Any = SimpleNamespace(
        job=job,
        ranks=RANKS,
        save_state=lambda save: saw.append(f"state {save.step}"),
        save_resume=lambda at: saw.append(f"resume {at}"),
    )
    attempt: Any = SimpleNamespace(stop_signal=SimpleNamespace(received=signal), step=None)
    assert Boundary(checkpoints, attempt, lambda: saw.append("flush")).reach(step) == status
    assert saw == written
    assert attempt.step == step


OF_ONE = {"rank": None, "world": None, "rendezvous": None}
OF_LAUNCH = {"rank": 1, "world": 2, "rendezvous": "file:///r"}
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        (OF_ONE, {}, (0, 1, 0, 1, None)),
        (OF_ONE, TORCHRUN, (5, 8, 1, 4, "env://")),
        (OF_LAUNCH, {}, (1, 2, 1, 2, "file:///r")),
        (OF_LAUNCH, TORCHRUN, (1, 2, 1, 2, "file:///r")),  # what a shell left there has no say
    ],
)
def test_who_a_process_is_and_what_frameworks_are_told(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], environment: dict[str, str], expected: tuple[Any, ...]
) -> None:
    for name in (*OF_A_RANK, "FS_LOCAL_RANK"):
        monkeypatch.setenv(name, "7")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    attempt = Attempt.of(Namespace(device="cpu", **options))
    assert (attempt.rank, attempt.world, attempt.local_rank, attempt.local_world, attempt.rendezvous) == expected
    assert attempt.nodes == (2 if expected[1] == 8 else 1)
    tell_ranks(attempt)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "FS_LOCAL_RANK")
    assert [os.environ[name] for name in names] == [str(value) for value in (*expected[:4], expected[0])]


def pending(every: int) -> tuple[PendingSteps, list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    journal: Any = SimpleNamespace(log=lambda step, **values: told.append({"step": step, **values}))
    job: Any = SimpleNamespace(phases=Phases([Phase(0, 4, 8)]), training={"log_every": every})
    names = (metrics.LOSS, metrics.GRAD_NORM)
    return PendingSteps(job, RANKS, journal, lambda step, numbers: dict(zip(names, numbers, strict=True))), told


def test_numbers_are_told_when_as_many_wait_as_asked() -> None:
    steps, told = pending(2)
    steps.add(5, torch.tensor([1.0, 2.0], dtype=torch.float64), (0.0, 0))
    assert not steps.due
    steps.add(6, torch.tensor([3.0, 4.0], dtype=torch.float64), (8.0, 2))
    assert steps.due
    steps.flush()
    steps.flush()
    assert [(row["step"], row[metrics.LOSS], row[metrics.GRAD_NORM]) for row in told] == [(5, 1.0, 2.0), (6, 3.0, 4.0)]
    assert [row[metrics.TOKENS] for row in told] == [6 * 32, 7 * 32]
    assert [row.get(metrics.GRADIENT_NOISE) for row in told] == [None, 2.0]
    assert not steps.due


@pytest.mark.parametrize("numbers", [[math.nan, 1.0], [1.0, math.inf]])
def test_what_is_not_finite_ends_the_job(numbers: list[float]) -> None:
    steps, told = pending(1)
    steps.add(5, torch.tensor(numbers, dtype=torch.float64), (0.0, 0))
    with pytest.raises(UserError, match=r"at step 5 .*training diverged"):
        steps.flush()
    assert told == []


def test_a_tokenizer_is_copied_without_what_lies_beside_it(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    there = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "vocab.json", "spiece.model")
    for name in (*there, "model.safetensors", "config.json"):
        (source / name).write_text(name)
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "own.jinja").write_text("x")
    copy_tokenizer(source, tmp_path / "copy")
    copy_tokenizer(None, tmp_path / "none")
    copied = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert copied == {*there, "additional_chat_templates/own.jinja"}
    assert list((tmp_path / "none").iterdir()) == []


def test_a_conversion_leaves_a_whole_folder_or_none(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    copy_tokenizer(None, tokenizer)
    (tokenizer / "tokenizer.json").write_text("{}")
    with pytest.raises(FileNotFoundError), whole_folder(tmp_path / "hf", tokenizer) as folder:
        (folder / "no folder" / "config.json").write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]
    with whole_folder(tmp_path / "hf", tokenizer) as folder:
        (folder / "config.json").write_text(json.dumps({"a": 1}))
        assert not (tmp_path / "hf").exists()
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == ["config.json", "tokenizer.json"]


def test_noise_on_gradients_is_that_of_one_rank_where_shards_have_copies() -> None:
    """FSDP2 over two copies of two shards: the gradient of each rank is its rows of what one rank gets."""
    program = Path(__file__).with_name("hsdp_noise.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert said["difference"] == 0.0
    assert said["ranks"] == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert said["sigma"] == pytest.approx(0.5, rel=0.05)
