"""Runs a module of this package in any Python, installed there or not: `python start.py pretrain_exp.x.y ARGUMENTS`.

A framework's worker may live in an environment that this package is no part of. Only the package becomes importable,
from where this file lies; nothing beside it does. So a worker is always of the version that wrote its job.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]


def main() -> None:
    sys.path[0:1] = []  # this folder, which Python puts there
    if PACKAGE.name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            PACKAGE.name, PACKAGE / "__init__.py", submodule_search_locations=[str(PACKAGE)]
        )
        assert spec is not None
        assert spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules[PACKAGE.name] = package
        spec.loader.exec_module(package)
    module = sys.argv[1]
    del sys.argv[1]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
