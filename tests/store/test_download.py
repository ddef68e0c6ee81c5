"""Downloads from a real server that breaks off, refuses, lies or is left in the middle."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from downloads import (
    QUICK,
    SIZE,
    Server,
    content,
    fetch,
    left_behind,
    one_file,  # noqa: F401  a fixture
)
from rich.console import Console

from pretrain_exp.errors import Problems, UserError
from pretrain_exp.store import part_file
from pretrain_exp.store.download import download
from pretrain_exp.store.remote import BLOCK
from pretrain_exp.store.spans import join
from pretrain_exp.store.transfer import Download, Options

Fault = tuple[str, int]


def test_a_file_comes_whole_in_pieces_and_each_byte_once(server: Server, tmp_path: Path) -> None:
    digest = hashlib.sha256(content()).hexdigest()
    assert fetch(server, tmp_path / "deep" / "a.bin", size=SIZE, sha256=digest) == content()
    assert len(server.asked) == 3, "pieces of two blocks"
    assert join((start, stop) for _, start, stop in server.asked) == [(0, SIZE)]
    assert server.sent == SIZE
    assert left_behind(tmp_path / "deep") == []


@pytest.mark.parametrize("size", [0, 1, BLOCK])
def test_small_files(server: Server, tmp_path: Path, size: int) -> None:
    server.files["/small"] = content(size)
    assert fetch(server, tmp_path / "small", "/small") == content(size)


def test_what_is_in_place_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    fetch(server, tmp_path / "a.bin")
    before = server.requests
    fetch(server, tmp_path / "a.bin", size=SIZE, sha256=hashlib.sha256(content()).hexdigest())
    assert server.requests == before


FAULTS: dict[str, list[Fault]] = {
    "connections that drop": [("drop", 100), ("drop", BLOCK + 5), ("drop", 1)],
    "bodies that are short": [("short", 10), ("short", BLOCK)],
    "a server that stumbles": [("status", 500), ("status", 503), ("status", 429)],
    "a range that is ignored": [("whole", 0)],
    "answers without a body": [("drop", 0), ("drop", 0)],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_what_passes_is_retried(server: Server, tmp_path: Path, faults: list[Fault]) -> None:
    server.faults["/a.bin"] = list(faults)
    assert fetch(server, tmp_path / "a.bin") == content()
    assert server.faults["/a.bin"] == []


def test_after_a_drop_only_the_rest_is_asked_for(server: Server, tmp_path: Path) -> None:
    server.faults["/a.bin"] = [("drop", BLOCK)]
    fetch(server, tmp_path / "a.bin")
    assert server.sent == SIZE


def test_progress_counts_the_retries_anew(server: Server, tmp_path: Path) -> None:
    server.faults["/a.bin"] = [("drop", 10)] * 20  # far more than the retries, but each brings something
    assert fetch(server, tmp_path / "a.bin") == content()


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"size": SIZE + 1}, f"has {SIZE:,} bytes on the server, expected {SIZE + 1:,}"),
        ({"etag": '"v2"'}, 'etag "v1" on the server, expected "v2"'),
        ({"sha256": "0" * 64}, f"came with sha256 {hashlib.sha256(content()).hexdigest()}, expected 0000"),
        ({"spans": ((0, SIZE + 1),)}, f"has {SIZE:,} bytes; asked for [0, {SIZE + 1}]"),
    ],
)
def test_what_is_not_as_expected_is_refused(
    server: Server, tmp_path: Path, known: dict[str, Any], message: str
) -> None:
    server.etags["/a.bin"] = '"v1"'
    with pytest.raises(UserError) as caught:
        fetch(server, tmp_path / "a.bin", **known)
    assert message in str(caught.value)
    assert server.url + "/a.bin" in str(caught.value)
    assert list(tmp_path.iterdir()) == [], "nothing wrong is left under any name"


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (500, 4)])
def test_what_stays_wrong_ends_with_the_address(server: Server, tmp_path: Path, status: int, requests: int) -> None:
    server.files["/a.bin"] = content(BLOCK)
    server.faults["/a.bin"] = [("status", status)] * 9
    with pytest.raises(UserError, match=f"HTTP {status}") as caught:
        fetch(server, tmp_path / "a.bin")
    assert server.url + "/a.bin" in str(caught.value)
    assert len(server.asked) == requests


def test_every_file_that_is_not_there_is_named_before_any_is_fetched(server: Server, tmp_path: Path) -> None:
    files = [Download(server.url + name, tmp_path / name[1:]) for name in ("/a.bin", "/b.bin", "/c.bin")]
    with pytest.raises(Problems) as caught:
        download(files, QUICK)
    assert "/b.bin" in str(caught.value)
    assert "/c.bin" in str(caught.value)
    assert (server.asked, list(tmp_path.iterdir())) == ([], [])


def test_a_file_that_changes_on_the_way_is_refused_and_begun_anew(server: Server, tmp_path: Path) -> None:
    server.faults["/a.bin"] = [("drop", BLOCK), ("status", 404)]
    with pytest.raises(UserError, match="HTTP 404"):
        download([Download(server.url + "/a.bin", tmp_path / "a.bin")], Options(connections=1, wait_seconds=0.001))
    assert left_behind(tmp_path) == ["a.bin.part", "a.bin.part.log"]
    server.files["/a.bin"] = other = content()[::-1]
    server.etags["/a.bin"] = '"other"'
    assert fetch(server, tmp_path / "a.bin") == other


def test_another_file_in_the_place_is_not_overwritten(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"mine")
    for known in ({"size": SIZE}, {"sha256": hashlib.sha256(content()).hexdigest()}):
        with pytest.raises(UserError, match="is there with"):
            fetch(server, tmp_path / "a.bin", **known)
    assert (tmp_path / "a.bin").read_bytes() == b"mine"


def test_too_little_space_is_said_with_numbers_before_anything_is_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(part_file.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=f"needs {SIZE:,} bytes, 1,000 are free"):
        fetch(server, tmp_path / "new" / "a.bin")
    assert server.asked == []


def test_a_server_without_ranges_is_read_from_the_start_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.faults["/a.bin"] = [("drop", BLOCK + 9)]
    assert fetch(server, tmp_path / "a.bin") == content()
    assert server.sent == BLOCK + 9 + SIZE


def test_a_host_that_is_not_there_is_said_at_once(nobody: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not answer"):
        download([Download(f"{nobody}/a.bin", tmp_path / "a.bin")])


def test_killed_in_the_middle_it_continues_with_what_is_missing(server: Server, tmp_path: Path) -> None:
    server.faults["/a.bin"] = [("stall", 2 * BLOCK + 11)]
    code = (
        "import sys; from pathlib import Path; from pretrain_exp.store.download import download;"
        "from pretrain_exp.store.transfer import Download, Options;"
        f"download([Download(sys.argv[1], Path(sys.argv[2]))], Options(connections=1, piece_bytes={4 * BLOCK}))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, server.url + "/a.bin", str(tmp_path / "a.bin")])
    journal = tmp_path / "a.bin.part.log"
    while not journal.is_file() or f"{BLOCK} {2 * BLOCK} " not in journal.read_text():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    server.release.set()
    with open(journal, "a") as file:
        file.write(f"{3 * BLOCK} 7")  # a line that the kill cut off
    assert not (tmp_path / "a.bin").exists()
    server.asked.clear()
    assert fetch(server, tmp_path / "a.bin") == content()
    assert join((start, stop) for _, start, stop in server.asked) == [(2 * BLOCK, SIZE)]
    assert left_behind(tmp_path) == []


def test_a_sentence_says_what_is_fetched_where_there_is_no_terminal(server: Server, tmp_path: Path) -> None:
    out = StringIO()
    download([Download(server.url + "/a.bin", tmp_path / "a.bin")], QUICK, Console(file=out, width=10_000))
    assert out.getvalue() == f"downloading a.bin, {SIZE:,} bytes, to {tmp_path}\ndownloaded a.bin\n"


@pytest.mark.parametrize(
    ("urls", "message"),
    [(["ftp://host/a"], "http"), (["a.bin"], "http"), (["http://h/a", "http://h/b"], "same path")],
)
def test_wrong_arguments(tmp_path: Path, urls: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        download([Download(url, tmp_path / "a") for url in urls])
