"""Members of a sweep that were each run by a controller of their own, as one study.

    <sweep>/0/  <sweep>/1/ ...   studies of one member (`hydra/launcher=submitit_slurm`)
        --gather--> <sweep>/study.json  members/<n>/member.json  proof/        then like any other study: report, status

Nothing is trained or proved again. What a member did not come to is said among the failures.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pretrain_exp.compose import tell_apart
from pretrain_exp.errors import UserError
from pretrain_exp.store.states import read_json, write_json
from pretrain_exp.study.registry import read_study, write_member, write_study


def gathered(folder: Path) -> Path:
    """The folder of a study: as it is, or, where it is the folder of a sweep, after its members were gathered there."""
    path = folder / "study.json"
    if not path.is_file() and _members(folder):
        gather(folder)
    elif path.is_file() and json.loads(path.read_text()).get("gathered"):
        gather(folder)  # members may have ended since
    return folder


def gather(folder: Path) -> None:
    """Writes one study over all members in a sweep's folder. UserError where they belong to different stores."""
    parts = _members(folder)
    studies = [read_study(part) for part in parts]
    members = [read_json(part / "member.json") for part in parts]
    if len({study["store"] for study in studies}) > 1:
        raise UserError(
            "its members have different stores", value=str(folder), fix="report each: pretrain-exp report FOLDER..."
        )
    labelled = _labelled(members)
    shutil.rmtree(folder / "proof", ignore_errors=True)
    (folder / "proof").mkdir()
    for number, (part, member) in enumerate(zip(parts, labelled, strict=True)):
        write_member(folder / "members" / str(number), member)
        for path in sorted(part.glob("proof/0-*.json")):
            proof = {**json.loads(path.read_text()), "member": member["label"], "seed": member["seed"]}
            write_json(folder / "proof" / f"{number}-{path.name.removeprefix('0-')}", proof)
    write_study(folder, _together(folder, studies, labelled))


def _members(folder: Path) -> list[Path]:
    """The folders of the members that have begun, by their numbers."""
    found = [path for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    return sorted((p for p in found if (p / "study.json").is_file()), key=lambda path: int(path.name))


def _labelled(members: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of members with what tells them apart, as if one process had composed them all."""
    facts = [(member["overrides"], member["seed"], tuple(member["seeds"].values())) for member in members]
    pairs = tell_apart(facts)
    return [{**member, "label": label, "seed": seed} for member, (label, seed) in zip(members, pairs, strict=True)]


def _together(folder: Path, studies: Sequence[dict[str, Any]], members: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """study.json over all members."""
    going = 0
    failures = [f"member {number} of the sweep has left no study" for number in _absent(folder)]
    for study, member in zip(studies, members, strict=True):
        name = " ".join(part for part in (member["label"], f"seed {member['seed']}") if part)
        failures += [f"{name}: {failure}" for failure in study["failures"]]
        if study["status"] not in ("done", "failed"):
            failures.append(f"{name}: has not ended ({study['status']})")
            going += study["status"] == "running"
    ended = [study["ended"] for study in studies if study.get("ended")]
    jobs = {job["id"]: job for study in studies for job in study["jobs"] if job["kind"] != "report"}
    planned = {job["id"] for study in studies for job in study["jobs"] if not job["adopted"]}  # by one of these
    return {
        **{name: studies[0][name] for name in ("title", "question", "command", "store", "versions")},
        "members": [str((folder / "members" / str(number)).absolute()) for number in range(len(members))],
        "jobs": [{**job, "adopted": job["id"] not in planned} for job in jobs.values()],
        "reused": sorted({key for study in studies for key in study["reused"]}),
        "cost": _sum(study["cost"] for study in studies),
        "failures": failures,
        "status": "done" if not failures else "running" if len(failures) == going else "failed",
        "started": min(study["started"] for study in studies),
        "ended": max(ended) if len(ended) == len(studies) else None,
        "controller": None,
        "gathered": True,
    }


def _absent(folder: Path) -> list[int]:
    """Numbers of members that Hydra's launcher submitted, or whose neighbours began, and that left no study."""
    there = {int(path.name) for path in _members(folder)}
    submitted = {int(n) for path in folder.glob(".submitit/*_*") if (n := path.name.rpartition("_")[2]).isdigit()}
    return sorted(({*range(max(there, default=0)), *submitted}) - there)


def _sum(costs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for cost in costs:
        for name, value in cost.items():
            total[name] = total.get(name, 0) + value
    return total
