"""TokenFiles against np.concatenate, and what enters its fingerprint."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pretrain_exp.data.token_files import TokenFiles
from pretrain_exp.errors import UserError

Stream = Callable[..., TokenFiles]


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "int32", "int64"])
@pytest.mark.parametrize("lengths", [[12], [5, 1, 6], [0, 7, 0, 0, 5, 0]], ids=str)
def test_every_span_is_that_of_the_concatenation(stream: Stream, lengths: list[int], dtype: str) -> None:
    files = stream(lengths, dtype)
    whole = np.concatenate([files.array(i) for i in range(len(lengths))])
    assert files.num_tokens == len(whole) == 12
    for start in range(13):
        for stop in range(start, 13):
            part = files.read(start, stop)
            assert part.dtype == np.uint32
            assert part.tolist() == whole[start:stop].tolist() == list(range(start, stop))
            assert part.flags.writeable


def test_what_is_read_is_a_copy(stream: Stream) -> None:
    files = stream([12])
    files.read(0, 4)[:] = 99
    assert files.read(0, 4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, 13), (5, 4)])
def test_spans_outside_the_stream(stream: Stream, start: int, stop: int) -> None:
    with pytest.raises(IndexError):
        stream([5, 7]).read(start, stop)


def test_locate_names_file_and_offset(stream: Stream) -> None:
    files = stream([5, 0, 7])
    assert [files.locate(i) for i in (0, 4, 5, 11)] == [(0, 0), (0, 4), (2, 0), (2, 6)]
    with pytest.raises(IndexError):
        files.locate(12)


def test_json_and_pickle_round_trips_read_the_same(stream: Stream) -> None:
    files = stream([5, 7])
    files.read(0, 12)
    for other in (TokenFiles.from_json(json.loads(json.dumps(files.to_json()))), pickle.loads(pickle.dumps(files))):
        assert other == files
        assert other.read(3, 9).tolist() == files.read(3, 9).tolist()


def test_a_loader_worker_is_sent_no_tokens(stream: Stream) -> None:
    files = stream([100_000])
    files.read(0, 10)
    assert len(pickle.dumps(files)) - len(files.files[0].path) < 1000


def test_fingerprint_knows_content_only(stream: Stream) -> None:
    files = stream([5, 7])
    first = files.files[0]

    def fingerprint(**changes: object) -> str:
        return replace(files, files=(replace(first, **changes), files.files[1])).fingerprint()

    assert fingerprint(path="/elsewhere", name="another") == files.fingerprint()
    assert replace(files, documents="x").fingerprint() == files.fingerprint()
    others = [fingerprint(digest="other"), fingerprint(dtype="int32"), replace(files, eos_token_id=1).fingerprint()]
    others.append(replace(files, files=files.files[::-1]).fingerprint())
    assert len({files.fingerprint(), *others}) == 5


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_damaged_files(stream: Stream, damage: str) -> None:
    files = stream([5, 7])
    path = Path(files.files[1].path)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-2])
    assert files.read(0, 5).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="cannot be opened" if damage == "missing" else "has 38 bytes"):
        files.read(4, 6)
