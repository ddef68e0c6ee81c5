"""TextSource: every format gives the same tokens, once; killed and continued; nothing is left out in silence."""

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

from pretrain_exp.data import pack
from pretrain_exp.data.readers import TextReader
from pretrain_exp.data.texts import TextSource
from pretrain_exp.data.tokenizer import EOS, Tokenizer
from pretrain_exp.errors import UserError

TEXTS = [" ".join(map(str, range(start, start + 5))) for start in range(0, 60, 5)]  # "0 1 2 3 4", "5 6 7 8 9", ...


def lines(texts: list[str], **more: str) -> bytes:
    return "".join(json.dumps({"text": text} | more) + "\n" for text in texts).encode()


def tokens_of(texts: list[str], eos: int) -> list[int]:
    return [token for text in texts for token in [*map(int, text.split()), eos]]


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def source(folder: Path, **fields: Any) -> TextSource:
    return TextSource(paths=[f"{folder}/*"], **({"processes": 1} | fields))


def tokens(files: Any) -> list[int]:
    return files.read(0, files.num_tokens).tolist()


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


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b'{"text": ""}', "the text is empty"),
    "blank": (b'{"text": " \\n"}', "the text is empty"),
    "no key": (b'{"body": "1", "id": 2}', "no key 'text'; its keys are body, id"),
    "number": (b'{"text": 5}', "'text' is a int, not a text"),
    "null": (b'{"text": null}', "'text' is a NoneType"),
    "list": (b"[1, 2]", "a list, not an object"),
    "lone surrogate": (b'{"text": "1 \\ud800"}', "not valid Unicode"),
}


@pytest.mark.parametrize(("line", "reason"), BAD.values(), ids=BAD.keys())
def test_bad_documents_are_errors_or_counted(folder: Path, numbers: Tokenizer, line: bytes, reason: str) -> None:
    (folder / "a.jsonl").write_bytes(lines(TEXTS[:2]) + line + b"\n" + lines(TEXTS[2:]))
    with pytest.raises(UserError, match=rf"a.jsonl, record 2: .*{reason}"):
        source(folder).prepare(folder.parent / "cache", numbers, progress=False)
    files = source(folder, on_bad="skip").prepare(folder.parent / "cache", numbers, progress=False)
    assert tokens(files) == tokens_of(TEXTS, numbers.eos_token_id)
    report = pack.report(files)
    assert report is not None
    assert (report["skipped"], report["num_documents"]) == (1, 12)
    listed = [json.loads(row) for row in (Path(files.files[0].path).with_name("skipped.jsonl")).open()]
    assert [(row["file"], row["record"]) for row in listed] == [("a.jsonl", 2)]
    assert reason in listed[0]["reason"]


def cut(data: bytes) -> bytes:
    return data[: len(data) - 9]


DAMAGED: dict[str, tuple[str, bytes, dict[str, Any], str]] = {
    "broken line": ("a.jsonl", lines(TEXTS[:2]) + b'\n{"text": "1', {}, "a.jsonl, line 4: not valid JSON"),
    "not UTF-8": ("a.jsonl", lines(TEXTS[:1]) + b'{"text": "\xff"}\n', {}, "a.jsonl, line 2: not valid JSON"),
    "cut gz": ("a.jsonl.gz", cut(gzip.compress(lines(TEXTS))), {}, "a.jsonl.gz is damaged or cut off"),
    "no gz": ("a.jsonl.gz", lines(TEXTS), {}, "a.jsonl.gz is damaged or cut off"),
    "cut zst": ("a.jsonl.zst", cut(zstandard.compress(lines(TEXTS))), {}, "a.jsonl.zst is damaged or cut off"),
    "no zst": ("a.jsonl.zst", lines(TEXTS), {}, "a.jsonl.zst is damaged or cut off"),
    "no parquet": ("a.parquet", lines(TEXTS), {}, "a.parquet is no Parquet file"),
    "text not UTF-8": ("a.txt", b"1 2\xff", {}, "a.txt is not UTF-8"),
    "paragraph not UTF-8": ("a.txt", b"1\n2\xff\n", {"split": "paragraph"}, "a.txt, line 2: not UTF-8"),
    "unknown format": ("a.docx", b"1 2", {}, "tells no known format.*a.docx"),
    "nothing": ("a.jsonl", b"", {}, "no document remains"),
    "nothing remains": ("a.jsonl", b"{}\n{}\n", {"on_bad": "skip"}, "0 held out, 2 skipped"),
    "limit too small": ("a.jsonl", lines(TEXTS), {"limit_tokens": 5}, "no document remains"),
}


@pytest.mark.parametrize(("name", "content", "fields", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files(
    folder: Path, numbers: Tokenizer, name: str, content: bytes, fields: dict[str, Any], message: str
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        source(folder, **fields).prepare(folder.parent / "cache", numbers, progress=False)


def test_an_error_in_another_process_arrives(folder: Path, numbers: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "SHARD_BYTES", 1)
    (folder / "0.jsonl").write_bytes(lines(TEXTS))
    (folder / "1.jsonl").write_bytes(b"{")
    with pytest.raises(UserError, match=r"1.jsonl, line 1: not valid JSON") as error:
        source(folder, processes=2).prepare(folder.parent / "cache", numbers, progress=False)
    assert "[got" not in error.value.render()


def test_parquet_without_the_column(folder: Path, numbers: Tokenizer) -> None:
    pq.write_table(pa.table({"id": [1], "body": ["1"]}), folder / "a.parquet")
    with pytest.raises(UserError, match=r"no column 'text'[\s\S]*id, body"):
        source(folder).prepare(folder.parent / "cache", numbers, progress=False)


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


def test_parquet_with_a_damaged_page(folder: Path, numbers: Tokenizer) -> None:
    pq.write_table(pa.table({"text": TEXTS * 100}), folder / "a.parquet", compression="gzip", use_dictionary=False)
    content = bytearray((folder / "a.parquet").read_bytes())
    content[40:400] = b"\0" * 360
    (folder / "a.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"a.parquet is no Parquet file, or damaged"):
        source(folder).prepare(folder.parent / "cache", numbers, progress=False)
