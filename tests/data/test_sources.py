"""TokenFileSource: every layout gives the same tokens; what is no token file is refused with its numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain_exp.data import inputs, sources
from pretrain_exp.data.sources import TokenFileSource
from pretrain_exp.data.token_files import TokenFiles
from pretrain_exp.data.tokenizer import Tokenizer
from pretrain_exp.errors import UserError

IDS = np.arange(900)
LAYOUTS: dict[str, tuple[Callable[[Path], object], dict[str, Any]]] = {
    "uint16": (lambda p: p.write_bytes(IDS.astype("<u2").tobytes()), {"dtype": "uint16"}),
    "uint32": (lambda p: p.write_bytes(IDS.astype("<u4").tobytes()), {"dtype": "uint32"}),
    "header": (lambda p: p.write_bytes(b"sixteen bytes ..." + IDS.astype("<u2").tobytes()), {"header_bytes": 17}),
    "npy uint16": (lambda p: np.save(p, IDS.astype("<u2")), {"dtype": "uint32"}),  # its own type counts
    "npy uint32": (lambda p: np.save(p, IDS.astype("<u4")), {}),
    "npy int64": (lambda p: np.save(p, IDS), {"header_bytes": 5}),
}


def source(path: Path | str, **fields: Any) -> TokenFileSource:
    return TokenFileSource(paths=[str(path)], **({"dtype": "uint16"} | fields))


@pytest.mark.parametrize(("write", "fields"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_every_layout(
    tmp_path: Path, numbers: Tokenizer, write: Callable[[Path], object], fields: dict[str, Any]
) -> None:
    write(tmp_path / "a.npy")
    files = source(tmp_path / "a.npy", **fields).prepare(tmp_path / "cache", numbers, progress=False)
    assert files.read(0, files.num_tokens).tolist() == IDS.tolist()
    assert files.eos_token_id == numbers.eos_token_id


def test_files_in_order_with_stable_names(tmp_path: Path, numbers: Tokenizer) -> None:
    for name, start in [("x/b.npy", 10), ("x/a.npy", 0), ("y/c.npy", 20)]:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(np.arange(start, start + 10, dtype="<u2").tobytes())

    def prepare(folder: str) -> Any:
        pattern = str(tmp_path / folder / "**" / "*.npy")
        return TokenFileSource(paths=[pattern], dtype="uint16", eos_token_id=7).prepare(tmp_path / "c", numbers, False)

    files = prepare("data")
    assert files.read(0, 30).tolist() == list(range(30))
    assert [file.name for file in files.files] == ["x/a.npy", "x/b.npy", "y/c.npy"]
    assert files.eos_token_id == 7
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = prepare("moved")
    assert moved.fingerprint() == files.fingerprint()
    assert [file.name for file in moved.files] == [file.name for file in files.files]


WRONG: dict[str, tuple[Callable[[Path], object], dict[str, Any], str]] = {
    "odd size": (lambda p: p.write_bytes(b"12345"), {}, "5 bytes of ids.*no multiple of the 2 bytes of uint16"),
    "uint16 as uint32": (lambda p: p.write_bytes(b"123456"), {"dtype": "uint32"}, "6 bytes"),
    "empty": (lambda p: p.touch(), {}, "0 bytes, 0 of them header"),
    "header only": (lambda p: p.write_bytes(b"12345678"), {"header_bytes": 8}, "8 bytes, 8 of them header"),
    "id = vocabulary": (lambda p: np.save(p, np.array([1, 2, 1001])), {}, "token 2 of .* is 1001, outside.* 1001 ids"),
    "negative id": (lambda p: np.save(p, np.array([1, -2])), {}, "token 1 of .* is -2"),
    "wrong type": (lambda p: p.write_bytes(IDS.astype("<u2").tobytes()), {"dtype": "uint32"}, "outside the tokenizer"),
    "npy matrix": (lambda p: np.save(p, np.zeros((2, 3), "u2")), {}, r"uint16 of shape \(2, 3\)"),
    "npy floats": (lambda p: np.save(p, np.zeros(3)), {}, "float64 of shape"),
    "npy objects": (lambda p: np.save(p, np.array([None])), {}, "damaged or holds objects"),
    "npy cut off": (lambda p: p.write_bytes(b"\x93NUMPY\x01"), {}, "damaged"),
    "missing": (lambda p: None, {}, "no file matches"),
}


@pytest.mark.parametrize(("write", "fields", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_files(
    tmp_path: Path, numbers: Tokenizer, write: Callable[[Path], object], fields: dict[str, Any], message: str
) -> None:
    write(tmp_path / "a.npy")
    with pytest.raises(UserError, match=message):
        source(tmp_path / "a.npy", **fields).prepare(tmp_path / "cache", numbers, progress=False)


@pytest.mark.parametrize(("fields", "seen"), [({}, True), ({"digest": "sampled"}, False)])
def test_a_change_between_the_probes_is_another_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: Tokenizer, fields: dict[str, Any], seen: bool
) -> None:
    """Unless samples were asked for."""
    monkeypatch.setattr(inputs, "_WHOLE", 0)
    ids = np.zeros(1 << 20, dtype="<u2")
    found = []
    for value in (0, 1):
        ids[120_000] = value
        (tmp_path / "a.npy").write_bytes(ids.tobytes())
        files = source(tmp_path / "a.npy", **fields).prepare(tmp_path / "cache", numbers, progress=False)
        found.append(files.fingerprint())
    assert (found[0] != found[1]) == seen


@pytest.mark.parametrize("fields", [{}, {"digest": "sampled"}])
def test_progress_counts_every_byte_also_of_files_known_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: Tokenizer, fields: dict[str, Any]
) -> None:
    monkeypatch.setattr(inputs, "_WHOLE", 0)
    monkeypatch.setattr(inputs, "_SETTLED", -1.0)
    sizes = [1 << 16, 1 << 21, 1 << 22]
    for i, size in enumerate(sizes):
        (tmp_path / f"{i}.npy").write_bytes(bytes(size))
    totals, counts = [], []

    @contextmanager
    def bar(description: str, total: int, unit: str, show: bool) -> Iterator[Callable[[int], None]]:
        totals.append((total, unit))
        yield counts.append

    monkeypatch.setattr(sources, "progress_bar", bar)
    for _ in range(2):
        totals.clear()
        counts.clear()
        source(tmp_path / "*.npy", **fields).fingerprint_inputs(tmp_path / "cache")
        assert totals == [(sum(sizes), "bytes")]
        assert sum(counts) == sum(sizes)


def test_audit_finds_what_probes_miss(tmp_path: Path, numbers: Tokenizer) -> None:
    ids = np.zeros(1 << 20, dtype="<u2")
    ids[100_000] = 5000
    (tmp_path / "a.npy").write_bytes(ids.tobytes())
    source(tmp_path / "a.npy").prepare(tmp_path / "cache", numbers, progress=False)
    with pytest.raises(UserError, match=r"token 100000 of .* is 5000"):
        source(tmp_path / "a.npy", audit=True).prepare(tmp_path / "cache", numbers, progress=False)


WRONG_PATTERNS: dict[str, tuple[list[str], str]] = {
    "none": ([], "no input files"),
    "no match": (["{0}/nothing*"], "no file matches"),
    "twice": (["{0}/*", "{0}/a.npy"], "already matched by paths.0"),
    "twice, spelt otherwise": (["a.npy", "./a.npy"], "already matched by paths.0"),
}


@pytest.mark.parametrize(("paths", "message"), WRONG_PATTERNS.values(), ids=WRONG_PATTERNS.keys())
def test_wrong_patterns(
    tmp_path: Path, numbers: Tokenizer, paths: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npy").write_bytes(b"12")
    patterns = [path.format(tmp_path) for path in paths]
    with pytest.raises(UserError, match=message):
        TokenFileSource(paths=patterns, dtype="uint16").prepare(tmp_path / "cache", numbers, progress=False)


def test_a_relative_path_is_read_from_any_folder(
    tmp_path: Path, numbers: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job may be run by a study that was typed in another folder."""
    monkeypatch.chdir(tmp_path)
    np.arange(4, dtype="<u2").tofile("a.npy")
    files = TokenFileSource(paths=["a.npy"], dtype="uint16").prepare(tmp_path / "cache", numbers, progress=False)
    monkeypatch.chdir("/")
    assert TokenFiles.from_json(files.to_json()).read(0, 4).tolist() == [0, 1, 2, 3]


def test_files_names_the_pattern_that_matches_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.npy").touch()
    paths = [f"{tmp_path}/*.npy", f"{tmp_path}/*.bin"]
    expected = [("paths.0", f"{tmp_path}/a.npy"), ("paths.1", f"{tmp_path}/*.bin")]
    assert TokenFileSource(paths=paths, dtype="uint16").files() == expected


class TestDigest:
    """What tells files apart, and when it is computed again."""

    @pytest.mark.parametrize("whole", [True, False])
    def test_knows_content_and_length(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
        monkeypatch.setattr(inputs, "_WHOLE", 0)
        digests = set()
        contents = [b"\0" * 2**21, b"\0" * 2**21 + b"\0", b"\1" + b"\0" * (2**21 - 1), b"\0" * (2**21 - 1) + b"\1"]
        for i, content in enumerate([*contents, contents[0]]):
            path = tmp_path / str(i)
            path.write_bytes(content)
            digests.add(inputs.file_digest(str(path), tmp_path / "cache", whole=whole))
        assert len(digests) == 4
        assert all(digest.startswith("sampled-") != whole for digest in digests)

    def test_skips_the_header(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"headABC")
        (tmp_path / "b").write_bytes(b"ABC")
        first = inputs.file_digest(str(tmp_path / "a"), tmp_path / "c", offset=4)
        assert first == inputs.file_digest(str(tmp_path / "b"), tmp_path / "c")

    def test_kept_until_the_file_changes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inputs, "_SETTLED", -1.0)
        path = tmp_path / "a"
        path.write_bytes(b"abc")
        os.utime(path, (1, 1))  # a clock of stamps may be too coarse to tell this write from the next one
        first = inputs.file_digest(str(path), tmp_path / "c")
        with monkeypatch.context() as patch:
            patch.setattr("builtins.open", lambda *_: pytest.fail("the file was read again"))
            assert inputs.file_digest(str(path), tmp_path / "c") == first
        for kept in (tmp_path / "c/digests").iterdir():
            kept.write_text("")  # by a machine that lost its power
        assert inputs.file_digest(str(path), tmp_path / "c") == first
        path.write_bytes(b"abd")
        assert inputs.file_digest(str(path), tmp_path / "c") != first

    def test_not_kept_while_the_file_may_still_change(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"abc")
        inputs.file_digest(str(path), tmp_path / "c")
        assert not (tmp_path / "c").exists()
