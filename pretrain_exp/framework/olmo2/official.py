"""An official configuration of OLMo-2 in the place of our model section, and of what training says of its run.

    OLMo2-1B-stage1.yaml --> {name, config, sequence_length, ..., data_seed, training: {precision, z_loss, args}}

The files are those of allenai/OLMo, configs/official-*; any TrainConfig of ai2-olmo in YAML will do. training.args
takes what differs from the recipe of all OLMo-2 runs; what is the machine's is left, see `left_out`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.framework.olmo2.recipe import NEITHER, TRAINING
from pretrain_exp.framework.olmo2.weights import unlike_olmo2

SCHEDULES = {
    "cosine_with_warmup": "cosine",
    "linear_with_warmup": "linear",
    "constant_with_warmup": "constant",
    "constant": "constant",
}
TOKENIZERS = {
    "tokenizers/allenai_dolma2.json": "allenai/OLMo-2-1124-7B"
}  # the same tokenizer, as transformers loads it
RUNTIME = ("init_device", "flash_attention", "precision")  # of ModelConfig: how it is computed, not what
UPSTREAM_Z_LOSS = 1e-4
"""What ai2-olmo multiplies the squared log-partition by; no version of it reads `auxiliary_loss_multiplier`."""
DEFAULTS: dict[str, Any] = {
    "optimizer.name": "lionw",
    "optimizer.decay_norm_and_bias": False,
    "optimizer.decay_embeddings": False,
    "optimizer.selective_updates": False,
    "scheduler.warmup_min_lr": None,
    "scheduler.grad_clip_warmup_steps": None,
    "scheduler.grad_clip_warmup_factor": None,
    "data.instance_filter": None,
    "data.generate_attention_mask": False,
    "fsdp.wrapping_strategy": None,
    "fsdp.sharding_strategy": "FULL_SHARD",
    "fsdp.precision": "pure",
    "fsdp.hybrid_sharding_num_model_replicas": None,
    "max_grad_norm_ratio": None,
}
"""The fields that training.args takes, with ai2-olmo's own defaults for what a file leaves out."""
TAKEN = {
    *DEFAULTS, "model", "run_name", "seed", "global_train_batch_size", "max_duration", "precision", "max_grad_norm",
    "softmax_auxiliary_loss", "auxiliary_loss_multiplier", "activation_checkpointing", "fused_loss",
    "tokenizer.identifier", "data.seed", "data.paths", "data.generate_doc_lengths", "optimizer.learning_rate",
    "optimizer.betas", "optimizer.eps", "optimizer.weight_decay", "scheduler.name", "scheduler.units",
    "scheduler.t_warmup", "scheduler.t_max", "scheduler.alpha_f",
}  # fmt: skip
"""All that is taken, or told in words of its own."""
CHANGES = ("data.label_mask_paths", "early_stopping_factor")  # what is computed, and cannot be chosen
PRECISIONS = {None: "fp32", "fp32": "fp32", "amp_bf16": "bf16"}


def read_official(path: Path) -> dict[str, Any]:
    """The fields of `model`, and `training`. UserError where the file is no such configuration, or not of an OLMo-2.

    Schedules that count tokens become steps, rounded up: at most one step longer.
    """
    values = load(path)
    model, optimizer = values["model"], values["optimizer"]
    length, batch = int(model["max_sequence_length"]), int(values["global_train_batch_size"])
    if values.get("precision") not in PRECISIONS:
        problem, fix = f"computes in {values['precision']}, which is not driven here", "write amp_bf16 or fp32 there"
        raise UserError(problem, key="model.official", value=str(path), fix=fix)
    if unlike := unlike_olmo2(dict(model)):
        told = ", ".join(f"{name} is {model[name]!r}, not {value!r}" for name, value in unlike.items())
        fix = "framework olmo2 trains OLMo-2: take an OLMo2-*.yaml"
        raise UserError(f"describes another model: {told}", key="model.official", value=str(path), fix=fix)
    seed = (values.get("data") or {}).get("seed")
    identifier = (values.get("tokenizer") or {}).get("identifier", "")
    return {
        "name": str(values.get("run_name") or path.stem),
        "config": {name: value for name, value in model.items() if name not in RUNTIME and value is not None},
        "tokenizer": TOKENIZERS.get(identifier, identifier),
        "sequence_length": length,
        "batch_size": batch,
        "optimizer": {
            "lr": float(optimizer["learning_rate"]),
            "betas": [float(beta) for beta in optimizer["betas"]],
            "eps": float(optimizer["eps"]),
            "weight_decay": float(optimizer["weight_decay"]),
        },
        "schedule": _schedule(values, length * batch, path),
        "data_seed": int(values["seed"] if seed is None else seed),
        "data_mix": str(path),
        "training": _training(values),
    }


def left_out(path: Path) -> list[str]:
    """What a file says that is not taken: sentences."""
    values = load(path)
    found = []
    for name, given in (
        ("model.flash_attention", values["model"].get("flash_attention")),
        ("fused_loss", values.get("fused_loss")),
    ):
        if given:
            found.append(f"{name}: +training.args.{name}=true takes it where flash-attn is installed")
    multiplier = values.get("auxiliary_loss_multiplier")
    if values.get("softmax_auxiliary_loss") and multiplier not in (None, UPSTREAM_Z_LOSS):
        found.append(
            f"auxiliary_loss_multiplier {multiplier}, which ai2-olmo never reads: its z-loss is {UPSTREAM_Z_LOSS:g}"
        )
    rest = sorted(_untaken(values))
    found += [f"{name}: {NEITHER[name]}" for name in rest if name in CHANGES]
    if others := [name for name in rest if name not in CHANGES]:
        found.append(f"what is the machine's or has another place: {', '.join(others)}")
    return found


def _untaken(values: Mapping[str, Any], below: str = "") -> Iterator[str]:
    """The fields with a value that is neither taken nor the recipe's."""
    for key, value in values.items():
        name = f"{below}{key}"
        if name in TAKEN or value is None or value == _select(TRAINING, name, None):
            continue
        if isinstance(value, Mapping):
            yield from _untaken(value, f"{name}.")
        else:
            yield name


def load(path: Path) -> dict[str, Any]:
    """The file with its interpolations resolved. UserError where it is no TrainConfig."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        values: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UserError(
            f"cannot be read: {str(error).splitlines()[0]}", key="model.official", value=str(path)
        ) from None
    needed = ("model", "optimizer", "scheduler", "global_train_batch_size")
    missing = [name for name in needed if not isinstance(values, Mapping) or name not in values]
    if missing:
        fix = "give an OLMo2-*.yaml of allenai/OLMo, configs/official-0425 or official-1124"
        raise UserError(f"lacks {', '.join(missing)}", key="model.official", value=str(path), fix=fix)
    return dict(values)


def _training(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `training`; args hold what differs from the recipe."""
    args: dict[str, Any] = {}
    for name, default in DEFAULTS.items():
        value = _select(values, name, default)
        if name == "scheduler.warmup_min_lr" and not _select(values, "scheduler.t_warmup", 100):
            continue  # a warm-up that is not there begins nowhere
        if value != _select(TRAINING, name, default):
            section, _, field = name.rpartition(".")
            (args.setdefault(section, {}) if section else args)[field] = value
    checkpointing = values.get("activation_checkpointing")
    if checkpointing not in (None, False, True, "whole_layer"):
        args["activation_checkpointing"] = checkpointing
    return {
        "precision": PRECISIONS[values.get("precision")],
        "max_grad_norm": values.get("max_grad_norm"),
        "z_loss": UPSTREAM_Z_LOSS if values.get("softmax_auxiliary_loss") else 0.0,
        "document_masking": bool((values.get("data") or {}).get("generate_doc_lengths")),
        "activation_checkpointing": bool(checkpointing),
        "compile": bool(values.get("compile")),
        "args": args,
    }


def _select(values: Mapping[str, Any], name: str, default: Any) -> Any:
    """values["a"]["b"] for "a.b"; the default where it is not there."""
    for part in name.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return default
        values = values[part]
    return values


def _schedule(values: Mapping[str, Any], tokens_per_step: int, path: Path) -> dict[str, Any]:
    scheduler = values["scheduler"]
    if scheduler["name"] not in SCHEDULES:
        problem = f"has scheduler {scheduler['name']}; known here: {', '.join(SCHEDULES)}"
        fix = "write the nearest one there, and the name in training.args.scheduler.name"
        raise UserError(problem, key="model.official", value=str(path), fix=fix)
    unit = tokens_per_step if scheduler.get("units", "steps") == "tokens" else 1
    total = scheduler.get("t_max")
    total_steps = _steps_of_run(values.get("max_duration"), tokens_per_step) if total is None else _steps(total, unit)
    return {
        "name": SCHEDULES[scheduler["name"]],
        "warmup_steps": 0 if scheduler["name"] == "constant" else _steps(scheduler.get("t_warmup", 100), unit),
        "total_steps": total_steps,
        "decay_steps": None,
        "min_lr_ratio": float(scheduler.get("alpha_f", 0.1)),
    }


def _steps_of_run(duration: Any, tokens_per_step: int) -> int | None:
    """Of `max_duration`: steps, or tokens as 4e12T; None where it counts epochs, whose length is the data's."""
    text = str(duration)
    if text.endswith("ep"):
        return None
    return _steps(text[:-1], tokens_per_step) if text.endswith("T") else _steps(text, 1)


def _steps(amount: Any, unit: int) -> int:
    return -(-int(float(amount)) // unit)
