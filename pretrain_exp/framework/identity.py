"""What names the content of a checkpoint's files: a start enters the keys of states by it, never by where it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")  # of a Hugging Face folder


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
