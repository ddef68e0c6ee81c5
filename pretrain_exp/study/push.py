"""Pushes checkpoints to the hub, as Hugging Face folders, verified on the way. Off unless `hub.repo_id` is given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pretrain_exp.config import HubConfig
from pretrain_exp.errors import UserError
from pretrain_exp.framework.base import Checkpoint
from pretrain_exp.kinds import check_kind
from pretrain_exp.store.states import can_start, state_dir
from pretrain_exp.study.registry import read_members, read_study


def push_study(folder: Path) -> list[str]:
    """Pushes the steps and arms that `hub` names, each to a revision of its own. Returns the revisions.

    UserError that names what was not trained, after the others were pushed.
    """
    study = read_study(folder)
    absent: list[str] = []
    pushed = [revision for member in read_members(study) for revision in _push(member, Path(study["store"]), absent)]
    if absent:
        fix = "run the study again: it trains what is missing, and pushes it"
        raise UserError("has no weights in the store", key="hub", value=absent, fix=fix)
    return pushed


def _push(member: dict[str, Any], store: Path, absent: list[str]) -> list[str]:
    """absent: takes the revisions whose weights are not there."""
    hub = HubConfig.model_validate(member["config"].get("hub", {}))
    if hub.repo_id is None:
        return []
    from pretrain_exp.store.hub import push_folder

    framework = check_kind(member["config"]["framework"], "framework")
    pushed = []
    for arm in hub.arms:
        states = member["arms"].get(arm, {"states": {}})["states"]
        for step in hub.steps or [member["last_step"]]:
            key = states.get(str(step))
            label = re.sub(r"[^\w.]+", "-", member["label"].replace("=", "")).strip("-.")  # a branch's name
            revision = "-".join(part for part in (arm, label, f"seed{member['seed']}", f"step{step}") if part)
            if key is None or not can_start(store, key):
                absent.append(revision)
                continue
            with Checkpoint.of(framework, state_dir(store, key)).as_hf() as source:
                push_folder(source, hub.repo_id, revision, private=hub.private)
            pushed.append(revision)
    return pushed
