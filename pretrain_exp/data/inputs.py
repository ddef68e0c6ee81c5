"""Input files: which ones a configuration names, what they are called, and a digest of what they hold.

In: paths and glob patterns. Out: files in a stable order with stable names, and digests that are computed once a file.
"""

from __future__ import annotations

import glob
import hashlib
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from pretrain_exp.errors import UserError

_BLOCK = 1 << 22  # bytes
_WHOLE = 64 << 20  # bytes; smaller files are always read whole, also where samples are asked for
_SAMPLE = 1 << 16  # bytes of one probe of a sampled digest
_PROBES = 16
_SETTLED = 2.0  # seconds; a file changed more recently may change again without its time stamp telling


def matches(paths: list[str]) -> list[tuple[str, str]]:
    """(configuration key, path) of each pattern's files, sorted within a pattern.

    A pattern that matches nothing stands for itself, so whoever checks that these files exist finds it.
    """
    found = []
    for i, pattern in enumerate(paths):
        hits = sorted(path for path in glob.glob(os.path.expanduser(pattern), recursive=True) if os.path.isfile(path))
        found += [(f"paths.{i}", path) for path in hits or [pattern]]
    return found


def expand(paths: list[str]) -> list[str]:
    """The files that the patterns match. UserError where one matches nothing, or two match the same file."""
    if not paths:
        raise UserError(
            "no input files are given", key="paths", value=paths, fix="name files, or patterns like data/*.jsonl"
        )
    seen: dict[str, tuple[str, str]] = {}
    for key, path in matches(paths):
        if not os.path.isfile(path):
            raise UserError("no file matches this path", key=key, value=path, fix="mend the path or the pattern")
        before = seen.setdefault(os.path.abspath(path), (key, path))
        if before != (key, path):
            raise UserError(f"this file is already matched by {before[0]}", key=key, value=path, fix="name it once")
    return [path for _, path in seen.values()]


def names(paths: list[str]) -> list[str]:
    """A readable name for each file: its path below the folder that holds them all, so a moved folder keeps them."""
    absolute = [os.path.abspath(path) for path in paths]
    common = os.path.commonpath([os.path.dirname(path) for path in absolute])
    return [os.path.relpath(path, common) for path in absolute]


def file_digest(
    path: str, cache: Path, *, offset: int = 0, whole: bool = True, advance: Callable[[int], None] = lambda n: None
) -> str:
    """32 hex digits of the bytes from `offset` on, kept in `cache` as long as the file's size and time stamps stay.

    whole=False reads 16 probes of 64 KiB, evenly spread and both ends included, and the size; such a digest begins
    with "sampled-". It tells files apart and finds truncation, not a change between the probes. Files of up to 64 MiB
    are read whole anyway. advance: told of the bytes that are done, `size - offset` of them in all.
    """
    stat = os.stat(path)
    whole = whole or stat.st_size - offset <= _WHOLE
    what = [os.path.abspath(path), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, offset, whole]
    kept = cache / "digests" / hashlib.blake2b(repr(what).encode(), digest_size=16).hexdigest()
    known = kept.read_text() if kept.is_file() else ""  # empty where a machine lost its power: it tells nothing
    if known:
        advance(stat.st_size - offset)
        return known
    hasher = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        if whole:
            file.seek(offset)
            while block := file.read(_BLOCK):
                hasher.update(block)
                advance(len(block))
            digest = hasher.hexdigest()
        else:
            span = stat.st_size - offset - _SAMPLE
            for i in range(_PROBES):
                file.seek(offset + span * i // (_PROBES - 1))
                hasher.update(file.read(_SAMPLE))
            hasher.update(str(stat.st_size - offset).encode())
            advance(stat.st_size - offset)
            digest = f"sampled-{hasher.hexdigest()}"
    if time.time() - max(stat.st_mtime, stat.st_ctime) > _SETTLED:
        write_text(kept, digest)
    return digest


def write_text(path: Path, text: str) -> None:
    """Writes a text file elsewhere in its folder, then moves it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
