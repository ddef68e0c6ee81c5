"""A folder that is replaced whole: what is written appears at once or not at all, and nothing of others is deleted.

.<name>.<random>.fresh    what is being written, beside the folder
.<name>.<random>.old      what stood there, for the moment of the exchange
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pretrain_exp.errors import UserError

LEFT_BEHIND = 86_400.0  # seconds after which what is being written is of a process that was killed


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A fresh folder to write to, which then takes the place of `folder`; on an error what stood there stays.

    What a killed call left beside it is put back or swept away. Raises UserError when `folder` is a file, or holds
    something without a summary.json that says its "schema", so was not written by this.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    _mend(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError("is a file, where a folder is to be written", value=str(folder), fix="name another folder")
    if folder.exists() and any(folder.iterdir()) and not _is_ours(folder):
        raise UserError(
            "a report replaces its folder, and this one holds something else",
            value=str(folder),
            fix="name another folder",
        )
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".fresh", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        yield fresh
        _swap(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    try:
        summary = json.loads((folder / "summary.json").read_text())
    except (OSError, ValueError):  # none, or not one of ours
        return False
    return isinstance(summary, dict) and "schema" in summary


def _mend(folder: Path) -> None:
    """Puts back what stood there where a call was killed amid the exchange; removes the rest of killed calls."""
    name = re.compile(rf"\.{re.escape(folder.name)}\.[a-z0-9_]{{8}}\.(old|fresh)")
    left = [path for path in folder.parent.iterdir() if name.fullmatch(path.name)]
    for path in left:
        if path.suffix == ".old" and not folder.exists():
            os.rename(path, folder)
        elif path.suffix == ".old" or time.time() - path.stat().st_mtime > LEFT_BEHIND:
            shutil.rmtree(path, ignore_errors=True)


def _swap(fresh: Path, folder: Path) -> None:
    """`fresh` takes the place of `folder`; where it cannot, what stood there is put back."""
    if not folder.exists():
        os.rename(fresh, folder)
        return
    old = fresh.with_suffix(".old")
    os.rename(folder, old)
    try:
        os.rename(fresh, folder)
    except BaseException:
        os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)  # what cannot be removed now, the next call removes
