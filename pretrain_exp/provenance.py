"""What ran: versions of the packages that results depend on, and of this code."""

from __future__ import annotations

import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("pretrain-exp", "torch", "transformers", "tokenizers", "numpy", "lm-eval", "hydra-core", "omegaconf")


def versions() -> dict[str, str]:
    """Name -> version; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    commit = code_commit()
    return found | ({"commit": commit} if commit else {})


def code_version() -> str:
    """This code, as the numerics of a state name it: the commit of a checkout, else the installed version."""
    return code_commit() or version("pretrain-exp")


def write_patch(folder: Path) -> None:
    """Writes what this checkout changed since its commit to code.patch; nothing where nothing was."""
    if (code_commit() or "").endswith("+changes"):
        ask = ["git", "-C", str(Path(__file__).resolve().parent.parent), "diff", "HEAD"]
        done = subprocess.run(ask, capture_output=True, check=True)
        (folder / "code.patch").write_bytes(done.stdout)


@cache
def code_commit() -> str | None:
    """The commit of this checkout, marked where it was changed since; None outside of one."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    if shutil.which("git") is None:
        return None
    ask = ["git", "-C", str(root)]
    head = subprocess.run([*ask, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return None
    changed = subprocess.run([*ask, "status", "--porcelain"], capture_output=True, text=True, check=False).stdout
    return head.stdout.strip() + ("+changes" if changed.strip() else "")
