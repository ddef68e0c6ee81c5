"""A wheel holds the package and the configuration, finds it, and has nothing of the site that built it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build reads, with site settings that no VCS hides."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("pretrain_exp", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "conf" / "local").mkdir(exist_ok=True)
    (folder / "conf" / "local" / "site.yaml").write_text("account: mine")
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(checkout)], check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


def test_a_wheel_holds_what_is_shared(checkout: Path, wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {str(path.relative_to(checkout)) for path in (checkout / "pretrain_exp").rglob("*.*")}
    conf = {path.relative_to(checkout) for path in (checkout / "conf").rglob("*.yaml")}
    conf = {path for path in conf if path.parts[1] != "local"}
    assert len(conf) > 50
    assert held == modules | {str(Path("pretrain_exp") / path) for path in conf}


def test_what_a_wheel_installs_finds_its_configuration(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, 'site'); import pretrain_exp.cli as c; print(c.__file__); print(c.help_text())"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == str(tmp_path / "site/pretrain_exp/cli.py")
    assert "benchmark_contamination" in done.stdout
