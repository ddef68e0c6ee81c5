"""The job of one worker: the segment that it trains, read from job.json and checked on meeting.

start --train--> save --train--> save = stop        (a state is the model after `step` updates)
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain_exp.data.phases import Phases
from pretrain_exp.errors import UserError
from pretrain_exp.framework.worker.hooks import check_hooks

SCHEMA = 1


@dataclass(frozen=True)
class Save:
    """A state that the job leaves in the store: after `step` updates, under `key`, `record` in its state.json."""

    step: int
    key: str
    record: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """job.json, typed. The names are those of the file."""

    path: Path  # of job.json itself
    start_state: Path | None  # folder of a state; None: the model's own initial weights
    start_step: int
    saves: tuple[Save, ...]  # by step
    store: Path
    live: Path  # the job's own folder: live log, error.json, checkpoints to resume from
    order: dict[str, Any]
    phases: Phases
    overlay: Path | None
    model: dict[str, Any]
    training: dict[str, Any]
    tokenizer: Path | None
    eos_token_id: int
    init_seed: int
    hooks: tuple[dict[str, Any], ...] = ()  # of the plan, all steps: see hooks.py
    seal: dict[str, Any] | None = None  # of the folder of weights that the model begins with: framework/identity.py

    @classmethod
    def load(cls, path: Path, hooks: Collection[str] = ()) -> Job:
        """UserError where the file is of another schema, asks for a kind of hook that is not among `hooks`, or saves
        nothing or too early."""
        values = json.loads(path.read_text())
        if values["schema"] != SCHEMA:
            raise UserError(
                f"job schema {values['schema']}, this worker reads {SCHEMA}", fix="use one version for both"
            )
        check_hooks(values["hooks"], hooks)
        saves = tuple(sorted((Save(s["step"], s["key"], s["record"]) for s in values["save"]), key=lambda s: s.step))
        start = values["start"]
        if not saves or saves[0].step < start["step"] or saves[-1].step != values["stop"]:
            steps = [save.step for save in saves]
            raise UserError(f"the saves must lie from step {start['step']} on and end at {values['stop']}", value=steps)
        return cls(
            path=path,
            start_state=Path(start["state"]) if start["state"] else None,
            start_step=start["step"],
            saves=saves,
            store=Path(values["store"]),
            live=Path(values["live"]),
            order=values["order"],
            phases=Phases.from_json(values["phases"]),
            overlay=Path(values["overlay"]) if values["overlay"] else None,
            model=values["model"],
            training=values["training"],
            tokenizer=Path(values["tokenizer"]) if values["tokenizer"] else None,
            eos_token_id=values["eos_token_id"],
            init_seed=values["seeds"]["init"],
            hooks=tuple(values["hooks"]),
            seal=values.get("seal"),
        )

    @property
    def resume(self) -> Path:
        """Where checkpoints between saves lie."""
        return self.live / "resume"
