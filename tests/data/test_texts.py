"""TextSource: every format gives the same tokens, once; killed and continued."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from packed import origins, starts
from text_files import TEXTS, lines, source, tokens, tokens_of

from pretrain_exp.data import pack
from pretrain_exp.data.readers import TextReader
from pretrain_exp.data.tokenizer import EOS, Tokenizer
from pretrain_exp.errors import UserError


def plain_files(folder: Path) -> None:
    for i, text in enumerate(TEXTS):
        (folder / f"{i:03d}.txt").write_text(text)


def two_frames(data: bytes) -> bytes:
    middle = data.index(b"\n", len(data) // 2) + 1
    return zstandard.compress(data[:middle]) + zstandard.compress(data[middle:])


FORMATS: dict[str, tuple[Callable[[Path], object], dict[str, Any]]] = {
    "jsonl": (lambda d: (d / "a.jsonl").write_bytes(lines(TEXTS)), {}),
    "jsonl with blank lines": (lambda d: (d / "a.jsonl").write_bytes(b"\n" + lines(TEXTS) + b" \n"), {}),
    "jsonl in two files": (
        lambda d: [(d / f"{i}.jsonl").write_bytes(lines(TEXTS[6 * i :][:6])) for i in range(2)],
        {},
    ),
    "jsonl.gz": (lambda d: (d / "a.jsonl.gz").write_bytes(gzip.compress(lines(TEXTS))), {}),
    "jsonl.zst": (lambda d: (d / "a.jsonl.zst").write_bytes(zstandard.compress(lines(TEXTS))), {}),
    "jsonl.zst of two frames": (lambda d: (d / "a.jsonl.zst").write_bytes(two_frames(lines(TEXTS))), {}),
    "another key": (
        lambda d: (d / "a.jsonl").write_bytes(lines(TEXTS).replace(b'"text"', b'"content"')),
        {"text_key": "content"},
    ),
    "parquet": (lambda d: pq.write_table(pa.table({"id": range(12), "text": TEXTS}), d / "a.parquet"), {}),
    "parquet in row groups": (
        lambda d: pq.write_table(pa.table({"text": TEXTS}), d / "a.parquet", row_group_size=5),
        {},
    ),
    "plain text": (plain_files, {}),
    "paragraphs": (lambda d: (d / "a.txt").write_text("\n\n" + "\n\n \n".join(TEXTS)), {"split": "paragraph"}),
    "paragraphs, windows, gz": (
        lambda d: (d / "a.txt.gz").write_bytes(gzip.compress("\r\n\r\n".join(TEXTS).encode() + b"\r\n")),
        {"split": "paragraph"},
    ),
}


@pytest.mark.parametrize(("write", "fields"), FORMATS.values(), ids=FORMATS.keys())
def test_every_format_gives_the_same_tokens(
    folder: Path, numbers: Tokenizer, write: Callable[[Path], object], fields: dict[str, Any]
) -> None:
    write(folder)
    files = source(folder, **fields).prepare(folder.parent / "cache", numbers, progress=False)
    assert tokens(files) == tokens_of(TEXTS, numbers.eos_token_id)
    assert np.load(files.documents).tolist() == list(range(0, 72, 6))
    assert files.files[0].dtype == "uint16"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read, in order."""
    seen: list[str] = []
    original = TextReader.read

    def read(self: TextReader, path: str, advance: Any) -> Iterator[Any]:
        seen.append(Path(path).name)
        return original(self, path, advance)

    monkeypatch.setattr(TextReader, "read", read)
    return seen


def test_the_same_content_is_packed_once(folder: Path, numbers: Tokenizer, reads: list[str]) -> None:
    (folder / "a.jsonl").write_bytes(lines(TEXTS))
    cache = folder.parent / "cache"
    first = source(folder).prepare(cache, numbers, progress=False)
    assert reads == ["a.jsonl"]
    (folder / "a.jsonl").touch()
    assert source(folder).prepare(cache, numbers, progress=False) == first
    folder.rename(folder.parent / "moved")
    assert source(folder.parent / "moved", processes=3).prepare(cache, numbers, progress=False) == first
    assert reads == ["a.jsonl"]
    assert source(folder.parent / "moved", holdout=0.5).prepare(cache, numbers, progress=False) != first
    (folder.parent / "moved" / "a.jsonl").write_bytes(lines(TEXTS[:-1]))
    shorter = source(folder.parent / "moved").prepare(cache, numbers, progress=False)
    assert tokens(shorter) == tokens_of(TEXTS[:-1], numbers.eos_token_id)
    assert reads == ["a.jsonl"] * 3


def test_any_number_of_processes(folder: Path, numbers: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "SHARD_BYTES", 1)
    for i in range(3):
        (folder / f"{i}.jsonl").write_bytes(lines(TEXTS[4 * i :][:4]))
    one = source(folder, processes=1).prepare(folder.parent / "one", numbers, progress=False)
    two = source(folder, processes=2).prepare(folder.parent / "two", numbers, progress=True)
    assert tokens(one) == tokens(two) == tokens_of(TEXTS, numbers.eos_token_id)
    assert one.fingerprint() == two.fingerprint()


KILLED = """
import os, signal, sys
from pathlib import Path
from pretrain_exp.data import pack, shards
from pretrain_exp.data.texts import TextSource
from pretrain_exp.data.tokenizer import load

pack.SHARD_BYTES = 1
add = shards._PartWriter.add
def killed(self, index, file, document):
    add(self, index, file, document)
    if (index, document.record) == (2, 1):
        os.kill(os.getpid(), signal.SIGKILL)
shards._PartWriter.add = killed
folder, cache, tokenizer = sys.argv[1:]
TextSource(paths=[folder + "/*"], processes=1).prepare(Path(cache), load(Path(tokenizer)), progress=False)
"""


def test_killed_and_continued(
    folder: Path, numbers: Tokenizer, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "SHARD_BYTES", 1)
    cache = folder.parent / "cache"
    for i in range(4):
        (folder / f"{i}.jsonl").write_bytes(lines(TEXTS[3 * i :][:3]))
    run = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(cache), numbers.folder], check=False)
    assert run.returncode == -signal.SIGKILL
    assert not list(cache.rglob("meta.json"))
    files = source(folder).prepare(cache, numbers, progress=False)
    assert reads == ["2.jsonl", "3.jsonl"]  # the first two were finished
    assert tokens(files) == tokens_of(TEXTS, numbers.eos_token_id)
    assert [path.name for path in (cache / "tokens").iterdir()] == [Path(files.files[0].path).parent.name]


def test_a_written_out_end_of_text_is_text(folder: Path, numbers: Tokenizer) -> None:
    (folder / "a.jsonl").write_bytes(lines([f"1 {EOS} 2", "3"]))
    files = source(folder).prepare(folder.parent / "cache", numbers, progress=False)
    assert tokens(files) == [1, 0, 2, numbers.eos_token_id, 3, numbers.eos_token_id]  # 0 stands for unknown words
    assert starts(files) == [0, 4]


@pytest.mark.parametrize("shard_bytes", [1, 1 << 20])
def test_origins_and_domains(
    folder: Path, numbers: Tokenizer, monkeypatch: pytest.MonkeyPatch, shard_bytes: int
) -> None:
    monkeypatch.setattr(pack, "SHARD_BYTES", shard_bytes)
    (folder / "a.jsonl").write_bytes(lines(TEXTS[:1], topic="x") + lines(TEXTS[1:2], topic="y"))
    (folder / "b.jsonl").write_bytes(lines(TEXTS[2:3], topic="y") + lines(TEXTS[3:4], topic="x"))
    cache = folder.parent / "cache"
    files = source(folder, domain_key="topic").prepare(cache, numbers, progress=False)
    expected = [("a.jsonl", 0, "x"), ("a.jsonl", 1, "y"), ("b.jsonl", 0, "y"), ("b.jsonl", 1, "x")]
    assert origins(files) == expected
    assert [pack.origin(files, i) for i in range(len(expected))] == expected
    report = pack.report(files)
    assert report is not None
    assert report["domains"] == [
        {"domain": "x", "documents": 2, "tokens": 12},
        {"domain": "y", "documents": 2, "tokens": 12},
    ]
    by_file = source(folder).prepare(cache, numbers, progress=False)
    assert [domain for *_, domain in origins(by_file)] == ["a", "a", "b", "b"]
    (folder / "b.jsonl").write_bytes(lines(TEXTS[2:3]))
    with pytest.raises(UserError, match=r"b.jsonl, record 0: the domain 'topic' is None"):
        source(folder, domain_key="topic").prepare(cache, numbers, progress=False)


@pytest.mark.parametrize("limit", [6, 11, 12, 35, 71, 72, 1000])
@pytest.mark.parametrize("shard_bytes", [1, 1 << 20])
def test_limit_keeps_whole_documents_from_the_beginning(
    folder: Path, numbers: Tokenizer, monkeypatch: pytest.MonkeyPatch, limit: int, shard_bytes: int
) -> None:
    monkeypatch.setattr(pack, "SHARD_BYTES", shard_bytes)
    for i in range(3):
        (folder / f"{i}.jsonl").write_bytes(lines(TEXTS[4 * i :][:4]))
    files = source(folder, limit_tokens=limit).prepare(folder.parent / "cache", numbers, progress=False)
    kept = min(limit // 6, 12)
    assert tokens(files) == tokens_of(TEXTS[:kept], numbers.eos_token_id)
    assert starts(files) == [6 * i for i in range(kept)]
    report = pack.report(files)
    assert report is not None
    assert report["cut_at_limit"] == (kept < 12)


def test_held_out_documents_never_enter(folder: Path, numbers: Tokenizer) -> None:
    texts = [f"{i} {j}" for i in range(40) for j in range(50)]
    (folder / "a.jsonl").write_bytes(lines(texts + texts[:300]))  # some twice
    cache = folder.parent / "cache"
    kept: dict[int, set[str]] = {}
    for seed in (0, 1):
        held = source(folder, holdout=0.1, holdout_seed=seed)
        files = held.prepare(cache, numbers, progress=False)
        path = pack.heldout(files)
        assert path is not None
        out = [json.loads(row) for row in path.open()]
        assert {row["domain"] for row in out} == {"a"}
        kept[seed] = set(held.texts(cache))
        assert kept[seed].isdisjoint(row["text"] for row in out)
        assert kept[seed] | {row["text"] for row in out} == set(texts)
        assert len(tokens(files)) == 3 * (2300 - len(out))
        assert abs(len(kept[seed]) - 1800) < 60  # 4.5 standard deviations of Binomial(2000, 0.1)
    assert kept[0] != kept[1]
    assert pack.heldout(source(folder).prepare(cache, numbers, progress=False)) is None


def test_fingerprint_knows_content_and_options_only(folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(lines(TEXTS))
    cache = folder.parent / "cache"
    first = source(folder).texts_digest(cache)
    folder.rename(folder.parent / "moved")
    moved = folder.parent / "moved"
    assert source(moved, processes=4).texts_digest(cache) == first
    others = [source(moved, **fields).texts_digest(cache) for fields in ({"holdout": 0.1}, {"text_key": "t"})]
    (moved / "a.jsonl").write_bytes(lines(TEXTS[::-1]))
    assert len({first, *others, source(moved).texts_digest(cache)}) == 4
