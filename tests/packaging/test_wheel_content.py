"""A wheel holds the package and the configuration, and nothing of the site that built it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a build reads, with site settings that no VCS hides."""
    folder = tmp_path / "checkout"
    for name in ("pretrain_exp", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "conf" / "local").mkdir(exist_ok=True)
    (folder / "conf" / "local" / "site.yaml").write_text("account: mine")
    return folder


def test_a_wheel_holds_what_is_shared(checkout: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(checkout)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {str(path.relative_to(checkout)) for path in (checkout / "pretrain_exp").rglob("*.*")}
    conf = {path.relative_to(checkout) for path in (checkout / "conf").rglob("*.yaml")}
    conf = {path for path in conf if path.parts[1] != "local"}
    assert held == modules | {str(Path("pretrain_exp") / path) for path in conf}
