"""The table's benches: one a framework, made when first asked for."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
from bench import Bench

_BENCHES: dict[str, Bench | str] = {}


@pytest.fixture(scope="session")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """name -> the framework's bench; a skip where its environment is absent, an error where it has to be there."""

    def bench(name: str) -> Bench:
        if name not in _BENCHES:
            found = importlib.import_module(f"rig_{name}").rig()
            folder = tmp_path_factory.mktemp(name)
            _BENCHES[name] = found if isinstance(found, str) else Bench(found, folder)
        made = _BENCHES[name]
        if isinstance(made, str):
            assert not os.environ.get("PRETRAIN_EXP_FRAMEWORKS"), made
            pytest.skip(made)
        return made

    return bench


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest, benches: Any) -> Bench:
    return benches(request.param)
