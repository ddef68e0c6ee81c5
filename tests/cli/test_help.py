"""Help and the verbs that only read: no heavy import, every group and choice named."""

from __future__ import annotations

import subprocess
import sys
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
