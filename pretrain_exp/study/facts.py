"""What is said of a run beside its plan: the facts that name its states, and what its workers need to know.

configuration, data, order --run_facts--> base key        --worker_job--> job.json, start, stop and saves aside
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pretrain_exp.config import KEY_FIELDS, Config, training_facts
from pretrain_exp.data.order import DataOrder
from pretrain_exp.data.phases import Phases
from pretrain_exp.data.prepare import PreparedData
from pretrain_exp.framework.base import Framework
from pretrain_exp.plan.folder import Plan

CONFIGS = ("config.json", "config.yaml", "model_config.yaml")  # of checkpoints, by framework


def model_facts(config: Config, framework: Framework, data: PreparedData) -> dict[str, Any]:
    """The model section, with what a configuration from scratch takes from the tokenizer."""
    model = config.model.model_dump()
    if model["config"] is not None:
        vocab_size, eos_token_id = data.tokenizer.vocab_size, data.files.eos_token_id
        length = config.training.sequence_length
        model["config"] = framework.complete_config(model["config"], vocab_size, eos_token_id, length)
    return model


def run_facts(
    config: Config,
    framework: Framework,
    data: PreparedData,
    order: DataOrder,
    initial: dict[str, Any],
    seeds: dict[str, int],
) -> dict[str, Any]:
    """What the states of all arms have in common, and what makes them differ from those of other members."""
    training = training_facts(config)
    return {
        "framework": framework.key_facts(),
        "initial": initial["identity"],
        "tokenizer": data.tokenizer.fingerprint,
        "shape": [config.training.sequence_length, config.training.batch_size],
        "training": {name: training[name] for name in KEY_FIELDS},
        "schedule": schedule_facts(training["schedule"]),
        "order": order.fingerprint(),
        "init_seed": seeds["init"] if init_matters(initial) else None,
        "first_step": config.first_step,
    }


def schedule_facts(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a schedule of this name reads, so that what has no effect does not make another run."""
    used = {"constant": (), "wsd": ("total_steps", "decay_steps", "min_lr_ratio")}
    names = ("name", "warmup_steps", *used.get(schedule["name"], ("total_steps", "min_lr_ratio")))
    return {name: schedule[name] for name in names}


def init_matters(initial: Mapping[str, Any]) -> bool:
    """Whether `seed.init` changes anything: weights from scratch, or dropout that a checkpoint's config asks for."""
    if initial["kind"] == "scratch":
        return True
    for name in CONFIGS:
        config = Path(str(initial["checkpoint"])) / name
        if config.is_file():
            # JSON is YAML but for tabs and numbers such as 1e-1
            load = json.loads if config.suffix == ".json" else yaml.safe_load
            return _asks_for_dropout(load(config.read_text()))
    return True  # a hub name: its config is not at hand


def _asks_for_dropout(fields: Any, name: str = "") -> bool:
    """Whether any field, at any depth, whose name speaks of dropout is above 0."""
    if isinstance(fields, Mapping):
        return any(_asks_for_dropout(value, str(key)) for key, value in fields.items())
    if isinstance(fields, list):
        return any(_asks_for_dropout(value, name) for value in fields)
    return "drop" in name and isinstance(fields, int | float) and not isinstance(fields, bool) and fields > 0


def worker_job(
    config: Config,
    framework: Framework,
    data: PreparedData,
    order: DataOrder,
    phases: Phases,
    initial: dict[str, Any],
    seeds: dict[str, int],
    plan: Plan | None,
) -> dict[str, Any]:
    """What a worker needs of this run, start, stop and saves aside."""
    model = model_facts(config, framework, data)
    if initial["kind"] == "hf":
        model |= {"checkpoint": initial["checkpoint"], "revision": initial["revision"]}
    return {
        "order": order.to_json(),
        "phases": phases.to_json(),
        "overlay": None if plan is None else str((plan.folder / "overlay").absolute()),
        "model": model,
        "training": training_facts(config),
        "tokenizer": str(Path(data.tokenizer.folder).absolute()),
        "eos_token_id": data.files.eos_token_id,
        "seeds": {"init": seeds["init"]},
        "hooks": [] if plan is None else plan.hooks,
        "seal": initial.get("seal"),
    }
