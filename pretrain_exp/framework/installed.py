"""Where an interpreter, this one or another, finds a package, asked without importing it; and what a class takes."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


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


class Arguments(NamedTuple):
    """What a class takes. there: False where its module has no such class; names: None where they cannot be told."""

    there: bool
    names: frozenset[str] | None = None


_ASK = """
import importlib, inspect, json, sys
module, name = sys.argv[1:]
there, names = True, None
try:
    found = getattr(importlib.import_module(module), name, None)
    there = found is not None
    taken = inspect.signature(found).parameters.values()
    if not any(each.kind is each.VAR_KEYWORD for each in taken):
        names = [each.name for each in taken]
except ModuleNotFoundError:
    there = False
except Exception:
    pass
sys.__stdout__.write(chr(10) + json.dumps([there, names]))
"""


@lru_cache(maxsize=8)
def arguments_of(python: str, path: str) -> Arguments:
    """What the class at a dotted path takes, asked by importing it there.

    One that is there and cannot be imported here, as on a machine without a GPU, is left to the job.
    """
    module, _, name = path.rpartition(".")
    done = subprocess.run([python, "-c", _ASK, module, name], capture_output=True, text=True, check=False)
    if done.returncode:
        return Arguments(True)
    there, names = json.loads(done.stdout.splitlines()[-1])  # what an import prints comes before
    return Arguments(there, None if names is None else frozenset(names))
