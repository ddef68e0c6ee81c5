"""A closed loop in the store: its name, what is known of it so far, and the names of states that are not known yet.

    first                                                       last
      |---- slice 0 ----|---- slice 1 ----| ... |---- slice K-1 ----|      slices of `every` steps
      b0                b1                      b(K-1)

Before slice k is trained, its model at b(k) is probed and its edits are planned; only then the keys of the states in it
can be computed. Until then, and for ever after, such a state goes by an alias, which is a function of the loop and of
the step alone; when the slice is planned, the alias becomes a symbolic link to the state that it is.

    store/loops/<loop>/step<b>.json    what was seen at b, decided for the slice after it, and the plan so far
    store/loops/<loop>/placebo.json    the plan of the placebo, which follows the slices when all are planned
    store/loops/<loop>/plans/          the plan so far and the one before it; the one with all slices is in store/plans/
    store/loops/<loop>/overlays/       the edits of one slice each: all that its jobs read of a plan
    store/states/<alias> -> <key>      store/evals/<alias> -> <key>

Records are written once and never changed. A plan holds all that those before it do, so these are released: whoever
looks for one of them takes the last. No other loop and no study has a plan in a loop's own folder. Standard library
only.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pretrain_exp.store.keys import digest
from pretrain_exp.store.states import write_json

SCHEMA = 1
LINKED = ("states", "evals")
RELEASED = ".released"  # what ends the name of a plan that is being deleted


@dataclass(frozen=True)
class Loop:
    """One arm that is planned slice by slice. every: steps of a slice; the last one may be shorter."""

    key: str
    first_step: int
    last_step: int
    every: int

    @classmethod
    def named(cls, facts: Mapping[str, Any], first_step: int, last_step: int, every: int) -> Loop:
        """facts: all else that decides what the loop does."""
        steps = [first_step, last_step, every]
        return cls(digest({"schema": SCHEMA, "facts": dict(facts), "steps": steps}), first_step, last_step, every)

    @property
    def boundaries(self) -> range:
        """The steps before which a slice is planned."""
        return range(self.first_step, self.last_step, self.every)

    def boundary(self, step: int) -> int:
        """Where the slice begins that trains `step`."""
        return step - (step - self.first_step) % self.every

    def end(self, step: int) -> int:
        """Where the slice ends that trains `step`."""
        return min(self.boundary(step) + self.every, self.last_step)

    def prefix(self, static: Callable[[int], str], role: str = "treated") -> Callable[[int], str]:
        """step -> what stands for the digest of the plan before it: the digest itself where the loop begins."""
        return lambda step: static(step) if step <= self.first_step else f"{role} {self.key}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Loop:
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})


def folder(store: Path, key: str) -> Path:
    return store / "loops" / key


def record_path(store: Path, loop: Loop, step: int) -> Path:
    """What was seen and decided at a boundary, or only seen at the end."""
    return folder(store, loop.key) / f"step{step}.json"


def placebo_path(store: Path, loop: Loop) -> Path:
    return folder(store, loop.key) / "placebo.json"


def read(path: Path) -> dict[str, Any] | None:
    """A record; None where it is not written yet."""
    return json.loads(path.read_text()) if path.is_file() else None


def write(path: Path, record: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"schema": SCHEMA, **record})


def records(store: Path, loop: Loop) -> list[dict[str, Any]]:
    """What was recorded so far, by step, the end included."""
    found = [read(record_path(store, loop, step)) for step in (*loop.boundaries, loop.last_step)]
    return [record for record in found if record is not None]


def plan_root(store: Path, loop: Loop, end: int) -> Path:
    """The folder of the plans whose last slice stops at `end`: the loop's own, until all slices are planned."""
    return store / "plans" if end == loop.last_step else folder(store, loop.key) / "plans"


def plan_folder(store: Path, loop: Loop, plan: str) -> Path:
    """Where the plan of a loop's last record is."""
    path = store / "plans" / plan
    return path if path.is_dir() else folder(store, loop.key) / "plans" / plan


def overlay_folder(store: Path, loop: Loop, step: int, digest: str) -> Path:
    """Where the edits are that the slice from `step` on reads. digest: of what its plan does before the slice's end."""
    return folder(store, loop.key) / "overlays" / f"step{step}-{digest or 'none'}"


def release(store: Path, loop: Loop) -> None:
    """Deletes the plans that the last two records do not name; the last but one stays for who has just opened it.

    Only what an earlier record names goes: who comes late to it, or twice, deletes no plan that is yet to be recorded.
    """
    own, names = folder(store, loop.key) / "plans", [record["plan"] for record in records(store, loop)]
    for name in set(names[:-2]) - set(names[-2:]):
        with suppress(OSError):  # gone already, or being deleted by another
            os.rename(own / name, own / f".{name}{RELEASED}")
    for gone in own.glob(f"*{RELEASED}"):  # also what one left that was killed
        shutil.rmtree(gone, ignore_errors=True)


def drop_plans(store: Path, loop: Loop) -> None:
    """Deletes all plans in the loop's own folder, when the one with all slices is in store/plans/."""
    shutil.rmtree(folder(store, loop.key) / "plans", ignore_errors=True)


def link(store: Path, alias: str, key: str) -> None:
    """Lets an alias stand for a state and for its scores; both may be yet to come."""
    for room in LINKED:
        path = store / room / alias
        path.parent.mkdir(parents=True, exist_ok=True)
        (store / "evals" / key).mkdir(parents=True, exist_ok=True)
        if path.is_symlink() and os.readlink(path) == key:
            continue
        temporary = path.with_name(f".{alias}.{uuid.uuid4().hex[:8]}")
        temporary.symlink_to(key)
        os.replace(temporary, path)


def known(store: Path, key: str) -> str:
    """The key that an alias stands for; any other key, or an alias that stands for none yet, as it is."""
    with suppress(OSError):
        return os.readlink(store / "states" / key)
    return key


def realised(store: Path, member: dict[str, Any]) -> dict[str, Any]:
    """The record of a member with the keys and plans that its loop has come to, as far as it has."""
    arms = {arm: _realised(store, record) if record.get("loop") else record for arm, record in member["arms"].items()}
    plan, treated = member["plan"], arms.get("treated")
    if treated is not None and treated.get("loop"):
        plan = treated["plan"]
    fingerprint = {} if plan is None else {"plan_fingerprint": Path(plan).name}
    return {**member, "arms": arms, "plan": plan, **fingerprint}


def _realised(store: Path, arm: dict[str, Any]) -> dict[str, Any]:
    loop = Loop.from_json(arm["loop"])
    placebo = read(placebo_path(store, loop)) if arm["loop"]["role"] == "placebo" else None
    found = [placebo] if placebo else records(store, loop) if arm["loop"]["role"] == "treated" else []
    plan = str(plan_folder(store, loop, found[-1]["plan"])) if found else arm["plan"]
    return {
        **arm,
        "plan": plan,
        "last": known(store, arm["last"]),
        "states": {step: known(store, key) for step, key in arm["states"].items()},
        "keep": sorted({known(store, key) for key in arm["keep"]}),
    }
