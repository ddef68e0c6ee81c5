"""Where an interpreter, this one or another, finds a package, asked without importing it; and what a class takes."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path


@lru_cache(maxsize=32)
def location(python: str, package: str) -> Path | None:
    """The package's folder; None where this interpreter has none."""
    if Path(python).absolute() == Path(sys.executable).absolute():
        spec = find_spec(package)
        return Path(next(iter(spec.submodule_search_locations or ()))) if spec else None
    script = (
        f"import importlib.util as u; s = u.find_spec('{package}'); print(s.submodule_search_locations[0] if s else '')"
    )
    try:
        done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    except OSError:
        return None
    found = done.stdout.strip() if done.returncode == 0 else ""
    return Path(found) if found else None


@lru_cache(maxsize=8)
def arguments_of(python: str, path: str) -> frozenset[str] | None:
    """The names of a class's arguments, asked by importing it there; None where there is no such class."""
    module, _, name = path.rpartition(".")
    script = (
        "import importlib, inspect, sys; cls = getattr(importlib.import_module(sys.argv[1]), sys.argv[2]); "
        "print(*inspect.signature(cls).parameters)"
    )
    done = subprocess.run([python, "-c", script, module, name], capture_output=True, text=True, check=False)
    return frozenset(done.stdout.split()) if done.returncode == 0 else None
