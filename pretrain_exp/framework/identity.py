"""What names the content of a checkpoint's files: a start enters the keys of states by it, never by where it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")  # of a Hugging Face folder
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".distcp")  # of weights, in any framework's format


@dataclass(frozen=True)
class Content:
    """The files that a checkpoint is known by. ends: bytes of each one's head and tail that count; None: all of it."""

    files: tuple[Path, ...]
    ends: tuple[int, int] | None = None

    def digest(self) -> str:
        """SHA-256, 64 hex digits."""
        return digest_files(self.files) if self.ends is None else digest_ends(self.files, *self.ends)

    def seal(self) -> dict[str, Any]:
        """The digest, and how the files stood before they were read for it: JSON for `refuse_changed`."""
        stamps, beside = tuple(stamp(path) for path in self.files), _weights_beside(self.files)
        files = [[str(path), *each] for path, each in zip(self.files, stamps, strict=True)]
        return {"files": files, "weights": beside, "ends": self.ends, "digest": _digest(self, stamps)}


def stamp(path: Path) -> tuple[int, int, int]:
    """Size in bytes, time of the last change in ns, and inode: a file that has kept all three has kept its content."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


@lru_cache
def _digest(content: Content, stamps: tuple[tuple[int, int, int], ...]) -> str:
    """Of files as they stood then: the members of a sweep begin with the same ones."""
    return content.digest()


def refuse_changed(seal: Mapping[str, Any]) -> dict[str, Any]:
    """The seal as it is now. UserError where its files are not what they were, or weights came beside them or went.

    Files that have kept size, time of change and inode are the same and are not read; where one has not (it was copied,
    touched, or another machine sees it otherwise), all are read again and the digest decides.
    """
    paths = tuple(Path(name) for name, *_ in seal["files"])
    moved = {*_weights_beside(paths)} ^ {*seal["weights"]} | {str(path) for path in paths if not path.is_file()}
    changed = [] if moved else [name for name, *was in seal["files"] if [*stamp(Path(name))] != was]
    if not moved and not changed:
        return dict(seal)
    if not moved:
        now = Content(paths, None if seal["ends"] is None else (seal["ends"][0], seal["ends"][1])).seal()
        if now["digest"] == seal["digest"]:
            return now
    raise UserError(
        "the checkpoint has changed since its job was planned: nothing is trained from it",
        key="model.checkpoint",
        value=sorted(moved or changed)[0],
        fix="type the command again, which plans it anew",
    )


def _weights_beside(paths: Iterable[Path]) -> list[str]:
    folders = sorted({path.parent for path in paths})
    return sorted(str(path) for each in folders if each.is_dir() for path in each.iterdir() if path.suffix in SUFFIXES)


def digest_files(files: Iterable[Path]) -> str:
    """SHA-256 over names and contents, 64 hex digits."""
    total = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def published(model: Mapping[str, Any]) -> str | None:
    """Of a checkpoint given by URL and step: a published one is taken to be what it is called. None for others."""
    url = model.get("checkpoint_url")
    return f"{url}@{model['checkpoint_step']}" if url else None


def digest_ends(files: Iterable[Path], head: int, tail: int) -> str:
    """SHA-256 over names, sizes and so many bytes of each file's beginning and end: whole ones would take hours."""
    total = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        total.update(f"{path.name}:{size}:".encode())
        with open(path, "rb") as file:
            total.update(file.read(head))
            file.seek(max(0, size - tail))
            total.update(file.read(tail))
    return total.hexdigest()
