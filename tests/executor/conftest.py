"""A Slurm that only pretends stands first on PATH."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mock_slurm import COMMANDS

from pretrain_exp.executor import slurm_site
from pretrain_exp.executor.slurm_site import hidden_variables


@pytest.fixture
def mock(tmp_path, monkeypatch) -> Path:
    """A folder whose commands stand first on PATH and note there what they were asked."""
    folder = tmp_path / "mock"
    folder.mkdir()
    for name, script in COMMANDS.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n[ {name} = srun ] || cd {folder}\n{script.strip()}\n")
        path.chmod(0o755)
    (folder / "count").write_text("0")
    (folder / "queue").write_text("")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm_site, "RETRY_SECONDS", (0.0,))
    for name in hidden_variables(os.environ):
        monkeypatch.delenv(name)
    return folder
