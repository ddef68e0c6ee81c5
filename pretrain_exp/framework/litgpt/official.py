"""An official configuration of litgpt (config_hub/pretrain, for `litgpt pretrain --config`), as our model fields.

    model_name | model_config | initial_checkpoint_dir  -> config | checkpoint
    train.{global_batch_size, max_seq_length, max_tokens, lr_warmup_steps, min_lr, tie_embeddings}, optimizer -> others

What it says of devices, logs, validation and data lies with other groups here; a field that litgpt does not have is an
error. precision and train.max_norm are fields of `training`.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from pretrain_exp.errors import UserError
from pretrain_exp.framework.litgpt.architecture import TIE, build
from pretrain_exp.framework.litgpt.checks import ADAMW

READ = {"model_name", "model_config", "initial_checkpoint_dir", "train", "optimizer", "tokenizer_dir"}
OF_OTHERS = {"out_dir", "precision", "resume", "data", "eval", "log", "devices", "num_nodes", "logger_name", "seed"}
TRAIN = {"global_batch_size", "max_seq_length", "max_tokens", "max_steps", "lr_warmup_steps", "min_lr", TIE}
TRAIN_OF_OTHERS = {"save_interval", "log_interval", "micro_batch_size", "max_norm", "epochs", "max_time"}
NEEDED = ("global_batch_size", "max_tokens", "lr_warmup_steps", "min_lr")


def model_fields(path: Path, module: ModuleType) -> dict[str, Any]:
    """The fields of `model` that the file gives. UserError where it is none of litgpt's, or leaves them open."""
    values = _load(path)
    train, optimizer = values.get("train") or {}, _optimizer(values.get("optimizer", "AdamW"))
    _demand_known(set(values), READ | OF_OTHERS, "")
    _demand_known(set(train), TRAIN | TRAIN_OF_OTHERS | {"lr_warmup_fraction"}, "train.")
    if train.get("lr_warmup_fraction"):
        raise _wrong("is a share of an epoch of litgpt's data", "train.lr_warmup_fraction", "give lr_warmup_steps")
    for name in NEEDED:
        if train.get(name) is None:
            raise _wrong("is needed", f"train.{name}", "give it in the file, as litgpt's own files do")
    architecture = _architecture(values, bool(train.get(TIE)))
    batch, length = int(train["global_batch_size"]), train.get("max_seq_length")
    if length is None:
        if architecture is None:
            raise _wrong("is needed beside a checkpoint", "train.max_seq_length", "give the tokens of a sequence")
        length = build(module, architecture).block_size
    steps = int(float(train["max_tokens"])) // (batch * int(length))
    return {
        "config": architecture,
        "checkpoint": None if architecture is not None else str(values["initial_checkpoint_dir"]),
        "sequence_length": int(length),
        "batch_size": batch,
        "optimizer": optimizer,
        "schedule": {
            "name": "cosine",
            "warmup_steps": int(train["lr_warmup_steps"]),
            "total_steps": min(steps, int(train["max_steps"])) if train.get("max_steps") else steps,
            "decay_steps": None,
            "min_lr_ratio": float(train["min_lr"]) / optimizer["lr"],
        },
        **({"tokenizer": str(values["tokenizer_dir"])} if values.get("tokenizer_dir") else {}),
    }


def _load(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError("no such file", key="model.official", value=str(path)) from None
    except yaml.YAMLError as error:
        raise UserError(f"no YAML: {error}", key="model.official", value=str(path)) from None
    if not isinstance(values, dict):
        raise UserError("holds no fields", key="model.official", value=str(path))
    return values


def _architecture(values: dict[str, Any], tie: bool) -> dict[str, Any] | None:
    """The fields of model.config; None where the file goes on from a checkpoint."""
    if values.get("initial_checkpoint_dir"):
        return None
    fields = dict(values.get("model_config") or {})
    if not fields and not values.get("model_name"):
        raise _wrong("is needed", "model_name", "a name of litgpt, or model_config")
    fields = {key: value for key, value in (fields or {"name": values["model_name"]}).items() if key != "hf_config"}
    return {**fields, **({TIE: True} if tie else {})}


def _optimizer(given: Any) -> dict[str, Any]:
    """The fields of model.optimizer, torch's defaults where the file says nothing, as litgpt's loop would have them."""
    given = {"class_path": given if "." in given else f"torch.optim.{given}"} if isinstance(given, str) else given
    if given.get("class_path") != ADAMW:
        raise _wrong("is not AdamW", "optimizer.class_path", "name it as training.args.optimizer")
    init = dict(given.get("init_args") or {})
    _demand_known(set(init), {"lr", "betas", "eps", "weight_decay", "fused"}, "optimizer.init_args.")
    return {
        "lr": float(init.get("lr", 1e-3)),
        "betas": [float(beta) for beta in init.get("betas", (0.9, 0.999))],
        "eps": float(init.get("eps", 1e-8)),
        "weight_decay": float(init.get("weight_decay", 1e-2)),
    }


def _demand_known(given: set[str], known: set[str], prefix: str) -> None:
    if unknown := sorted(given - known):
        names = ", ".join(sorted(known))
        raise _wrong("litgpt's pretraining takes no such field", prefix + unknown[0], f"known: {names}")


def _wrong(problem: str, field: str, fix: str) -> UserError:
    return UserError(f"{field} {problem}", key="model.official", fix=fix)
