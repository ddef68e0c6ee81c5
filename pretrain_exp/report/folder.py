"""A folder that is replaced whole: what is written appears at once or not at all, and nothing of others is deleted."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pretrain_exp.errors import UserError


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A fresh folder to write to, which then takes the place of `folder`; on an error what stood there stays.

    Raises UserError when `folder` is a file, or holds something that has no summary.json, so was not written by this.
    """
    folder = folder.absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError("is a file, where a folder is to be written", value=str(folder), fix="name another folder")
    if folder.exists() and not (folder / "summary.json").is_file() and any(folder.iterdir()):
        raise UserError(
            "a report replaces its folder, and this one holds something else",
            value=str(folder),
            fix="name another folder",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        yield fresh
        _swap(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _swap(fresh: Path, folder: Path) -> None:
    """`fresh` takes the place of `folder`."""
    if not folder.exists():
        os.rename(fresh, folder)
        return
    old = folder.with_name(f"{fresh.name}.old")
    os.rename(folder, old)
    os.rename(fresh, folder)
    shutil.rmtree(old)
