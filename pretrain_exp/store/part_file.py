"""A file that is being downloaded: its bytes, and a journal of those that have come.

    <path>.part        the bytes, each at its place (a sparse file)
    <path>.part.log    one line of JSON with url, size and etag, then "start stop" for every block that was written
    <path>             the file, once it holds all that was wanted
    <path>.spans.json  beside it where that is not the whole file: url, size, etag and the spans it holds

A process that is killed loses at most the blocks that were being written. A line of the journal that was cut off names
fewer bytes than were written, or none.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from threading import Lock

from pretrain_exp.store.remote import Remote
from pretrain_exp.store.spans import Span, join, subtract
from pretrain_exp.store.states import write_json

log = logging.getLogger(__name__)


def spans_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.spans.json")


def spans_held(path: Path) -> list[Span] | None:
    """The spans that a file in place holds; None where it is whole. Raises FileNotFoundError where there is none."""
    if not path.is_file():
        raise FileNotFoundError(path)
    found = spans_path(path)
    return [(start, stop) for start, stop in json.loads(found.read_text())["spans"]] if found.is_file() else None


class PartFile:
    """Takes blocks at any place, from any thread."""

    def __init__(self, path: Path, remote: Remote):
        """Goes on with what an earlier call left, if the server still has the same file; else begins with nothing."""
        self.path, self.remote = path, remote
        self.part, self.log = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.log")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._reopen_file_in_place()
        found = _read_log(self.log) if self.part.is_file() else None
        known = found is not None and remote.is_same(found[0]) and remote.ranges
        self.have = found[1] if found is not None and known else []
        if found is not None and not known:
            log.warning("%s: what had come of %s is not what the server has now; it begins anew", path, remote.url)
        if not known:
            self._begin([])
        self._data = os.open(self.part, os.O_RDWR | os.O_CREAT | (0 if known else os.O_TRUNC), 0o666)
        os.ftruncate(self._data, remote.size)
        self._journal = os.open(self.log, os.O_WRONLY | os.O_APPEND)
        os.write(self._journal, b"\n")  # ends a line that was cut off
        self._lock = Lock()

    def write(self, at: int, block: bytes) -> None:
        """Writes `block` at byte `at`, and then that it is there. Raises OSError where there is no space."""
        done = 0
        while done < len(block):
            done += os.pwrite(self._data, block[done:], at + done)
        line = f"{at} {at + len(block)}\n".encode()
        with self._lock:
            os.write(self._journal, line)

    def forget(self) -> None:
        """Begins again with nothing: the server cannot serve the rest alone."""
        self._begin([])
        os.close(self._journal)
        self._journal = os.open(self.log, os.O_WRONLY | os.O_APPEND)

    def close(self) -> None:
        os.close(self._data)
        os.close(self._journal)

    def finish(self, held: list[Span]) -> Path:
        """Moves the file into place, with a list of what it holds unless it is whole."""
        os.fsync(self._data)
        self.close()
        if subtract([(0, self.remote.size)], held):
            write_json(spans_path(self.path), {**asdict(self.remote), "spans": join(held)})
        os.replace(self.part, self.path)
        self.log.unlink()
        return self.path

    def discard(self) -> None:
        """Deletes what has come: it is not what it should be."""
        self.close()
        self.part.unlink()
        self.log.unlink()

    def _reopen_file_in_place(self) -> None:
        """A file in place that holds some spans becomes the part that the others are added to."""
        held = spans_held(self.path) if self.path.is_file() else None
        if held is None:
            return
        found = json.loads(spans_path(self.path).read_text())
        remote = Remote(found["url"], found["size"], found["etag"], found["ranges"])
        _write_log(self.log, remote, held)  # before the move: without its journal the part would count as empty
        os.replace(self.path, self.part)
        spans_path(self.path).unlink()

    def _begin(self, held: list[Span]) -> None:
        _write_log(self.log, self.remote, held)
        self.have = held


def free_bytes(folder: Path) -> tuple[Path, int]:
    """The nearest folder above that exists, and the bytes free there."""
    while not folder.exists():
        folder = folder.parent
    return folder, shutil.disk_usage(folder).free


def _write_log(path: Path, remote: Remote, held: list[Span]) -> None:
    partial = path.with_name(f"{path.name}.new")
    lines = [json.dumps(asdict(remote)), *(f"{start} {stop}" for start, stop in held)]
    partial.write_text("\n".join(lines) + "\n")
    os.replace(partial, path)


def _read_log(path: Path) -> tuple[Remote, list[Span]] | None:
    if not path.is_file():
        return None
    head, *lines = path.read_text().split("\n")
    found = json.loads(head)
    remote = Remote(found["url"], found["size"], found["etag"], found["ranges"])
    numbers = [line.split() for line in lines[:-1]]  # what follows the last newline was cut off
    return remote, join((int(pair[0]), int(pair[1])) for pair in numbers if len(pair) == 2)
