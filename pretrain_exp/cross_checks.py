"""What no single field of a configuration can know: steps within the run, tables, arms. A Config in, problems out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pretrain_exp.errors import UserError
from pretrain_exp.eval.vllm import check_vllm

if TYPE_CHECKING:
    from pretrain_exp.config import Config, ModelConfig


def cross_checks(config: Config) -> list[UserError]:
    """A problem for each; none where all is well."""
    out = []
    first, last = config.first_step, config.last_step
    for key, steps in (
        ("training.additional_checkpoint_steps", config.training.additional_checkpoint_steps),
        ("evaluation.steps", config.evaluation.steps),
        ("hub.steps", config.hub.steps or []),
    ):
        outside = [step for step in steps if not first <= step <= last]
        if outside:
            out.append(UserError(f"steps outside the run, which goes from {first} to {last}", key=key, value=outside))
    total = config.training.schedule.total_steps
    if total is not None and total < last:
        fix = f"give at least {last}, or null for the end of this run"
        out.append(
            UserError(f"ends before the run, at step {last}", key="training.schedule.total_steps", value=total, fix=fix)
        )
    warmup = config.training.schedule.warmup_steps
    if warmup > (total or last):
        out.append(UserError("is longer than the whole schedule", key="training.schedule.warmup_steps", value=warmup))
    for key, path in (("replay", config.replay), ("export_plan", config.export_plan)):
        if path is not None and Path(path).suffix not in (".csv", ".jsonl", ".parquet"):
            out.append(UserError("is a table in .csv, .jsonl or .parquet", key=key, value=path))
        elif key == "replay" and path is not None and not Path(path).is_file():
            out.append(UserError("no such file", key=key, value=path, fix="give an existing table"))
    if config.evaluation.generation == "vllm":
        out += check_vllm(config.evaluation.device, config.evaluation.shards)
    out += _no_such_checkpoint(config.model)
    known = _arms(config)
    if config.hub.repo_id and not set(config.hub.arms) <= known:
        out.append(UserError(f"arms are {', '.join(sorted(known))}", key="hub.arms", value=config.hub.arms))
    return out


def _no_such_checkpoint(model: ModelConfig) -> list[UserError]:
    """What is written as a path, and can be no name of the hub, must be there; a URL brings it otherwise."""
    name = model.checkpoint
    if name is None or model.checkpoint_url is not None or Path(name).exists():
        return []
    if not name.startswith((".", "/", "~")) and name.count("/") < 2:
        return []
    fix = "give the folder of a checkpoint, or a name of the hub: Qwen/Qwen3-0.6B-Base"
    return [UserError("no such folder", key="model.checkpoint", value=name, fix=fix)]


def _arms(config: Config) -> set[str]:
    """The arms that will be trained; of a replayed table those of its experiments are known later."""
    edited = bool(config.insertion) or config.replay is not None
    if not edited:
        return {"control"}
    found = {"treated"} | {name for name in ("control", "placebo") if getattr(config.arms, name)}
    if config.arms.each:
        found |= {f"only_{name}" for name in config.insertion}
        found |= {name for name in config.hub.arms if name.startswith("only_") and config.replay is not None}
    return found
