"""`pretrain-exp gc`: releases weights that no study needs any more, and what else nobody does.

Of states only the weights go (`checkpoint/`); a state's record, metrics and log of what was read stay, so nothing is
trained again for them and every proof can still be made. Never released: the last state of an arm (its weights exist
nowhere else), a checkpoint that a study asked for (`training.checkpoint_interval`, `additional_checkpoint_steps`,
`hub.steps`) or scores, any state of an arm that is not trained to its end (its study is under way, was interrupted or
failed, and may be run again) or from which a job of its study starts, and a state that no study of this store names. So
what goes are the states where runs branched.

Beside them go the overlays of the slices of a closed loop, when all studies that name it have ended with it trained to
its end: of the loop's plan they are made again. And what writers left that were killed (leftovers.py).

Weights are released under the claim on planning, so that no study counts on them meanwhile, and each under a claim of
its own, so that no job puts them back meanwhile (`store.states.commit`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.store.claims import claimed
from pretrain_exp.store.leftovers import leftovers
from pretrain_exp.store.states import (
    RELEASED,
    can_start,
    is_complete,
    read_record,
    stage,
    state_dir,
    weights_claim,
)
from pretrain_exp.study.coming import ANNOUNCED, PLANNING
from pretrain_exp.study.registry import read_members, read_study

_GONE = "released-"  # what begins the name of a folder of what is being deleted


def collect(store: Path, studies: Sequence[Path], *, apply: bool) -> list[str]:
    """Lists (and with `apply` releases) what can go; returns the keys of weights. UserError for what is no store."""
    if not (store / "states").is_dir():
        raise UserError("holds no states", key="--store", value=str(store), fix="name the store of a study")
    with ExitStack() as held:
        if apply:
            held.enter_context(claimed(store, PLANNING))
            for gone in (store / "staging").glob(f"{_GONE}*"):  # of one that was killed: no other runs under this claim
                shutil.rmtree(gone, ignore_errors=True)
        named, kept = _named_and_kept(store, studies)
        released = sorted(key for key in named - kept if can_start(store, key) or _cut_short(store, key))
        word, total = "released" if apply else "would release", 0
        for key in released:
            size = _size(state_dir(store, key) / "checkpoint")
            total += size
            print(f"{word} {key}, step {read_record(store, key)['step']}, {_human(size)}")
            if apply:
                _release(store, key)
        for path in [*_slices(store, studies), *leftovers(store)]:
            size = _size(path)
            total += size
            print(f"{word} {path.relative_to(store)}, {_human(size)}")
            if apply:
                _delete(store, path)
    print(f"{len(released)} of {len(named)} states, {_human(total)}" + ("" if apply else "; --apply releases them"))
    return released


def _named_and_kept(store: Path, studies: Iterable[Path]) -> tuple[set[str], set[str]]:
    """The states that studies name, and those whose weights must stay."""
    named: set[str] = set()
    kept: set[str] = set()
    for folder in studies:
        study = read_study(folder)
        under_way, whole = not study.get("ended"), True
        for member in read_members(study):
            for arm in member["arms"].values():
                way, wanted = _way(store, arm["last"]), set(arm["states"].values())
                named |= way
                trained = is_complete(store, arm["last"])
                whole &= trained
                # jobs that are still to run may start from any state on the way of their arm
                kept |= way | wanted if under_way or not trained else {arm["last"], *arm.get("keep", wanted)}
        if under_way or not whole:
            kept |= {key for job in study["jobs"] if (key := _start(store, job)) is not None}
    return named, kept


def _slices(store: Path, studies: Iterable[Path]) -> list[Path]:
    """The overlays of the closed loops of which nothing is left to be trained for any study that names them."""
    ended: dict[str, bool] = {}
    for study in map(read_study, studies):
        for arm in (arm for member in read_members(study) for arm in member["arms"].values() if arm.get("loop")):
            key, done = arm["loop"]["key"], bool(study.get("ended")) and is_complete(store, arm["last"])
            ended[key] = ended.get(key, True) and done
    found = [store / "loops" / key / "overlays" for key in sorted(ended) if ended[key]]
    return [path for path in found if path.is_dir()]


def _start(store: Path, job: Mapping[str, Any]) -> str | None:
    """The state from which a planned training job goes on, which may lie on the way of another study."""
    path = store / "jobs" / job["id"] / ANNOUNCED
    payload = json.loads(path.read_text())["job"]["payload"] if path.is_file() else None
    start = (payload or {}).get("start", {}).get("state")
    return Path(start).name if start else None


def _way(store: Path, last: str) -> set[str]:
    """The keys of all states on the way to `last`, by the parents that their records name."""
    found: set[str] = set()
    key: str | None = last
    while key is not None and (state_dir(store, key) / "state.json").is_file():
        found.add(key)
        key = read_record(store, key)["parent"]
    return found


def _release(store: Path, key: str) -> None:
    """Marks, moves away, deletes: a state without its marker has its weights, and never half of them."""
    folder = state_dir(store, key)
    with claimed(store, weights_claim(key)):
        (folder / RELEASED).write_text("weights released; record and logs kept\n")
        gone = stage(store, f"{_GONE}{key}")
        os.rename(folder / "checkpoint", gone / "checkpoint")
        shutil.rmtree(gone, ignore_errors=True)


def _delete(store: Path, path: Path) -> None:
    """Moves away, deletes: a folder is there whole or not at all."""
    gone = stage(store, f"{_GONE}{path.name}")
    with suppress(FileNotFoundError):  # deleted meanwhile by a loop that goes on
        os.rename(path, gone / path.name)
    shutil.rmtree(gone, ignore_errors=True)


def _cut_short(store: Path, key: str) -> bool:
    """Whether a release was killed after its mark: no job starts from these weights, and they are still there."""
    folder = state_dir(store, key)
    return (folder / RELEASED).exists() and (folder / "checkpoint").exists()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder, *folder.rglob("*")) if path.is_file())


def _human(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"
