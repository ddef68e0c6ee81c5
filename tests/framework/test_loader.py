"""What a rank reads, and what is derived from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from segments import EOS, G, S

from pretrain_exp.framework.huggingface.head import IGNORED
from pretrain_exp.framework.huggingface.loader import Loader, derive
from pretrain_exp.framework.worker.job import Job

X = IGNORED


@pytest.mark.parametrize(
    ("tokens", "masked", "labels", "positions"),
    [
        ([1, 2, 9, 3, 4], False, [2, 9, 3, 4, X], None),
        ([1, 2, 9, 3, 4], True, [2, 9, X, 4, X], [0, 1, 2, 0, 1]),
        ([9, 9, 1, 2, 9], True, [X, X, 2, 9, X], [0, 0, 0, 1, 2]),
        ([1, 2, 3, 4, 5], True, [2, 3, 4, 5, X], [0, 1, 2, 3, 4]),
    ],
)
def test_derived_from_the_tokens(
    tokens: list[int], masked: bool, labels: list[int], positions: list[int] | None
) -> None:
    found, columns = derive(np.array([tokens, tokens[::-1]]), 9, masked)
    assert found[0].tolist() == labels
    assert (columns is None) if positions is None else (columns is not None and columns[0].tolist() == positions)


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_ranks_and_threads_read_what_the_order_says(world: int, threads: int, make_segment: Any) -> None:
    job = Job.load(make_segment().write())
    seen: dict[int, list[list[int]]] = {}
    for rank in range(world):
        with Loader(job, rank, world, threads) as loader:
            batches = list(loader.batches(2, 6))
        assert [batch.step for batch in batches] == [2, 3, 4, 5]
        for batch in batches:
            assert batch.rows.tolist() == list(range(rank, G, world))
            for slot, row in zip(batch.slots.tolist(), batch.tokens.tolist(), strict=True):
                seen.setdefault(slot, []).append(row)
    assert seen == {slot: [list(range(slot * S, (slot + 1) * S))] for slot in range(2 * G, 6 * G)}


def test_threads_keep_epochs_apart(make_segment: Any) -> None:
    job = Job.load(make_segment(seed=5).write())
    with Loader(job, 0, 1, 0) as one, Loader(job, 0, 1, 4) as many:
        for expected, found in zip(one.batches(0, 40), many.batches(0, 40), strict=True):
            assert np.array_equal(expected.tokens, found.tokens)
            assert np.array_equal(expected.labels, found.labels)


def test_a_failing_read_is_not_swallowed(make_segment: Any, tmp_path: Path) -> None:
    segment = make_segment(overlay=tmp_path / "nothing")
    with Loader(Job.load(segment.write()), 0, 1, 2) as loader, pytest.raises(Exception, match="nothing"):
        list(loader.batches(0, 2))


def test_eos_is_the_jobs(make_segment: Any) -> None:
    job = Job.load(make_segment(training={"document_masking": True}).write())
    with Loader(job, 0, 1, 0) as loader:
        (batch,) = loader.batches(7, 8)
    assert batch.tokens[-1, -1] == EOS
    assert batch.predicted == G * (S - 1)
