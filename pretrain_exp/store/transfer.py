"""The work of a download: pieces of files over several connections, retried, no byte asked for twice, then checked."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TypeVar

from pretrain_exp.errors import UserError
from pretrain_exp.store.part_file import PartFile
from pretrain_exp.store.remote import Remote, Transient, read_span
from pretrain_exp.store.spans import Span, join, pieces, subtract, total

PIECE = 64 << 20  # bytes that one request asks for
LONGEST_WAIT = 300.0  # seconds between two attempts
T = TypeVar("T")


@dataclass(frozen=True)
class Download:
    """One file to fetch. What is known of it is checked."""

    url: str
    path: Path
    size: int | None = None  # bytes
    sha256: str | None = None  # in hex; of the whole file
    etag: str | None = None  # as the server spells it
    spans: tuple[Span, ...] | None = None  # only these bytes, in a sparse file; null: the whole file


@dataclass(frozen=True)
class Options:
    connections: int = 8
    retries: int = 6  # of a request that brought nothing; one that brought something counts as the first again
    wait_seconds: float = 1.0  # before the first retry, doubled each time
    timeout_seconds: float = 60.0  # of silence on a connection
    piece_bytes: int = PIECE


@dataclass
class _Job:
    """A file under way."""

    file: Download
    remote: Remote
    part: PartFile
    left: int = 0  # pieces that have not come


def wanted_spans(file: Download, remote: Remote) -> list[Span]:
    return join([(0, remote.size)] if file.spans is None else file.spans)


def fetch_all(
    files: Sequence[Download],
    remotes: Sequence[Remote],
    wanted: Sequence[list[Span]],
    options: Options,
    pool: ThreadPoolExecutor,
    stop: Event,
    advance: Callable[[int], None],
) -> None:
    """File by file, so that few are open at a time; pieces of the next begin while those of the last still come."""
    running: dict[Future[None], _Job] = {}
    open_jobs: list[_Job] = []

    def collect(all_of_them: bool) -> None:
        while running and (all_of_them or len(running) >= options.connections):
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                future.result()
                job.left -= 1
                if not job.left:
                    open_jobs.remove(job)
                    _finish(job)

    try:
        for file, remote, spans in zip(files, remotes, wanted, strict=True):
            part = PartFile(file.path, remote)
            missing = subtract(spans, part.have)
            advance(total(spans) - total(missing))
            todo = list(pieces(missing, options.piece_bytes if remote.ranges else max(1, remote.size)))
            job = _Job(file, remote, part, left=len(todo))
            if not todo:
                _finish(job)
                continue
            open_jobs.append(job)
            for span in todo:
                running[pool.submit(_fetch, job, span, options, stop, advance)] = job
                collect(all_of_them=False)
        collect(all_of_them=True)
    finally:
        stop.set()
        wait(running)
        for job in open_jobs:
            job.part.close()


def _fetch(job: _Job, span: Span, options: Options, stop: Event, advance: Callable[[int], None]) -> None:
    """Fetches one span; what came before a connection broke is not asked for again."""
    at, end = span

    def once() -> None:
        nonlocal at
        if stop.is_set():
            return
        if not job.remote.ranges and at:  # the server can only begin again
            advance(-at)
            job.part.forget()
            at = 0
        for block in read_span(job.remote, at, end, options.timeout_seconds):
            if stop.is_set():
                return
            try:
                job.part.write(at, block)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                problem = f"no space is left ({error.strerror}) after {at:,} of {job.remote.size:,} bytes"
                raise UserError(
                    problem, value=str(job.file.path), fix="make space and run again: it continues"
                ) from error
            at += len(block)
            advance(len(block))

    retrying(once, job.remote.url, options, stop, progress=lambda: at)


def retrying(
    action: Callable[[], T], url: str, options: Options, stop: Event, progress: Callable[[], int] = lambda: 0
) -> T:
    """`action`, again after what may pass, with growing waits; attempts that brought something do not count."""
    failures, before = 0, progress()
    while True:
        try:
            return action()
        except Transient as error:
            failures = 1 if progress() > before else failures + 1
            before = progress()
            if failures > options.retries or stop.is_set():
                problem = f"gave up after {failures} attempts: {error}"
                raise UserError(problem, value=url, fix="run again: it continues where it stopped") from error
        stop.wait(min(LONGEST_WAIT, options.wait_seconds * 2 ** (failures - 1)))


def _finish(job: _Job) -> None:
    """Checks the hash, then moves the file into place."""
    if job.file.sha256 and not subtract([(0, job.remote.size)], job.part.have):
        found = sha256(job.part.part)
        if found != job.file.sha256:
            job.part.discard()
            problem = f"came with sha256 {found}, expected {job.file.sha256}; it was deleted"
            raise UserError(
                problem, value=job.file.url, fix="run again; if it stays so, the expected hash is of another file"
            )
    job.part.finish()


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
