"""What can be said about a model and training section before litgpt is imported: all that would stop a job.

litgpt's loop decides what it can do: AdamW by a class path, a cosine or constant learning rate after a linear warm-up,
the mean cross-entropy. What it cannot do is refused by name. `training.args` holds what `litgpt pretrain` takes beyond
our own fields; a name that has a field of ours is sent there.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.framework.checks import check_numbers
from pretrain_exp.framework.installed import arguments_of
from pretrain_exp.framework.litgpt.architecture import build
from pretrain_exp.framework.litgpt.families import family_of

ARGS = {  # of training.args
    "strategy": ("auto", "ddp", "fsdp"),
    "sharding_strategy": ("FULL_SHARD", "SHARD_GRAD_OP", "HYBRID_SHARD", "NO_SHARD"),
    "precision": ("bf16-true",),  # beyond training.precision: weights and moments in bf16 too
    "optimizer": None,  # {class_path, init_args}
}
ELSEWHERE = {  # names of litgpt that have a field here
    "global_batch_size": "training.batch_size",
    "micro_batch_size": "training.micro_batch_size",
    "lr_warmup_steps": "training.schedule.warmup_steps",
    "lr_warmup_fraction": "training.schedule.warmup_steps",
    "max_tokens": "training.schedule.total_steps",
    "max_steps": "training.schedule.total_steps",
    "max_time": "training.num_steps",
    "epochs": "training.num_steps",
    "min_lr": "training.schedule.min_lr_ratio",
    "max_norm": "training.max_grad_norm",
    "max_seq_length": "training.sequence_length",
    "tie_embeddings": "model.config.tie_embeddings",
    "save_interval": "training.checkpoint_interval",
    "log_interval": "training.log_every",
    "devices": "framework.devices",
    "seed": "seed.init",
    "model_name": "model.config.name",
    "model_config": "model.config",
    "initial_checkpoint_dir": "model.checkpoint",
    "tokenizer_dir": "model.tokenizer",
}
OPTIMIZER = ("lr", "betas", "eps", "weight_decay")  # init_args that training.optimizer gives
ADAMW = "torch.optim.AdamW"


def check_training(training: dict[str, Any], world: int, device: str) -> list[UserError]:
    """Numbers that do not fit each other, and what litgpt's loop cannot do."""
    found = check_numbers(training, world, ("cosine", "constant"), "litgpt")

    def wrong(problem: str, key: str, value: object, fix: str | None = None) -> None:
        found.append(UserError(problem, key=f"training.{key}", value=value, fix=fix))

    for name, value in (("z_loss", training["z_loss"]), ("document_masking", training["document_masking"])):
        if value:
            wrong("litgpt's training loop has none", name, value, f"training.{name}={type(value)(0)}")
    args = training.get("args") or {}
    found += _check_args(args)
    if args.get("precision") == "bf16-true" and training["precision"] != "bf16":
        wrong("is a kind of bf16", "args.precision", "bf16-true", "training.precision=bf16")
    strategy, sharded = args.get("strategy", "auto"), is_sharded(training, world, device)
    if strategy == "fsdp" and device == "cpu" and world > 1:
        wrong(
            "several ranks of FSDP need GPUs: torch crashes where CPUs gather a model", "args.strategy", "fsdp", "ddp"
        )
    if strategy == "ddp" and world == 1:
        wrong("one rank has nothing to exchange", "args.strategy", "ddp", "auto, or framework.devices above 1")
    if "sharding_strategy" in args and not sharded:
        wrong("is FSDP's, which does not run here", "args.sharding_strategy", args["sharding_strategy"])
    if training["activation_checkpointing"] and not sharded:
        wrong("litgpt has it with FSDP only", "activation_checkpointing", True, "training.args.strategy=fsdp")
    return found


def is_sharded(training: dict[str, Any], world: int, device: str) -> bool:
    """Whether ranks share the model by FSDP, rather than each holding it whole."""
    strategy = (training.get("args") or {}).get("strategy", "auto")
    return strategy == "fsdp" or (strategy == "auto" and world > 1 and device == "cuda")


def bytes_per_parameter(args: dict[str, Any]) -> int:
    """Of weight, gradient and, with AdamW, two moments; another optimizer may hold none."""
    optimizer = args.get("optimizer")
    numbers = 4 if not isinstance(optimizer, dict) or optimizer.get("class_path", ADAMW) == ADAMW else 2
    return numbers * (2 if args.get("precision") == "bf16-true" else 4)


def _check_args(args: dict[str, Any]) -> list[UserError]:
    found: list[UserError] = []

    def wrong(problem: str, key: str, value: object, fix: str | None = None) -> None:
        found.append(UserError(problem, key=f"training.args.{key}", value=value, fix=fix))

    for name, value in args.items():
        if name in ELSEWHERE:
            wrong("has a field of its own", name, value, f"set {ELSEWHERE[name]}")
        elif name not in ARGS:
            near = get_close_matches(name, [*ARGS, *ELSEWHERE], 1)
            fix = f"did you mean {near[0]}?" if near else f"known: {', '.join(ARGS)}"
            wrong("litgpt's pretraining takes no such argument", name, value, fix)
        elif (choices := ARGS[name]) is not None and value not in choices:
            wrong("is no such choice", name, value, f"one of {', '.join(choices)}")
    optimizer = args.get("optimizer")
    if optimizer is None:
        return found
    if not isinstance(optimizer, dict) or set(optimizer) - {"class_path", "init_args"}:
        wrong("has class_path and init_args", "optimizer", optimizer)
        return found
    path, init = optimizer.get("class_path", ADAMW), optimizer.get("init_args") or {}
    if not isinstance(path, str) or "." not in path:
        wrong("is a dotted path", "optimizer.class_path", path, f"such as {ADAMW}")
    if not isinstance(init, dict):
        wrong("holds names and values", "optimizer.init_args", init, "such as {amsgrad: true}")
    for name in sorted(set(init) & set(OPTIMIZER)) if isinstance(init, dict) else ():
        wrong("has a field of its own", f"optimizer.init_args.{name}", init[name], f"set training.optimizer.{name}")
    return found


def check_optimizer(python: str, args: dict[str, Any]) -> list[UserError]:
    """Another class than AdamW: that the worker's interpreter has it, and that it takes its arguments."""
    given = args.get("optimizer")
    if not isinstance(given, dict):
        return []
    path, init = given.get("class_path", ADAMW), given.get("init_args") or {}
    well_formed = isinstance(path, str) and "." in path and isinstance(init, dict)  # else `check_training` says it
    if not well_formed or (path == ADAMW and not init):
        return []
    taken, key = arguments_of(python, path), "training.args.optimizer"
    if not taken.there:
        fix = f"a class of the worker's environment, such as {ADAMW}"
        return [UserError("no such class", key=f"{key}.class_path", value=path, fix=fix)]
    if taken.names is None:
        return []
    problem, fix = f"{path} takes no such argument", f"known: {', '.join(sorted(taken.names - {'params'}))}"
    return [
        UserError(problem, key=f"{key}.init_args.{name}", value=init[name], fix=fix)
        for name in sorted(set(init) - taken.names)
    ]


def check_model(module: ModuleType, model: dict[str, Any], sequence_length: int) -> list[UserError]:
    """An architecture from scratch: that litgpt has it, that it converts, and that a sequence fits."""
    if model.get("attn_implementation"):
        problem, fix = "litgpt has one attention, that of torch", "null"
        return [UserError(problem, key="model.attn_implementation", value=model["attn_implementation"], fix=fix)]
    if not model.get("config"):
        return []
    try:
        config = build(module, model["config"])
        family_of(config)
    except UserError as error:
        return [error]
    return _too_long(config.block_size, sequence_length, "model.config.block_size")


def _too_long(longest: int, length: int, key: str) -> list[UserError]:
    if longest >= length:
        return []
    fix = f"at least training.sequence_length = {length}"
    return [UserError("shorter than a sequence", key=key, value=longest, fix=fix)]


def check_data(module: ModuleType, model: dict[str, Any], vocab_size: int, sequence_length: int) -> list[UserError]:
    """The architecture against the tokenizer's ids and the length of a sequence, from scratch or of a folder."""
    if model.get("config"):
        config, key = build(module, model["config"]), "model.config"
    else:
        found = folder_config(module, model.get("checkpoint") or "")
        if found is None:
            return []
        config, key = found, "model.checkpoint"
    problems = _too_long(config.block_size, sequence_length, key)
    if config.padded_vocab_size < vocab_size:
        text = f"the model has {config.padded_vocab_size:,} token ids, the tokenizer {vocab_size:,}"
        fix = "name the tokenizer of this model, or give a padded_vocab_size"
        problems.append(UserError(text, key=key, value=config.padded_vocab_size, fix=fix))
    return problems


def folder_config(module: ModuleType, checkpoint: str) -> Any | None:
    """litgpt.Config of one of its own checkpoint folders; None for others, which the worker judges."""
    path = Path(checkpoint) / "model_config.yaml"
    return module.Config.from_file(path) if checkpoint and path.is_file() else None


def check_folder(module: ModuleType, model: dict[str, Any]) -> list[UserError]:
    """One of litgpt's own checkpoint folders on this machine: of an architecture that converts."""
    config = folder_config(module, model.get("checkpoint") or "")
    try:
        if config is not None:
            family_of(config)
    except UserError as error:
        return [error]
    return []
