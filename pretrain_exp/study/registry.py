"""What a study leaves in its folder, so that every later command finds its way without composing anything again.

    <study>/study.json            command, title, members, jobs, how it ended
    <study>/<member>/member.json  configuration, seeds, plan, data order and the keys of the states of each arm
    <study>/report/               the report
    <store>/studies/<digest>.json where the study is: how the newest is found, and what gc may not touch

The weights and results themselves are in the store; these files only name them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain_exp.control.loop import realised
from pretrain_exp.errors import UserError
from pretrain_exp.store.claims import claimed
from pretrain_exp.store.keys import digest
from pretrain_exp.store.states import read_json, write_json

if TYPE_CHECKING:
    from pretrain_exp.study.graph import Run

LAST = Path("outputs/last_study.json")  # below the folder where commands are typed


def write_member(folder: Path, record: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "member.json", record)


def write_study(folder: Path, record: dict[str, Any]) -> None:
    """Writes study.json, and the study's entry in the index of its store."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "study.json", record)
    index = Path(record["store"]) / "studies"
    index.mkdir(parents=True, exist_ok=True)
    entry = index / f"{digest(str(folder.absolute()))}.json"
    if not entry.is_file():
        write_json(entry, {"folder": str(folder.absolute())})
    LAST.parent.mkdir(parents=True, exist_ok=True)
    write_json(LAST, {"folder": str(folder.absolute()), "store": str(record["store"])})


def read_study(folder: Path) -> dict[str, Any]:
    """study.json of a study's folder. UserError where the folder holds none."""
    path = folder / "study.json"
    if not path.is_file():
        fix = _study_of(folder) or "give the folder that a run printed, or no folder for the newest study"
        raise UserError("holds no study (no study.json)", value=str(folder), fix=fix)
    return read_json(path)


def _study_of(folder: Path) -> str | None:
    """Of the folder of a sweep's member: its study, and how the member is named there."""
    for above in folder.absolute().parents[:2]:
        if (folder / "member.json").is_file() and (above / "study.json").is_file():
            members = read_json(above / "study.json")["members"]
            if str(folder.absolute()) in members:
                number = members.index(str(folder.absolute()))
                return f"it is a member of the study in {above}: name that, and for `inspect` --member {number}"
    return None


def read_members(study: dict[str, Any]) -> list[dict[str, Any]]:
    """member.json of every member, closed loops as far as they have come. UserError where a folder was deleted."""
    paths = [Path(folder) / "member.json" for folder in study["members"]]
    for path in paths:
        if not path.is_file():
            fix = "run the study again (it trains nothing), or delete the whole study folder"
            raise UserError("a member of the study was deleted", value=str(path.parent), fix=fix)
    return [realised(Path(study["store"]), read_json(path)) for path in paths]


def remember_steps(store: Path, runs: Sequence[Run]) -> None:
    """Notes at which steps runs of the same facts are saved, so that later studies find these states on their way."""
    for base in {run.base for run in runs}:
        path = store / "bases" / f"{base}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with claimed(store, f"base-{base}", poll=0.05):
            steps = {*known_steps(store, base), *(step for run in runs if run.base == base for step in run.steps)}
            write_json(path, sorted(steps))


def known_steps(store: Path, base: str) -> list[int]:
    path = store / "bases" / f"{base}.json"
    return json.loads(path.read_text()) if path.is_file() else []


def all_studies(store: Path) -> list[Path]:
    """The folder of every study that used a store, newest first; one that was deleted is left out."""
    entries = sorted((store / "studies").glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    folders = [Path(json.loads(path.read_text())["folder"]) for path in entries]
    return [folder for folder in folders if (folder / "study.json").is_file()]


def last_store() -> Path:
    """The store of the study that was run last from this folder, wherever it is."""
    return Path(_last()["store"])


def find_study(given: str | None) -> Path:
    """The folder `given`, or the study that was run last from this folder."""
    folder = Path(given) if given is not None else Path(_last()["folder"])
    read_study(folder)
    return folder


def _last() -> dict[str, Any]:
    if not LAST.is_file():
        fix = "run one: pretrain-exp, or name a study's folder"
        raise UserError("no study was run from this folder yet", fix=fix)
    return json.loads(LAST.read_text())
