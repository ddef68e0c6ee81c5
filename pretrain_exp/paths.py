"""Where things stand: the configuration of a checkout or of an installed wheel, and the environments of frameworks."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from pretrain_exp.errors import UserError


def conf_dir() -> Path:
    """conf/ beside the package in a checkout (also an editable install), inside the package in a wheel."""
    package = Path(__file__).resolve().parent
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "conf" / "config.yaml").is_file():
        return checkout / "conf"
    return package / "conf"


def group_choices(conf: Path) -> dict[str, list[str]]:
    """Every configuration group and the names that can be chosen in it."""
    folders = sorted(p for p in conf.iterdir() if p.is_dir())
    return {folder.name: sorted(p.stem for p in folder.glob("*.yaml")) for folder in folders}


def environment_python(environment: str) -> str | None:
    """The Python of an environment that `make env-...` built, here or in the checkout; None where there is none."""
    for place in (Path.cwd(), conf_dir().parent):
        python = place / environment / "bin" / "python"
        if python.is_file():
            return str(python)
    return None


def refuse_unwritable(folder: Path, key: str) -> None:
    """UserError under `key` where nothing can be written into the folder; one that is not there is not left."""
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        problem, fix = f"nothing can be written here ({error.strerror})", "name a folder in which you can write"
        raise UserError(problem, key=key, value=str(folder), fix=fix) from None
    finally:
        for path in absent:
            with contextlib.suppress(OSError):
                path.rmdir()
