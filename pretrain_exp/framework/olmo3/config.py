"""From a job to OLMo-core's own configuration objects.

    job.model     --> TransformerConfig: factory or plain fields, a checkpoint's config.json, or a Hugging Face config
    job.training  --> TransformerTrainModuleConfig, TrainerConfig
    training.args --> laid over both by section: model, dataset, data_loader, train_module, trainer (see checks.py)

The names are those of OLMo-core's ExperimentConfig, so what an official script sets stands in the same place here.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olmo_core.config import Config
from olmo_core.data import TokenizerConfig
from olmo_core.nn.attention import AttentionBackendName, AttentionConfig
from olmo_core.nn.transformer import TransformerConfig
from olmo_core.train import TrainerConfig
from olmo_core.train.train_module import TransformerTrainModuleConfig

from pretrain_exp.errors import UserError
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.ranks import Ranks


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`, key by key; a section that names another class or type replaces the one below it."""
    out = dict(base)
    for name, value in over.items():
        below: Any = out.get(name)
        same = isinstance(value, Mapping) and isinstance(below, Mapping)
        if same and all(value.get(mark, below.get(mark)) == below.get(mark) for mark in ("type", "_CLASS_")):
            out[name] = merged(below, value)
        else:
            out[name] = value
    return out


def arguments(job: Job, section: str) -> dict[str, Any]:
    """This section of training.args."""
    return job.training.get("args", {}).get(section) or {}


def is_native(folder: str | Path | None) -> bool:
    """Whether the folder is a checkpoint as OLMo-core's trainer writes it."""
    return folder is not None and (Path(folder) / "model_and_optim" / ".metadata").is_file()


def model_config(job: Job, device_type: str) -> TransformerConfig:
    """The architecture, with training.args.model and the attention that this device takes."""
    model = job.model
    if model.get("config"):
        config = scratch_config(model["config"], job.init_seed)
    elif is_native(model["checkpoint"]):
        config = saved_config(Path(model["checkpoint"]))
    else:
        from pretrain_exp.framework.olmo3.hf import hf_config, transformer_config

        config = transformer_config(hf_config(model["checkpoint"], model.get("revision")))
    config = TransformerConfig.from_dict(merged(config.as_config_dict(), arguments(job, "model")))
    set_attention(config, attention_backend(model.get("attn_implementation"), device_type))
    return config


def scratch_config(fields: Mapping[str, Any], seed: int) -> TransformerConfig:
    """From the name of one of OLMo-core's class methods and what it takes, or from plain fields."""
    fields = {"init_seed": seed, **fields}
    name = fields.pop("factory", None)
    if name is None:
        return TransformerConfig.from_dict(fields)
    hints = _hints(name)
    return getattr(TransformerConfig, name)(**{key: _typed(value, hints.get(key)) for key, value in fields.items()})


def saved_config(folder: Path) -> TransformerConfig:
    """The model of a checkpoint's config.json. UserError where there is none."""
    path = folder / "config.json"
    if not path.is_file():
        fix = "fetch config.json with the other files of the checkpoint"
        raise UserError("the checkpoint has no config.json", key="model.checkpoint", value=str(folder), fix=fix)
    fields = dict(json.loads(path.read_text())["model"])
    for name in ("compile", "dp_config", "tp_config", "float8_config"):  # of old versions
        fields.pop(name, None)
    return TransformerConfig.from_dict(fields)


def attention_backend(name: str | None, device_type: str) -> AttentionBackendName:
    """What is asked for; by default flash attention where there is one, else torch's."""
    if name is not None:
        return AttentionBackendName(name)
    if device_type == "cuda":
        from olmo_core.nn.attention.flash_attn_api import has_flash_attn_2

        if has_flash_attn_2():
            return AttentionBackendName.flash_2
    return AttentionBackendName.torch


def set_attention(config: TransformerConfig, backend: AttentionBackendName) -> None:
    """Sets the backend of every attention, in place."""

    def set_one(part: Config) -> None:
        if isinstance(part, AttentionConfig):
            part.backend, part.use_flash = backend, None

    config.apply(set_one)


def tokenizer_config(job: Job, vocab_size: int) -> TokenizerConfig:
    """What datasets and collators want to know of the tokenizer; padding never happens, rows being whole."""
    given = {"vocab_size": vocab_size, "eos_token_id": job.eos_token_id, "pad_token_id": job.eos_token_id}
    return TokenizerConfig.from_dict({**given, **(arguments(job, "dataset").get("tokenizer") or {})})


def train_module_config(job: Job, ranks: Ranks) -> TransformerTrainModuleConfig:
    """Optimizer, schedule and strategy."""
    training, args = job.training, arguments(job, "train_module")
    length = job.phases.sequence_length(job.start_step)
    rows = training["micro_batch_size"] or job.phases.batch_size(job.start_step) // ranks.world
    values: dict[str, Any] = {
        "rank_microbatch_size": rows * length,
        "max_sequence_length": length,
        "optim": {"type": "adamw"},
        "scheduler": scheduler_fields(training),
        "max_grad_norm": training["max_grad_norm"],
        "z_loss_multiplier": training["z_loss"] or None,
        "compile_model": training["compile"],
        "ac_config": {"mode": "full"} if training["activation_checkpointing"] else None,
    }
    values = merged(values, {name: value for name, value in args.items() if name != "dp_config"})
    values["optim"] |= {name: training["optimizer"][name] for name in ("lr", "betas", "eps", "weight_decay")}
    values["optim"]["fixed_fields"] = ["initial_lr", "betas", "eps", "weight_decay"]  # the job's, never a checkpoint's
    values["dp_config"] = data_parallel(training["precision"], args, ranks)
    return TransformerTrainModuleConfig.from_dict({name: value for name, value in values.items() if value is not None})


def data_parallel(precision: str, args: Mapping[str, Any], ranks: Ranks) -> dict[str, Any] | None:
    """FSDP2 wherever something is to shard or to cast, unless training.args say something else; None on one rank."""
    bf16 = precision == "bf16"
    if "dp_config" in args:
        asked = args["dp_config"]
    else:
        asked = {} if bf16 or ranks.world > 1 or ranks.device.type == "cuda" else None
    if asked is None:
        return None
    return {"name": "fsdp", "param_dtype": "bfloat16" if bf16 else None, **asked}


def scheduler_fields(training: Mapping[str, Any]) -> dict[str, Any]:
    """The schedule of the whole run, by OLMo-core's names. Both count the update that is being made, from 1."""
    schedule = training["schedule"]
    peak, ratio = training["optimizer"]["lr"], schedule.get("min_lr_ratio") or 0.0
    warmup, total = schedule.get("warmup_steps") or 0, schedule["total_steps"]
    by_name: dict[str, dict[str, Any]] = {
        "cosine": {"type": "cos_with_warmup", "alpha_f": ratio, "t_max": total},
        "linear": {"type": "linear_with_warmup", "alpha_f": ratio, "t_max": total},
        "wsd": {"type": "wsd", "decay": schedule["decay_steps"], "decay_fraction": None, "decay_min_lr": peak * ratio},
        "constant": {"type": "constant_with_warmup"},
    }
    return {**by_name[schedule["name"]], "warmup": warmup}


def trainer_config(job: Job, folder: Path) -> TrainerConfig:
    """The trainer of one segment: max_duration is the whole run's, hard_stop this segment's end.

    It neither loads nor saves by itself: checkpoint.py does, with the trainer's own checkpointer.
    """
    values: dict[str, Any] = {
        "metrics_collect_interval": job.training["log_every"],
        **arguments(job, "trainer"),
        "save_folder": str(folder),
        "work_dir": str(folder),
        "no_checkpoints": True,
        "load_strategy": "never",
        "max_duration": {"value": job.training["schedule"]["total_steps"], "unit": "steps"},
        "hard_stop": {"value": job.saves[-1].step, "unit": "steps"},
    }
    return TrainerConfig.from_dict(values)


def config_of(job: Job, model: TransformerConfig) -> dict[str, Any]:
    """What config.json of a checkpoint holds: the same sections as an official run's, those that tools read."""
    tokenizer = tokenizer_config(job, model.vocab_size)
    dataset = {"tokenizer": tokenizer.as_config_dict(), "sequence_length": job.phases.sequence_length(job.start_step)}
    return {"model": model.as_config_dict(), "dataset": dataset}


def _hints(factory: str) -> dict[str, Any]:
    """What the class methods' arguments are, by name: theirs and those they hand **kwargs to."""
    hints: dict[str, Any] = {}
    for name in ("llama_like", "llama_like_moe", "ngpt_like", "gemma3_like", "qwen3_5_like", factory):
        if hasattr(TransformerConfig, name):
            hints |= typing.get_type_hints(getattr(TransformerConfig, name))
    return {**typing.get_type_hints(TransformerConfig), **hints}


def _typed(value: Any, hint: Any) -> Any:
    """A plain value as the class or enumeration that an argument wants."""
    if not isinstance(value, Mapping | str):
        return value
    for one in (hint, *typing.get_args(hint)):
        if isinstance(value, Mapping) and isinstance(one, type) and issubclass(one, Config):
            config: Any = one
            return config.from_dict(dict(value))
        if isinstance(value, str) and isinstance(one, type) and issubclass(one, str) and one is not str:
            return one(value)
    return value
