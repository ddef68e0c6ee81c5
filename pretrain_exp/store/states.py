"""States on disk: the model at step t, in a folder named by its key, that appears whole or not at all.

    store/
      states/<key>/    state.json  job.json  checkpoint/  metrics.jsonl  reads/rankNNNNN.npy  probe.json
                       [code-*.patch]
      staging/         what is being pushed or deleted; one left over by a killed process is never read

Standard library only, but for the package's errors: a worker of any environment commits what it trained.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.store.process import mark

SCHEMA = 1
RELEASED = "released"  # a marker beside state.json: the weights were deleted, the logs stay


def state_dir(store: Path | str, key: str) -> Path:
    return Path(store) / "states" / key


def is_complete(store: Path | str, key: str) -> bool:
    return (state_dir(store, key) / "state.json").is_file()


def can_start(store: Path | str, key: str) -> bool:
    """True where the weights are still there: a state whose weights were released keeps only its record and logs."""
    return is_complete(store, key) and not (state_dir(store, key) / RELEASED).exists()


def read_record(store: Path | str, key: str) -> dict:
    """state.json of a complete state. Raises FileNotFoundError where there is none."""
    return json.loads((state_dir(store, key) / "state.json").read_text())


def weights_claim(key: str) -> str:
    """What is claimed by who deletes the weights of a state, or puts them back."""
    return f"weights-{key}"


def stage(store: Path | str, key: str) -> Path:
    """A fresh, empty folder on the store's file system, for a process that has no folder of its own."""
    return fresh(Path(store) / "staging", key)


def fresh(parent: Path, name: str) -> Path:
    """A fresh, empty folder, to be filled and then committed or deleted."""
    path = parent / f"{name}-{mark()}"
    path.mkdir(parents=True)
    return path


def commit(store: Path | str, staging: Path, key: str, record: dict) -> Path:
    """Moves a filled staging folder to its key in one rename; a state that is already there wins.

    One that is there without its weights gets these, and keeps its own record and logs.

    record: what state.json holds beside {schema, key, created}: step, base, parent, parent_step, numerics, seconds.
    """
    target = state_dir(store, key)
    target.parent.mkdir(parents=True, exist_ok=True)
    if (target / RELEASED).exists():
        from pretrain_exp.store.claims import claimed  # which writes by way of this module

        with claimed(store, weights_claim(key)):
            if (target / RELEASED).exists():
                _restore(target, staging, record)
                return target
    write_json(staging / "state.json", {"schema": SCHEMA, "key": key, "created": time.time(), **record})
    try:
        os.rename(staging, target)
    except OSError:
        if not is_complete(store, key):
            raise
        shutil.rmtree(staging)
    return target


def _restore(target: Path, staging: Path, record: dict) -> None:
    """Moves weights and their probe into a released state. Until the marker goes, last, it counts as released."""
    shutil.rmtree(target / "checkpoint", ignore_errors=True)  # what a release left that was cut short
    os.rename(staging / "checkpoint", target / "checkpoint")
    if (staging / "probe.json").exists():
        os.replace(staging / "probe.json", target / "probe.json")  # trained again, the last digits may differ
    for patch in staging.glob("code-*.patch"):  # of the code that trained it this time
        os.replace(patch, target / patch.name)
    restored = {"created": time.time(), "numerics": record.get("numerics")}
    write_json(target / "state.json", {**json.loads((target / "state.json").read_text()), "restored": restored})
    (target / RELEASED).unlink(missing_ok=True)
    shutil.rmtree(staging)


class Record(dict[str, Any]):
    """A JSON object of a file, in which a field that is not there is an error that names the file."""

    def __init__(self, values: Mapping[str, Any], path: Path):
        super().__init__(values)
        self.path = path

    def __missing__(self, name: str) -> Any:
        fix = "run the command that made it again, with this version: nothing is trained anew"
        raise UserError(f"{self.path} was written by another version: it has no {name}", key=name, fix=fix)


def read_json(path: Path) -> Any:
    """What `write_json` wrote, its objects as `Record`s. UserError where it was damaged."""
    try:
        return json.loads(path.read_text(), object_hook=lambda values: Record(values, path))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}", fix="run the command that made it again") from None


def write_json(path: Path, value: object) -> None:
    """Writes JSON elsewhere in the same folder, then moves it into place."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    os.replace(temporary, path)
