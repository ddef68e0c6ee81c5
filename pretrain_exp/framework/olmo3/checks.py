"""What can be said about a model and training section before OLMo-core is imported, which takes many seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.framework.checks import check_numbers
from pretrain_exp.framework.olmo3.fields import Source
from pretrain_exp.framework.origin import read_config

SECTIONS = {  # of training.args -> the class whose fields it sets
    "model": ("olmo_core.nn.transformer", "TransformerConfig"),
    "dataset": ("olmo_core.data", "NumpyFSLDatasetConfig"),
    "train_module": ("olmo_core.train.train_module", "TransformerTrainModuleConfig"),
    "trainer": ("olmo_core.train", "TrainerConfig"),
}
ELSEWHERE = {  # fields that the configuration sets by a name of its own
    "train_module.rank_microbatch_size": "training.micro_batch_size",
    "train_module.max_sequence_length": "training.sequence_length",
    "train_module.max_grad_norm": "training.max_grad_norm",
    "train_module.z_loss_multiplier": "training.z_loss",
    "train_module.compile_model": "training.compile",
    "train_module.dp_config.param_dtype": "training.precision",
    "train_module.optim.lr": "training.optimizer.lr",
    "train_module.optim.betas": "training.optimizer.betas",
    "train_module.optim.eps": "training.optimizer.eps",
    "train_module.optim.weight_decay": "training.optimizer.weight_decay",
    "trainer.max_duration": "training.schedule.total_steps",
    "trainer.hard_stop": "training.num_steps",
    "trainer.device": "framework.device",
    "data_loader.global_batch_size": "training.batch_size",
    "data_loader.num_workers": "training.loader_workers",
    "data_loader.seed": "model.data_seed",
    "data_loader.generate_doc_lengths": "training.document_masking",
    "data_loader.instance_filter_config": "training.args.dataset.instance_filter_config",
    "data_loader.tokenizer": "training.args.dataset.tokenizer",
    "dataset.sequence_length": "training.sequence_length",
    "dataset.generate_doc_lengths": "training.document_masking",
    "dataset.paths": "data.paths",
    "dataset.mix": "model.data_mix",
    "dataset.dtype": "data.dtype",
    "model.vocab_size": "model.config.vocab_size",
}
OURS = {  # fields that would take the run out of the store's hands
    "train_module.optim.fixed_fields",
    "trainer.save_folder",
    "trainer.work_dir",
    "trainer.load_path",
    "trainer.load_strategy",
    "trainer.load_optim_state",
    "trainer.load_trainer_state",
    "trainer.save_overwrite",
    "trainer.no_checkpoints",
    "trainer.checkpoints_to_eval",
    "trainer.steps_to_skip",
    "data_loader.work_dir",
    "data_loader.ignore_fingerprint_mismatch",
    "dataset.work_dir",
    "dataset.mix_base_dir",
    "dataset.expand_glob",
    "dataset.metadata",
    "dataset.include_instance_metadata",
    "dataset.ignore_fingerprint_mismatch",
}
REFUSED = {  # what this framework cannot do with OLMo-core, and why
    "train_module.pp_config": "pipeline parallelism does not keep a model whole for conversion",
    "train_module.tp_config": "tensor parallelism is not supported here; shard with dp_config",
    "train_module.cp_config": "context parallelism is not supported here; shard with dp_config",
    "train_module.ep_config": "expert parallelism is not supported here",
    "train_module.label_ignore_index": "losses are compared between frameworks, which agree on -100",
    "data_loader.shuffle": "plans refer to the shuffled order of official runs",
    "data_loader.shuffle_strategy": "plans refer to the order of NumpyFSLDataLoader, which is inter_source",
    "data_loader.sources_per_epoch": "plans refer to epochs of all files",
    "data_loader.display_source_visualization": "nothing is drawn in a worker",
    "dataset.type": "rows are those of NumpyFSLDataset: packed, padded and variable lengths are not planned for",
    "dataset.source_mixture_config": "mixtures are made by `data`, so that plans know what is read",
    "dataset.source_permutation_seed": "plans refer to the files in their given order",
}
OPTIMIZERS = ("adamw", "skip_step_adamw")
LOADERS = {  # by training.args.data_loader.type
    "numpy": ("olmo_core.data.data_loader", "NumpyDataLoaderConfig"),
    "composable": ("olmo_core.data.composable.data_loader", "ComposableDataLoaderConfig"),
}
SCHEDULES = ("cosine", "linear", "wsd", "constant")
FLASH = ("flash_2", "flash_3", "flash_4")


def check_model(model: Mapping[str, Any], source: Source) -> list[UserError]:
    """A config from scratch against what OLMo-core's TransformerConfig takes."""
    config = model.get("config")
    if not config:
        return []
    cls = source.find(*SECTIONS["model"])
    assert cls is not None
    given = {name: value for name, value in config.items() if name != "factory"}
    found = []
    for name in ("attn_backend", "use_flash"):
        if name in given:
            fix = "model.attn_implementation"
            found.append(UserError("is set elsewhere", key=f"model.config.{name}", value=given.pop(name), fix=fix))
    if "factory" not in config:
        return found + source.problems(given, cls, "model.config")
    name = config["factory"]
    taken = source.factory(cls, name) if isinstance(name, str) else None
    if taken is None:
        near = get_close_matches(str(name), source.factories(cls), 3)
        fix = f"near names: {', '.join(near)}" if near else "one of TransformerConfig's, such as olmo3_7B or llama_like"
        return [UserError("OLMo-core has no such model", key="model.config.factory", value=name, fix=fix)]
    return found + source.unknown(given, taken, "model.config", name)


def check_arguments(args: Mapping[str, Any], source: Source) -> list[UserError]:
    """training.args: sections and fields of OLMo-core's ExperimentConfig, less what is set or refused here."""
    found: list[UserError] = []
    for section, values in args.items():
        key = f"training.args.{section}"
        known = (*SECTIONS, "data_loader")
        if section not in known or not isinstance(values, Mapping):
            near = get_close_matches(section, known, 1)
            fix = f"did you mean {near[0]}?" if near else f"sections, each with fields: {', '.join(known)}"
            found.append(UserError("OLMo-core has no such section", key=key, value=values, fix=fix))
            continue
        found += _kinds(section, values)
        refused = dict(_refused(section, values))
        found += refused.values()
        cls = source.find(*(SECTIONS.get(section) or LOADERS.get(values.get("type", "numpy"), LOADERS["numpy"])))
        assert cls is not None
        fields = {name: value for name, value in values.items() if (section, name) != ("data_loader", "type")}
        found += [error for error in source.problems(fields, cls, key) if error.key not in refused]
        for name, callback in (values.get("callbacks") or {}).items() if section == "trainer" else ():
            if not isinstance(callback, Mapping) or "_CLASS_" not in callback:
                fix = "_CLASS_: olmo_core.train.callbacks.GPUMemoryMonitorCallback, and its fields"
                found.append(UserError("names no class", key=f"{key}.callbacks.{name}", value=callback, fix=fix))
    return found


def _kinds(section: str, values: Mapping[str, Any]) -> Iterator[UserError]:
    """Kinds that this framework knows to drive."""
    key = f"training.args.{section}"
    for part, known, below in (
        (values.get("optim") if section == "train_module" else None, OPTIMIZERS, "optim."),
        (values if section == "data_loader" else None, tuple(LOADERS), ""),
    ):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind is not None and kind not in known:
            fix = f"one of {', '.join(known)}"
            yield UserError("is not driven here", key=f"{key}.{below}type", value=kind, fix=fix)


def _refused(section: str, values: Mapping[str, Any], below: str = "") -> Iterator[tuple[str, UserError]]:
    """The fields that are set elsewhere, ours, or beyond this framework."""
    for name, value in values.items():
        path = f"{section}.{below}{name}"
        key = f"training.args.{path}"
        if path in ELSEWHERE:
            yield key, UserError("has a key of its own", key=key, value=value, fix=f"set {ELSEWHERE[path]}")
        elif path in OURS:
            yield key, UserError("is decided by the job", key=key, value=value, fix="leave it out")
        elif path in REFUSED and value is not None:
            yield key, UserError(REFUSED[path], key=key, value=value, fix="leave it out")
        elif isinstance(value, Mapping) and name in ("optim", "dp_config"):
            yield from _refused(section, value, f"{name}.")


def check_training(training: dict[str, Any], world: int) -> list[UserError]:
    """Numbers that do not fit each other."""
    found = check_numbers(training, world, SCHEDULES, "OLMo-core")

    def wrong(problem: str, key: str, value: object, fix: str | None = None) -> None:
        found.append(UserError(problem, key=f"training.{key}", value=value, fix=fix))

    args = training.get("args") or {}
    dp = (args.get("train_module") or {}).get("dp_config", {})
    if dp is None and (world > 1 or training["precision"] == "bf16"):
        problem = "without it, ranks would train apart and nothing would be cast to bf16"
        wrong(problem, "args.train_module.dp_config", None, "{name: fsdp}, {name: hsdp} or {name: ddp}")
    target, length = max_target_sequence_length(training), training["sequence_length"]
    if target is not None and (not isinstance(target, int) or target < length or target % length):
        wrong(f"must be a multiple of {length}", "args.dataset.max_target_sequence_length", target)
    schedule = training["schedule"]
    if schedule["name"] == "wsd" and (schedule.get("min_lr_ratio") or 0.0) == 1:
        wrong("must be below 1", "schedule.min_lr_ratio", schedule["min_lr_ratio"], "or schedule.name=constant")
    return found


def check_attention(
    model: Mapping[str, Any], training: Mapping[str, Any], device: str, has_flash: bool, source: Source
) -> list[UserError]:
    """Whether the attention that is asked for can run, and keep documents apart where that is asked for."""
    name = model.get("attn_implementation")
    key = "model.attn_implementation"
    cls = source.find("olmo_core.nn.attention.backend", "AttentionBackendName")
    known = (source.values(cls) if cls else None) or []
    if name is not None and name not in known:
        fix = f"null, or one of {', '.join(known)}"
        return [UserError("OLMo-core knows no such attention", key=key, value=name, fix=fix)]
    flash = name in FLASH or (name is None and has_flash and device == "cuda")
    if name in FLASH and device == "cpu":
        return [UserError("flash attention needs a GPU", key=key, value=name, fix="null, or torch")]
    if name == "flash_2" and not has_flash:
        fix = "install flash-attn in the worker's environment, or model.attn_implementation=torch"
        return [UserError("the worker's environment has no flash-attn", key=key, value=name, fix=fix)]
    if training["document_masking"] and not flash:
        fix = "a GPU and flash-attn, or training.document_masking=false"
        problem = "OLMo-core keeps documents apart by flash attention alone"
        return [UserError(problem, key="training.document_masking", value=True, fix=fix)]
    return []


def check_vocabulary(model: Mapping[str, Any], vocab_size: int) -> list[UserError]:
    """The tokenizer's ids against the model's, where its config is at hand."""
    known = _vocab_size(model)
    if known is None or known >= vocab_size:
        return []
    problem = f"the model has {known:,} token ids, the tokenizer {vocab_size:,}"
    if model.get("config"):
        fix = f"at least {vocab_size}, or leave it out"
        return [UserError(problem, key="model.config.vocab_size", value=known, fix=fix)]
    fix = "name the tokenizer of this checkpoint"
    return [UserError(problem, key="model.tokenizer", value=model.get("tokenizer"), fix=fix)]


def is_ddp(training: Mapping[str, Any]) -> bool:
    """Whether every rank holds the whole model."""
    asked = ((training.get("args") or {}).get("train_module") or {}).get("dp_config")
    return isinstance(asked, Mapping) and asked.get("name") == "ddp"


def moment_bytes(training: Mapping[str, Any]) -> int:
    """Of one number of the optimizer's state, whose type OLMo-core's optim.dtype chooses."""
    optim = ((training.get("args") or {}).get("train_module") or {}).get("optim") or {}
    return 4 if optim.get("dtype") in (None, "float32") else 2


def max_target_sequence_length(training: Mapping[str, Any]) -> int | None:
    """OLMo-core's dataset.max_target_sequence_length: sequences of one such span stay together in the shuffle."""
    return ((training.get("args") or {}).get("dataset") or {}).get("max_target_sequence_length")


def _vocab_size(model: Mapping[str, Any]) -> int | None:
    if model.get("config"):
        return model["config"].get("vocab_size")
    path = Path(model.get("checkpoint") or "") / "config.json"
    if not path.is_file():
        return None
    config = read_config(path)
    return (config.get("model") or config).get("vocab_size")
