"""What `pretrain-exp evaluate` is asked to score: words of the command line in, checkpoints out.

outputs/my_study              every state of the study whose weights are there
runs/a/step1000               a Hugging Face folder; run runs/a, step 1000
account/name@step1000         a hub name at a revision; run account/name, step 1000
account/name@abc:1000         a step that the name does not tell
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pretrain_exp.errors import UserError
from pretrain_exp.eval.identity import folder_seal, is_folder
from pretrain_exp.store.hub import resolve_revision
from pretrain_exp.store.keys import digest
from pretrain_exp.store.states import can_start
from pretrain_exp.study.registry import read_members, read_study

STEP = re.compile(r"(?<![a-z])step[-_]?(\d+)", re.IGNORECASE)
NAMED = 3  # of the states that are left out


@dataclass(frozen=True)
class Target:
    """A checkpoint to score. identity: of its weights and tokenizer, of a state its key; model: None for a state.

    study, arm, member, seed: of a state; of another checkpoint, member is its run, as its name tells it.
    step: where it is known. store, framework: of the study that a state is of. items, held_out: items.parquet of the
    study's plan, and the documents that its data source held out. tokenizer: of a state, its folder. seal:
    of a folder, see eval/identity.py.
    """

    label: str
    identity: str
    member: str
    step: int | None
    study: str | None = None
    arm: str | None = None
    seed: int | None = None
    model: str | None = None
    revision: str | None = None
    store: Path | None = None
    framework: Mapping[str, Any] | None = None
    items: str | None = None
    held_out: str | None = None
    held_out_digest: str = ""
    tokenizer: str | None = None
    seal: Mapping[str, Any] | None = None


class Resolved(NamedTuple):
    """The checkpoints that a word names, and a sentence on those among them that are not there."""

    targets: list[Target]
    left_out: str | None = None


def resolve_target(word: str) -> Resolved:
    """The checkpoints that a word on the command line names. UserError where it names none that is there."""
    if (Path(word) / "study.json").is_file():
        return _states_of(Path(word))
    name, step = _split_step(word)
    path = Path(name)
    run, step = _run_of(name, step)
    if (path / "config.json").is_file():
        seal = folder_seal(path)
        return Resolved([Target(word, f"folder-{seal['identity']}", run, step, model=str(path.absolute()), seal=seal)])
    if is_folder(name) or path.exists():
        fix = "give a Hugging Face folder (config.json), a study's folder (study.json) or a hub name"
        problem = "holds neither a model nor a study" if path.exists() else "no such folder"
        raise UserError(problem, value=word, fix=fix)
    repository, _, revision = name.partition("@")
    commit = resolve_revision(repository, revision or None)
    identity = f"hub-{digest([repository, commit])}"
    return Resolved([Target(word, identity, run, step, model=repository, revision=commit)])


def _split_step(word: str) -> tuple[str, int | None]:
    """name:1000 -> (name, 1000); a folder that is there keeps its name."""
    name, _, step = word.rpartition(":")
    return (name, int(step)) if name and step.isdigit() and not Path(word).exists() else (word, None)


def _run_of(name: str, step: int | None) -> tuple[str, int | None]:
    """The run that a checkpoint is of and its step, as far as its name tells: what stands before its last "step7"."""
    found = [*STEP.finditer(name)]
    if found:
        before = name[: found[-1].start()]
        return before.rstrip("/@-_.") or str(Path(before)), int(found[-1][1]) if step is None else step
    if step is None:
        return name, None
    return str(Path(name).parent) if Path(name).exists() else name.partition("@")[0], step


def _states_of(folder: Path) -> Resolved:
    """Every state that a study names, of each arm of each member, and which of them are not there."""
    study = read_study(folder)
    targets, absent = [], []
    for member in read_members(study):
        items = str(Path(member["plan"]) / "items.parquet") if member["plan"] else None
        for arm, record in member["arms"].items():
            run = " ".join(part for part in (arm, member["label"], f"seed {member['seed']}") if part)
            for step, key in record["states"].items():
                if not can_start(study["store"], key):
                    absent.append(f"{run} step {step}")
                    continue
                targets.append(
                    Target(
                        f"{run} step {step}",
                        key,
                        member["label"],
                        int(step),
                        str(folder),
                        arm,
                        member["seed"],
                        store=Path(study["store"]).absolute(),
                        framework=member["config"]["framework"],
                        items=items,
                        held_out=member.get("held_out"),
                        held_out_digest=member.get("held_out_digest", ""),
                        tokenizer=member.get("tokenizer"),
                    )
                )
    if not targets:
        fix = "wait until it has trained (pretrain-exp status), or train it again: its command stands in study.json"
        raise UserError(f"has no state with weights ({len(absent)} named)", value=str(folder), fix=fix)
    return Resolved(targets, _left_out(folder, absent) if absent else None)


def _left_out(folder: Path, absent: list[str]) -> str:
    more = f" and {len(absent) - NAMED} more" if len(absent) > NAMED else ""
    states = "state is" if len(absent) == 1 else "states are"
    names = ", ".join(absent[:NAMED])
    return f"{len(absent)} {states} left out, with no weights yet or released by gc, of {folder}: {names}{more}"
