"""Command lines, composed and not run."""

from __future__ import annotations

import pytest
from hydra.core.global_hydra import GlobalHydra

from pretrain_exp import compose, experiment


@pytest.fixture
def composed(monkeypatch, tmp_path):
    """Composes and validates a command line, and returns its members instead of running them."""
    monkeypatch.chdir(tmp_path)
    found = []

    def keep(members, folder, command):
        found.append((members, folder))
        return 0

    monkeypatch.setattr(experiment, "run", keep)

    def run(*arguments):
        GlobalHydra.instance().clear()
        found.clear()
        assert compose.compose_and_run("run", list(arguments)) == 0
        return found[0]

    return run
