"""Whether a folder may be taken by a study: an empty one, or one that holds the same study, to go on with.

    member.json of what is there, and of what is to run --arms: facts, plan, loop, last step--> the same, or UserError

The same is every member that is there, with the arms that it has: executor, tracking, evaluations and checkpoints may
be others, and members and arms may be added.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.store.process import process_lives
from pretrain_exp.store.states import read_json
from pretrain_exp.study.registry import read_study

SHOWN = 3  # settings that differ, of those that are said
SECTIONS = ("model", "data", "framework", "training", "insertion", "replay", "arms", "seed")  # what a study is of
FIX = "another folder; or the settings of the study that is there, to go on with it; or delete that folder"


def refuse_another(folder: Path, members: Sequence[Mapping[str, Any]], store: Path, key: str) -> None:
    """UserError under `key` where `folder` holds a study that is not the one of these members (their member.json).

    UserError too where a living process runs a study there with another store, whose claims this one does not see.
    """
    if not (folder / "study.json").is_file():
        return
    study = read_study(folder)
    going = study["store"] != str(store) and study.get("controller")
    if going and process_lives(going):
        problem = f"another process runs a study here, with store={study['store']}: {_said(study, [])}"
        raise UserError(problem, key=key, value=str(folder), fix="wait until it has ended, or name another folder")
    paths = [Path(one) / "member.json" for one in study["members"]]
    there = [read_json(path) for path in paths if path.is_file()]  # one that was deleted is written again
    here = [_arms(member) for member in members]
    for record in there:
        arms = _arms(record)
        if not any(arms.items() <= other.items() for other in here):
            problem = f"another study is here: {_said(study, there)}. {_unlike(record, members)}"
            raise UserError(problem, key=key, value=str(folder), fix=FIX)


def _arms(member: Mapping[str, Any]) -> dict[str, str]:
    """Arm -> what its states follow from."""
    found = {}
    for arm, record in member["arms"].items():
        plan = record["plan"] and Path(record["plan"]).name
        found[arm] = json.dumps([record["base"], plan, record.get("loop"), member["last_step"]], sort_keys=True)
    return found


def _said(study: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> str:
    """Title, arms, when it began, and how it was asked for."""
    arms = ", ".join(sorted({arm for member in members for arm in member["arms"]}))
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(study["started"]))
    parts = [study["title"], *([f"arms {arms}"] if arms else []), f"begun {began}, {study['status']}"]
    return f"{'; '.join(parts)}; by: {study['command']}"


def _unlike(there: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> str:
    """What is set otherwise than by the member that is there, as far as a setting tells."""
    before = dict(_leaves({name: there["config"].get(name) for name in SECTIONS}))
    found: list[list[str]] = []
    for member in members:
        now = dict(_leaves({name: member["config"].get(name) for name in SECTIONS}))
        names = [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]
        found.append(sorted(f"{name} ({before.get(name)} there, {now.get(name)} here)" for name in names))
    nearest = min(found, key=len)
    more = f" and {len(nearest) - SHOWN} more" if len(nearest) > SHOWN else ""
    if not nearest:
        return "Its settings are the same, but not what they come to: files that were read, or this code, have changed"
    return f"Other settings: {', '.join(nearest[:SHOWN])}{more}"


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values."""
    if isinstance(node, Mapping) and node:
        for name, inner in node.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, node
