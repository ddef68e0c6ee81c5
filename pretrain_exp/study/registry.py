"""What a study leaves in its folder, so that every later command finds its way without composing anything again.

    <study>/study.json            command, title, members, jobs, how it ended
    <study>/<member>/member.json  configuration, seeds, plan, data order and the keys of the states of each arm
    <study>/report/               the report

The weights and results themselves are in the store; these files only name them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.store.states import write_json

ROOTS = ("outputs/runs", "multirun_outputs", "outputs/evaluations")


def write_member(folder: Path, record: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "member.json", record)


def write_study(folder: Path, record: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "study.json", record)


def read_study(folder: Path) -> dict[str, Any]:
    """study.json of a study's folder. UserError where the folder holds none."""
    path = folder / "study.json"
    if not path.is_file():
        fix = "give the folder that a run printed, or no folder for the newest study"
        raise UserError("holds no study (no study.json)", value=str(folder), fix=fix)
    return json.loads(path.read_text())


def read_members(study: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads((Path(folder) / "member.json").read_text()) for folder in study["members"]]


def all_studies(root: Path | None = None) -> Iterator[Path]:
    """Every study folder below the places where runs are written, newest first."""
    base = root or Path.cwd()
    found = [path for place in ROOTS if (base / place).is_dir() for path in (base / place).rglob("study.json")]
    for path in sorted(found, key=lambda p: p.stat().st_mtime, reverse=True):
        yield path.parent


def find_study(given: str | None) -> Path:
    """The folder `given`, or the newest study below the current folder."""
    if given is not None:
        folder = Path(given)
        read_study(folder)
        return folder
    newest = next(all_studies(), None)
    if newest is None:
        raise UserError("no study was run from this folder yet", fix="run one: pretrain-exp, or name a study's folder")
    return newest
