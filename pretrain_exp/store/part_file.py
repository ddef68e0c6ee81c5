"""A file that is being downloaded: its bytes, and a journal of those that have come.

    <path>.part        the bytes, each at its place (a sparse file)
    <path>.part.log    a line of JSON with url, size and etag, then "start stop digest" for every block that was written
    <path>             the file, once it holds all that was wanted
    <path>.spans.json  beside it where that is not the whole file: url, size, etag, and the blocks it holds

A process that is killed loses at most the blocks that were being written. A line of the journal that was cut off names
fewer bytes than were written, or none. Blocks that an earlier process left are held against their digests: what a
machine that went down did not bring to the disk comes again.

Further spans of a file in place are written into its holes, so that whoever reads it is not disturbed; its list grows
when they have all come.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from threading import Lock

from pretrain_exp.store.remote import Remote
from pretrain_exp.store.spans import Span, join, subtract
from pretrain_exp.store.states import write_json

log = logging.getLogger(__name__)
Block = tuple[int, int, str]  # [start, stop) in bytes, and the digest of what came


def spans_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.spans.json")


def spans_held(path: Path) -> list[Span] | None:
    """The spans that a file in place holds; None where it is whole. Raises FileNotFoundError where there is none.

    A file that changed since it was listed is held against the digests; a block that differs is no longer listed.
    """
    changed = path.stat().st_mtime_ns
    if not spans_path(path).is_file():
        return None
    record = json.loads(spans_path(path).read_text())
    blocks = [(start, stop, digest) for start, stop, digest in record["spans"]]
    # one that grows just now changes as well: its journal says so, and nobody else may touch its list
    if record["mtime_ns"] != changed and not _log_path(path).is_file():
        blocks = _sound(path, blocks)
        write_json(spans_path(path), {**record, "mtime_ns": changed, "spans": blocks})
    return join(block[:2] for block in blocks)


class PartFile:
    """Takes blocks at any place, from any thread."""

    def __init__(self, path: Path, remote: Remote):
        """Goes on with what an earlier call left, if the server still has the same file; else begins with nothing."""
        self.path, self.remote = path, remote
        self.log = _log_path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        grows = _record(path)  # the file in place, where it holds some spans
        if grows is not None and grows[1] and not remote.is_same(grows[0]):
            grows = None
        self.part = path if grows is not None else path.with_name(f"{path.name}.part")
        self._blocks = self._left(grows)
        self._data = os.open(self.part, os.O_RDWR | os.O_CREAT | (0 if self._blocks or grows else os.O_TRUNC), 0o666)
        os.ftruncate(self._data, remote.size)
        _write_log(self.log, remote, self._blocks)
        self._journal = os.open(self.log, os.O_WRONLY | os.O_APPEND)
        self._lock = Lock()

    @property
    def have(self) -> list[Span]:
        """The bytes that have come."""
        return join(block[:2] for block in self._blocks)

    def write(self, at: int, block: bytes) -> None:
        """Writes `block` at byte `at`, and then that it is there. Raises OSError where there is no space."""
        done = 0
        while done < len(block):
            done += os.pwrite(self._data, block[done:], at + done)
        entry = (at, at + len(block), _digest(block))
        with self._lock:
            os.write(self._journal, _line(entry))
            self._blocks.append(entry)

    def forget(self) -> None:
        """Begins again with nothing: the server cannot serve the rest alone."""
        with self._lock:
            self._blocks = []
            _write_log(self.log, self.remote, [])
            os.close(self._journal)
            self._journal = os.open(self.log, os.O_WRONLY | os.O_APPEND)

    def close(self) -> None:
        os.close(self._data)
        os.close(self._journal)

    def finish(self) -> Path:
        """Moves the file into place, with a list of what it holds unless it is whole."""
        os.fsync(self._data)
        self.close()
        whole = not subtract([(0, self.remote.size)], self.have)
        if self.part != self.path:
            self.path.unlink(missing_ok=True)  # an older file whose list would be taken for that of the new one
        if not whole:
            record = {**asdict(self.remote), "mtime_ns": self.part.stat().st_mtime_ns, "spans": sorted(self._blocks)}
            write_json(spans_path(self.path), record)
        else:
            spans_path(self.path).unlink(missing_ok=True)
        os.replace(self.part, self.path)
        self.log.unlink()
        return self.path

    def discard(self) -> None:
        """Deletes what has come: it is not what it should be."""
        self.close()
        self.part.unlink()
        spans_path(self.path).unlink(missing_ok=True)
        self.log.unlink()

    def _left(self, grows: tuple[Remote, list[Block]] | None) -> list[Block]:
        """What earlier calls brought and the disk still has."""
        found = _read_log(self.log) if self.part.is_file() else None
        if found is not None and not (self.remote.is_same(found[0]) and self.remote.ranges):
            log.warning(
                "%s: what had come of %s is not what the server has now; it begins anew", self.path, self.remote.url
            )
            found = None
        return _sound(self.part, {*(found[1] if found else ()), *(grows[1] if grows else ())})


def free_bytes(folder: Path) -> tuple[Path, int]:
    """The nearest folder above that exists, and the bytes free there."""
    while not folder.exists():
        folder = folder.parent
    return folder, shutil.disk_usage(folder).free


def _log_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.part.log")


def _record(path: Path) -> tuple[Remote, list[Block]] | None:
    """Of a file in place that holds some spans: what the server said of it, and its blocks."""
    if not path.is_file() or not spans_path(path).is_file():
        return None
    found = json.loads(spans_path(path).read_text())
    remote = Remote(found["url"], found["size"], found["etag"], found["ranges"])
    return remote, [(start, stop, digest) for start, stop, digest in found["spans"]]


def _sound(path: Path, blocks: Iterable[Block]) -> list[Block]:
    """Those blocks that the file really holds."""
    blocks, sound = sorted(blocks), []
    with open(path, "rb") if blocks else open(os.devnull, "rb") as file:
        for start, stop, digest in blocks:
            file.seek(start)
            if _digest(file.read(stop - start)) == digest:
                sound.append((start, stop, digest))
    if len(sound) < len(blocks):
        log.warning("%s: %d blocks are not what came; they are fetched again", path, len(blocks) - len(sound))
    return sound


def _digest(block: bytes) -> str:
    return blake2b(block, digest_size=8).hexdigest()


def _line(block: Block) -> bytes:
    return "{} {} {}\n".format(*block).encode()


def _write_log(path: Path, remote: Remote, blocks: list[Block]) -> None:
    partial = path.with_name(f"{path.name}.new")
    partial.write_bytes(json.dumps(asdict(remote)).encode() + b"\n" + b"".join(map(_line, blocks)))
    os.replace(partial, path)


def _read_log(path: Path) -> tuple[Remote, list[Block]] | None:
    if not path.is_file():
        return None
    head, *lines = path.read_text().split("\n")
    found = json.loads(head)
    remote = Remote(found["url"], found["size"], found["etag"], found["ranges"])
    entries = [line.split() for line in lines[:-1]]  # what follows the last newline was cut off
    return remote, [(int(entry[0]), int(entry[1]), entry[2]) for entry in entries if len(entry) == 3]
