"""Pushes checkpoints to the hub, as Hugging Face folders, verified on the way. Off unless `hub.repo_id` is given."""

from __future__ import annotations

from pathlib import Path

from pretrain_exp.framework.base import Checkpoint
from pretrain_exp.store.hub import push_folder
from pretrain_exp.store.states import can_start, state_dir
from pretrain_exp.study.member import Member


def push_member(member: Member, store: Path) -> list[str]:
    """Pushes the steps and arms that `hub` names, each to a revision of its own. Returns the revisions."""
    hub = member.config.hub
    assert hub.repo_id is not None
    pushed = []
    for arm in hub.arms:
        run = member.runs.get(arm)
        for step in hub.steps or [member.config.last_step]:
            if run is None or not can_start(store, run.key(step)):
                continue
            parts = [arm, member.label.replace("=", "").replace(", ", "-"), f"seed{member.config.seed.all}", f"step{step}"]
            revision = "-".join(part for part in parts if part)
            with Checkpoint.of(member.composed.kinds.framework, state_dir(store, run.key(step))).as_hf() as folder:
                push_folder(folder, hub.repo_id, revision, private=hub.private)
            pushed.append(revision)
    return pushed
