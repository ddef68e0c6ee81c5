"""A file in blocks of which no two are alike, and how the tests fetch it."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pretrain_exp.store.download import download
from pretrain_exp.store.remote import BLOCK
from pretrain_exp.store.transfer import Download, Options

Server = Any  # of conftest.py
QUICK = Options(connections=3, retries=3, wait_seconds=0.001, timeout_seconds=600, piece_bytes=2 * BLOCK)
SIZE = 5 * BLOCK + 77


def content(size: int = SIZE) -> bytes:
    return np.arange((size + 3) // 4, dtype="<u4").tobytes()[:size]  # no two places alike


@pytest.fixture(autouse=True)
def one_file(server: Server) -> None:
    server.files["/a.bin"] = content()


def fetch(server: Server, path: Path, name: str = "/a.bin", **known: Any) -> bytes:
    silent = Console(file=StringIO())
    assert download([Download(server.url + name, path, **known)], QUICK, silent) == [path]
    return path.read_bytes()


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if ".part" in path.name)
