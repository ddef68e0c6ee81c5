"""What ran: versions of the packages that results depend on, and of this code.

A checkout's code is named by its commit, and by a digest of what its package folder changed since: two different
changes are two names. `code-<digest>.patch` holds those changes, new files among them.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("pretrain-exp", "torch", "transformers", "tokenizers", "numpy", "lm-eval", "hydra-core", "omegaconf")
_CODE = Path(__file__).resolve().parent  # what runs; the configuration that ran is kept with each study anyway
# whatever git is told in anyone's configuration: the same changes have the same name, and their patch applies
_DIFF = ("diff", "--binary", "--unified=3", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames",
         "--src-prefix=a/", "--dst-prefix=b/")  # fmt: skip


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


def with_code(record: Mapping[str, Any], ran: str | None) -> dict[str, Any]:
    """The record of a state, naming the code that made it, if that is known: it may not be the one that planned it."""
    numerics = record.get("numerics", {})
    return dict(record) if ran is None or "code" not in numerics else {**record, "numerics": {**numerics, "code": ran}}


def write_patch(folder: Path) -> None:
    """Writes what this checkout had changed since its commit to code-<digest>.patch; nothing where nothing was.

    It holds what `code_commit` tells of; a patch of other code that is there already stays.
    """
    _, changes = found()
    if changes:
        (folder / f"code-{_digest(changes)}.patch").write_bytes(changes)


def code_commit() -> str | None:
    """<commit>, or <commit>+<8 hex digits of what was changed since>; None outside of a checkout."""
    commit, changes = found()
    return f"{commit}+{_digest(changes)}" if changes else commit


@cache
def found() -> tuple[str | None, bytes]:
    """The commit and what was changed since, as they stood when this process first asked; None outside of a checkout.

    The changes are a patch; files that git does not know are in it, ignored ones not.
    """
    if not (_CODE.parent / ".git").exists() or shutil.which("git") is None:
        return None, b""
    head = _git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return None, b""
    new = _git("ls-files", "--others", "--exclude-standard", "-z", "--", str(_CODE)) or b""
    patches = [_git(*_DIFF, "HEAD", "--", str(_CODE)) or b""]
    patches += [
        _git(*_DIFF, "--no-index", "--", "/dev/null", name, differs=1) or b""
        for name in new.decode().split("\0")
        if name
    ]
    return head.decode().strip(), b"".join(patches)


def _digest(changes: bytes) -> str:
    return hashlib.blake2b(changes, digest_size=4).hexdigest()


def _git(*arguments: str, differs: int = 0) -> bytes | None:
    """What git says, None where it fails. differs: the exit status that says no more than that files differ."""
    ask = ["git", "--no-optional-locks", "-C", str(_CODE.parent), *arguments]  # many processes ask at a time
    done = subprocess.run(ask, capture_output=True, check=False)
    return done.stdout if done.returncode in (0, differs) else None
