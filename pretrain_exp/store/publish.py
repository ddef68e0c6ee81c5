"""A folder that several processes may make at once: filled elsewhere, it appears whole, and the first one stays.

Standard library only.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pretrain_exp.store.process import mark


def beside(target: Path) -> Path:
    """Where a file or folder is filled that is then moved to `target`: hidden, and its name tells whose it is."""
    return target.with_name(f".{target.name}.{mark()}")


def publish(staging: Path, target: Path) -> bool:
    """Moves a filled folder to its place in one rename; True where it came there.

    Where another process was quicker its folder stays, and `staging` is removed. Both lie on one file system.
    """
    try:
        os.rename(staging, target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(staging)
        return False
    return True
