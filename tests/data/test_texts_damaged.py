"""TextSource: what is damaged or lacks its text is named with its place, or counted; nothing is left out in silence."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from text_files import TEXTS, lines, source, tokens, tokens_of

from pretrain_exp.data import pack
from pretrain_exp.data.tokenizer import Tokenizer
from pretrain_exp.errors import UserError

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


def test_parquet_with_a_damaged_page(folder: Path, numbers: Tokenizer) -> None:
    pq.write_table(pa.table({"text": TEXTS * 100}), folder / "a.parquet", compression="gzip", use_dictionary=False)
    content = bytearray((folder / "a.parquet").read_bytes())
    content[40:400] = b"\0" * 360
    (folder / "a.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"a.parquet is no Parquet file, or damaged"):
        source(folder).prepare(folder.parent / "cache", numbers, progress=False)
