"""What can be said about a model and training section for ai2-olmo before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.framework.checks import check_numbers
from pretrain_exp.framework.olmo2.config import SCHEDULERS, architecture, strategy_of
from pretrain_exp.framework.olmo2.fields import Fields
from pretrain_exp.framework.olmo2.formats import REFUSED, detect, format_of
from pretrain_exp.framework.olmo2.recipe import FIXED, NEITHER, OURS
from pretrain_exp.framework.olmo2.weights import unlike_olmo2

SIZES = ("d_model", "n_heads", "n_layers")


def check_training(training: dict[str, Any], world: int, device: str) -> list[UserError]:
    """Numbers that do not fit each other, and what ai2-olmo does not do."""
    args = training.get("args") or {}
    found = check_numbers(training, world, SCHEDULERS, "ai2-olmo")
    if device == "cpu" and training["precision"] == "bf16":
        fix = "a machine with a GPU, or training.precision=fp32; model=olmo2_tiny is what a CPU trains"
        found.append(UserError("ai2-olmo computes bf16 on a GPU only", key="training.precision", value="bf16", fix=fix))
    if training["document_masking"] and not (args.get("model") or {}).get("flash_attention"):
        problem = "ai2-olmo keeps documents apart with flash-attn alone, which takes a GPU"
        fix = "+training.args.model.flash_attention=true where flash-attn is installed, else false"
        found.append(UserError(problem, key="training.document_masking", value=True, fix=fix))
    return found


def check_args(args: Mapping[str, Any], fields: Fields, device: str, world: int) -> list[UserError]:
    """training.args against the fields of TrainConfig: unknown ones, and those that have another place or none."""
    found = fields.problems(args, "TrainConfig", "training.args")
    for name, value in _flat(args):
        key = f"training.args.{name}"
        if (ours := OURS.get(name)) is not None:
            found.append(UserError(f"has another place: {ours}", key=key, value=value, fix=f"set {ours}"))
        elif (why := NEITHER.get(name)) is not None:
            found.append(UserError(f"cannot be chosen: {why}", key=key, value=value, fix="leave it out"))
        elif name.startswith("model.") and FIXED.get(name[6:], value) != value:
            fix = "leave it out"
            found.append(
                UserError(
                    f"makes another model than OLMo-2, which has {FIXED[name[6:]]}", key=key, value=value, fix=fix
                )
            )
    kind = args.get("sharded_checkpointer")
    if kind in REFUSED:
        fix = "leave it out for unsharded checkpoints, or torch_legacy"
        found.append(UserError(f"{REFUSED[kind]}", key="training.args.sharded_checkpointer", value=kind, fix=fix))
    strategy = strategy_of(args, device)
    if kind is None and strategy == "fsdp" and device == "cpu" and world > 1:
        problem = "FSDP on several CPU ranks cannot gather an unsharded checkpoint: torch crashes"
        fix = "+training.args.sharded_checkpointer=torch_legacy, or one rank, or DDP"
        found.append(UserError(problem, key="training.args.distributed_strategy", value=strategy, fix=fix))
    if kind == "torch_legacy" and strategy != "fsdp":
        fix = "leave it out, or training.args.distributed_strategy=fsdp"
        found.append(UserError("is a format of FSDP", key="training.args.sharded_checkpointer", value=kind, fix=fix))
    copies = (args.get("fsdp") or {}).get("hybrid_sharding_num_model_replicas")
    if copies is not None and strategy == "fsdp" and (copies < 1 or world % copies):
        key, fix = "training.args.fsdp.hybrid_sharding_num_model_replicas", "a divisor of the ranks, or leave it out"
        found.append(UserError(f"{world} ranks cannot hold so many models alike", key=key, value=copies, fix=fix))
    return found


def check_model(model: dict[str, Any], fields: Fields) -> list[UserError]:
    """A config from scratch against the fields of ModelConfig and against what converts."""
    found: list[UserError] = []
    if model.get("attn_implementation"):
        fix = "null; flash attention is +training.args.model.flash_attention=true"
        value = model["attn_implementation"]
        found.append(UserError("is a setting of transformers", key="model.attn_implementation", value=value, fix=fix))
    config = model.get("config")
    if not config:
        return found
    found += fields.problems(config, "ModelConfig", "model.config")
    missing = [name for name in SIZES if name not in config]
    if missing:
        fix = "give d_model, n_heads, n_layers and mlp_ratio or mlp_hidden_size"
        found.append(UserError(f"lacks {', '.join(missing)}", key="model.config", value=sorted(config), fix=fix))
    for name, value in unlike_olmo2(config).items():
        problem = f"OLMo-2 has {value} here, and other models do not convert to transformers"
        found.append(UserError(problem, key=f"model.config.{name}", value=config[name], fix="leave it out"))
    width, heads = config.get("d_model"), config.get("n_heads")
    if width and heads and width % heads:
        fix = f"{width // heads * heads or heads}, or another n_heads"
        found.append(
            UserError(f"must be a multiple of its {heads} heads", key="model.config.d_model", value=width, fix=fix)
        )
    return found


def check_checkpoint(model: dict[str, Any], world: int, strategy: str) -> list[UserError]:
    """A checkpoint's folder on this machine: of a format that these ranks restore, and of an OLMo-2."""
    name = model.get("checkpoint") or ""
    folder = Path(name)
    if model.get("config") or not name or not any((folder / one).is_file() for one in ("config.yaml", "config.json")):
        return []
    try:
        if format_of(folder) is not None:
            detect(folder, world, strategy == "fsdp")
        unlike = unlike_olmo2(architecture(model))
    except UserError as error:
        return [error]
    except (KeyError, TypeError, ValueError) as error:
        problem = f"its configuration cannot be read ({type(error).__name__}: {error})"
        return [UserError(problem, key="model.checkpoint", value=name)]
    if not unlike:
        return []
    told = ", ".join(f"{field} is not {value}" for field, value in unlike.items())
    problem = f"this is a checkpoint of ai2-olmo, but of no OLMo-2 ({told}), and would not convert to transformers"
    return [UserError(problem, key="model.checkpoint", value=name, fix="a checkpoint of OLMo-2")]


def check_data(model: dict[str, Any], vocab_size: int) -> list[UserError]:
    """The embedding against the tokenizer's ids. A checkpoint that is not on this machine is not judged."""
    scratch = model.get("config")
    try:
        config = scratch or (architecture(model) if Path(str(model["checkpoint"])).is_dir() else {})
    except (UserError, KeyError, OSError, ValueError):
        return []  # what is wrong with the folder is told by `check` and `initial`
    known = config.get("embedding_size") or config.get("vocab_size")
    if known is None or known >= vocab_size:
        return []
    problem = f"the model has {known:,} token ids, the tokenizer {vocab_size:,}"
    if scratch:
        fix = f"at least {vocab_size}, or leave vocab_size and embedding_size out"
        return [UserError(problem, key="model.config.vocab_size", value=known, fix=fix)]
    fix = "name the tokenizer of this checkpoint"
    return [UserError(problem, key="model.tokenizer", value=model.get("tokenizer"), fix=fix)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        yield f"{prefix}{name}", value
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
