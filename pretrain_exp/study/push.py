"""Pushes checkpoints to the hub, as Hugging Face folders, verified on the way. Off unless `hub.repo_id` is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pretrain_exp.config import HubConfig
from pretrain_exp.framework.base import Checkpoint
from pretrain_exp.kinds import check_kind
from pretrain_exp.store.states import can_start, state_dir
from pretrain_exp.study.registry import read_members, read_study


def push_study(folder: Path) -> list[str]:
    """Pushes the steps and arms that `hub` names, each to a revision of its own. Returns the revisions."""
    study = read_study(folder)
    return [revision for member in read_members(study) for revision in _push(member, Path(study["store"]))]


def _push(member: dict[str, Any], store: Path) -> list[str]:
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
            if key is None or not can_start(store, key):
                continue
            label = member["label"].replace("=", "").replace(", ", "-")
            revision = "-".join(part for part in (arm, label, f"seed{member['seed']}", f"step{step}") if part)
            with Checkpoint.of(framework, state_dir(store, key)).as_hf() as source:
                push_folder(source, hub.repo_id, revision, private=hub.private)
            pushed.append(revision)
    return pushed
