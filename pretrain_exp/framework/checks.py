"""What every framework asks of a training section: numbers that fit each other, whoever trains with them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pretrain_exp.errors import UserError


def check_numbers(training: dict[str, Any], world: int, schedules: Collection[str], who: str) -> list[UserError]:
    """Numbers that do not fit each other, or these ranks. schedules: the names of those that `who` has."""
    found = check_batch(training, world) + check_schedule(training["schedule"], schedules, who)

    def wrong(problem: str, key: str, value: object, fix: str | None = None) -> None:
        found.append(UserError(problem, key=f"training.{key}", value=value, fix=fix))

    if training["precision"] not in ("fp32", "bf16"):
        wrong("unknown precision", "precision", training["precision"], "fp32 or bf16")
    if not training["optimizer"]["lr"] > 0:
        wrong("must be positive", "optimizer.lr", training["optimizer"]["lr"])
    for i, beta in enumerate(training["optimizer"]["betas"]):
        if not 0.0 <= beta < 1.0:
            wrong("must be at least 0 and below 1", f"optimizer.betas.{i}", beta)
    return found


def check_batch(training: dict[str, Any], world: int) -> list[UserError]:
    """Whether the ranks share a batch evenly, and micro-batches a rank's part of it."""
    batch, micro = training["batch_size"], training.get("micro_batch_size")
    part = batch // world
    if batch % world:
        fix = f"framework.devices could be {_divisors(batch, world)}"
        problem = f"{batch} sequences do not divide among {world} ranks"
        return [UserError(problem, key="training.batch_size", value=batch, fix=fix)]
    if micro is not None and (micro < 1 or part % micro):
        fix = f"one of {_divisors(part, part)}"
        problem = f"must divide the {part} sequences of a rank"
        return [UserError(problem, key="training.micro_batch_size", value=micro, fix=fix)]
    return []


def check_schedule(schedule: dict[str, Any], known: Collection[str], who: str) -> list[UserError]:
    """A name that `who` has, and a decay that fits the run."""
    found: list[UserError] = []
    total, warmup, decay = schedule["total_steps"], schedule.get("warmup_steps") or 0, schedule.get("decay_steps") or 0
    key, ratio = "training.schedule", schedule.get("min_lr_ratio") or 0.0
    if schedule["name"] not in known:
        fix = f"one of {', '.join(known)}"
        found.append(UserError(f"{who} has no such schedule", key=f"{key}.name", value=schedule["name"], fix=fix))
    elif schedule["name"] == "wsd" and warmup <= total and not 1 <= decay <= total - warmup:
        problem = f"must lie between 1 and the {total - warmup} steps after the warm-up"
        found.append(UserError(problem, key=f"{key}.decay_steps", value=decay))
    if not 0.0 <= ratio <= 1.0:
        found.append(UserError("must lie between 0 and 1", key=f"{key}.min_lr_ratio", value=ratio))
    return found


def _divisors(number: int, most: int) -> list[int]:
    return [n for n in range(1, most + 1) if number % n == 0]
