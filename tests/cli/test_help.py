"""Help and the verbs that only read: no heavy import, every group and choice named, the same from a wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "hydra", "pyarrow", "matplotlib", "wandb", "lm_eval", "scipy", "datasets")


def imported_by(code: str, cwd: Path) -> set[str]:
    """The heavy packages that running `code` imports."""
    code += f"\nimport sys; print('IMPORTED', [name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("IMPORTED"))
    return set(eval(line.removeprefix("IMPORTED ")))


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["plan", "-h"], ["status"], ["cancel"], ["logs", "x"], ["gc"]],
    ids=lambda arguments: " ".join(arguments),
)
def test_reading_imports_nothing_heavy(arguments, tmp_path):
    assert imported_by(f"from pretrain_exp.cli import main; main({arguments!r})", tmp_path) == set()


def test_validating_imports_neither_torch_nor_transformers(tmp_path):
    code = "from pretrain_exp.cli import main; assert main(['plan', '+typo=1']) == 2"
    assert imported_by(code, tmp_path) & {"torch", "transformers", "wandb", "lm_eval", "matplotlib"} == set()


def test_help_names_every_group_every_choice_and_five_commands(command):
    status, said = command("--help")
    assert status == 0
    for folder in (ROOT / "conf").iterdir():
        for choice in folder.glob("*.yaml") if folder.is_dir() else ():
            assert choice.stem in said
    examples = said.partition("examples:")[2].splitlines()
    assert sum(line.strip().startswith("pretrain-exp") for line in examples) == 5


def test_a_verb_that_reads_has_help_of_its_own(command):
    status, said = command("report", "--help")
    assert status == 0
    assert "usage: pretrain-exp report" in said
    assert "--export DIR" in said


def test_the_version_is_the_package_s_own(command):
    assert command("--version") == (0, f"pretrain-exp {version('pretrain-exp')}\n")


def test_a_wheel_holds_the_configuration_and_finds_it(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    names = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml") if "local" not in path.parts}
    assert names <= {
        path.relative_to(site / "pretrain_exp/conf") for path in (site / "pretrain_exp/conf").rglob("*.yaml")
    }
    code = (
        "import sys; sys.path.insert(0, 'site'); import pretrain_exp.cli as c; print(c.__file__); print(c.help_text())"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(site) in done.stdout
    assert "benchmark_contamination" in done.stdout
