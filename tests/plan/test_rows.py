"""Table files: each row whole and under its own name, or an error that names the row."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pretrain_exp.errors import UserError
from pretrain_exp.plan.rows import read_rows

PACKED = gzip.compress(b'{"text": "x"}\n' * 1000, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b'text,n\n"Paris, France",1\n"two\nlines",\n', [(1, "Paris, France"), (2, "two\nlines")]),
        ("a.csv", b'text\n"said ""no"""\n\nlast\n', [(1, 'said "no"'), (2, "last")]),
        ("a.csv", b"\xef\xbb\xbftext,n\nx,1\n", [(1, "x")]),
        ("a.jsonl", b'\xef\xbb\xbf{"text": "x"}\n\n{"text": "y"}\n', [(1, "x"), (3, "y")]),
    ],
)
def test_rows_are_read_whole(tmp_path: Path, name: str, content: bytes, expected: list[tuple[int, str]]) -> None:
    (tmp_path / name).write_bytes(content)
    assert [(number, fields["text"]) for number, fields in read_rows(str(tmp_path / name))] == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text\nParis\nParis, the capital of France, is big\n", "row 2 of .* not as many fields"),
        ("a.csv", b"text,n\nx,1\ny\n", "row 2 of .* not as many fields"),
        ("a.csv", b'text\n"x\ny\nz\n', "row 1 of .* unexpected end of data"),
        ("a.csv", b'text\nx\n"y" z\n', "row 2 of .* expected after"),
        ("a.csv", b"text,text\nx,y\n", "names a field twice"),
        ("a.csv", "text\nZürich\n".encode("latin-1"), "row 1 of .* cannot be read"),
        ("a.jsonl", '{"text": "Zürich"}\n'.encode("latin-1"), "row 1 of .* cannot be read"),
        ("a.jsonl.gz", PACKED[:-20], "row .* cannot be read"),
        ("a.jsonl.gz", PACKED[:12] + b"\xff" * 40, "row 1 of .* cannot be read"),
    ],
)
def test_a_row_that_cannot_be_read_whole_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(read_rows(str(tmp_path / name), "mine"))
    assert caught.value.key == "mine"
    assert caught.value.fix
