"""What a study leaves in its folder, so that every later command finds its way without composing anything again.

    <study>/study.json            command, title, members, jobs, how it ended
    <study>/<member>/member.json  configuration, seeds, plan, data order and the keys of the states of each arm
    <study>/report/               the report
    <store>/studies/<digest>.json where the study is: how the newest is found, and what gc may not touch

The weights and results themselves are in the store; these files only name them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.store.keys import digest
from pretrain_exp.store.states import write_json

DEFAULT_STORE = Path("outputs/store")


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


def read_study(folder: Path) -> dict[str, Any]:
    """study.json of a study's folder. UserError where the folder holds none."""
    path = folder / "study.json"
    if not path.is_file():
        fix = "give the folder that a run printed, or no folder for the newest study"
        raise UserError("holds no study (no study.json)", value=str(folder), fix=fix)
    return json.loads(path.read_text())


def read_members(study: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads((Path(folder) / "member.json").read_text()) for folder in study["members"]]


def all_studies(store: Path = DEFAULT_STORE) -> list[Path]:
    """The folder of every study that used a store, newest first; one that was deleted is left out."""
    entries = sorted((store / "studies").glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    folders = [Path(json.loads(path.read_text())["folder"]) for path in entries]
    return [folder for folder in folders if (folder / "study.json").is_file()]


def find_study(given: str | None) -> Path:
    """The folder `given`, or the newest study of the store below the current folder."""
    if given is not None:
        read_study(Path(given))
        return Path(given)
    newest = next(iter(all_studies()), None)
    if newest is None:
        fix = "run one: pretrain-exp, or name a study's folder"
        raise UserError(f"no study is known to {DEFAULT_STORE} below this folder", fix=fix)
    return newest
