"""What `tracking` of the configuration holds: the logs that mirror metrics.jsonl, which itself is always written."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WandbConfig(Strict):
    enabled: bool = True
    mode: Literal["offline", "online"] = "offline"  # online falls back to offline where the server cannot be reached
    entity: str | None = None  # the user or team; null: the account's own
    project: str = "pretrain-exp"
    name: str | None = None  # of the runs, before arm and seed; null: the study's title
    add_step_to_name: bool = False  # <name>-step1000: the last step that was mirrored
    tags: list[str] = []


class TensorboardConfig(Strict):
    enabled: bool = False


class TrackingConfig(Strict):
    wandb: WandbConfig = WandbConfig()
    tensorboard: TensorboardConfig = TensorboardConfig()
