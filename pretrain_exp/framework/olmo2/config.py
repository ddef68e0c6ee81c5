"""A job of ours as ai2-olmo's TrainConfig.

recipe of OLMo-2 <- what the job says <- training.args        later ones win; checks.py keeps args to what is theirs
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain_exp.errors import UserError
from pretrain_exp.framework.identity import WEIGHTS
from pretrain_exp.framework.olmo2.recipe import TRAINING
from pretrain_exp.framework.olmo2.weights import olmo_config
from pretrain_exp.framework.worker.job import Job

if TYPE_CHECKING:
    from olmo.config import TrainConfig

SCHEDULERS = {"cosine": "cosine_with_warmup", "linear": "linear_with_warmup", "constant": "constant_with_warmup"}
PRECISIONS = {"fp32": "fp32", "bf16": "amp_bf16"}


def architecture(model: dict[str, Any]) -> dict[str, Any]:
    """The ModelConfig of a model section: from scratch, of a native or of a Hugging Face checkpoint."""
    if model.get("config"):
        return dict(model["config"])
    folder = checkpoint_folder(model)
    if (folder / "config.yaml").is_file():
        import yaml

        config = yaml.safe_load((folder / "config.yaml").read_text())["model"]
        return {name: value for name, value in config.items() if value is not None}
    return olmo_config(json.loads((folder / "config.json").read_text()))


def checkpoint_folder(model: dict[str, Any]) -> Path:
    """Where the checkpoint of a model section lies; one of the hub is fetched, or found in its cache.

    Pickled weights are fetched where there are no others. UserError where there are none at all.
    """
    name = str(model["checkpoint"])
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    for weights in WEIGHTS:
        found = snapshot_download(name, revision=model.get("revision"), allow_patterns=["config.json", weights])
        if any(Path(found).glob(weights)):
            return Path(found)
    fix = "a repository whose weights are *.safetensors or pytorch_model*.bin"
    raise UserError("this repository holds no weights of transformers", key="model.checkpoint", value=name, fix=fix)


def settings(job: Job, world: int, device: str) -> dict[str, Any]:
    """The fields of TrainConfig that differ from its own defaults, nested."""
    training = job.training
    schedule, batch = training["schedule"], training["batch_size"]
    init_device = "meta" if strategy_of(training.get("args") or {}, device) == "fsdp" else device
    model = {**architecture(job.model), "max_sequence_length": training["sequence_length"], "init_device": init_device}
    says: dict[str, Any] = {
        "run_name": "pretrain-exp",
        "seed": job.init_seed % (1 << 32),
        "model": {**model, "precision": PRECISIONS[training["precision"]], "flash_attention": False},
        "optimizer": {
            "learning_rate": training["optimizer"]["lr"],
            **{name: training["optimizer"][name] for name in ("betas", "eps", "weight_decay")},
        },
        "scheduler": {
            "name": SCHEDULERS[schedule["name"]],
            "t_warmup": schedule["warmup_steps"] or 0,
            "t_max": schedule["total_steps"],
            "alpha_f": schedule["min_lr_ratio"] or 0.0,
        },
        "data": {
            "num_workers": training["loader_workers"],
            "prefetch_factor": 8 if training["loader_workers"] else None,
            "pin_memory": device == "cuda",
            "generate_doc_lengths": training["document_masking"],
        },
        "save_folder": str(job.live),
        "save_interval": None,
        "save_num_checkpoints_to_keep": 0,
        "max_duration": schedule["total_steps"],
        "stop_at": job.saves[-1].step,
        "global_train_batch_size": batch,
        "device_train_batch_size": batch // world,
        "device_train_microbatch_size": training["micro_batch_size"] or batch // world,
        "device_train_grad_accum": batch // world // (training["micro_batch_size"] or batch // world),
        "max_grad_norm": training["max_grad_norm"],
        "precision": PRECISIONS[training["precision"]],
        "softmax_auxiliary_loss": training["z_loss"] > 0,
        "auxiliary_loss_multiplier": training["z_loss"],
        "activation_checkpointing": "whole_layer" if training["activation_checkpointing"] else None,
        "compile": {} if training["compile"] else None,
        "console_log_interval": schedule["total_steps"] + 1,
        "save_data_indices": False,
        "distributed_strategy": strategy_of(training.get("args") or {}, device),
        "fused_loss": False,
    }
    return merged(merged(TRAINING, says), training.get("args") or {})


def train_config(job: Job, world: int, device: str) -> TrainConfig:
    """The TrainConfig of a job. UserError for a value that ai2-olmo does not take."""
    from olmo.config import TrainConfig
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        config: Any = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(TrainConfig), settings(job, world, device))
        )
    except OmegaConfBaseException as error:
        problem = str(error).splitlines()[0]
        raise UserError(f"ai2-olmo: {problem}", key="training.args", value=getattr(error, "full_key", None)) from None
    return config


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with what `over` says, mapping by mapping."""
    out = dict(base)
    for name, value in over.items():
        both = isinstance(value, Mapping) and isinstance(out.get(name), Mapping)
        out[name] = merged(out[name], value) if both else value
    return out


def strategy_of(args: Mapping[str, Any], device: str) -> str:
    """How ranks share the model: fsdp or ddp. args: training.args."""
    return args.get("distributed_strategy") or ("fsdp" if device == "cuda" else "ddp")
