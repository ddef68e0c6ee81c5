"""What `olmo3` takes and refuses before anything starts: names of fields, models of conf/, official scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from rig_olmo3 import CHUNK, CONFIG, FRAMEWORK
from rigs import TRAINING, S

from pretrain_exp.config import ModelConfig
from pretrain_exp.errors import UserError
from pretrain_exp.framework.olmo3.official import read_script
from pretrain_exp.paths import conf_dir

pytestmark = pytest.mark.olmo3


@pytest.fixture(scope="session")
def bench(benches: Any) -> Bench:
    return benches("olmo3")


# names and refusals


def problems(args: dict[str, Any], **training: Any) -> list[UserError]:
    return FRAMEWORK.check({"config": CONFIG}, {**TRAINING, **training, "args": args})


@pytest.mark.parametrize(
    ("args", "key", "says"),
    [
        ({"trainmodule": {}}, "trainmodule", "did you mean train_module?"),
        ({"train_module": {"ac_confg": {}}}, "train_module.ac_confg", "did you mean ac_config?"),
        ({"train_module": {"dp_config": {"name": "hdsp"}}}, "train_module.dp_config.name", "one of fsdp, hsdp, ddp"),
        ({"train_module": {"dp_config": {"nam": "ddp"}}}, "train_module.dp_config.nam", "did you mean name?"),
        ({"train_module": {"optim": {"type": "adamw", "sigma_factor": 3}}}, "train_module.optim.sigma_factor", "AdamW"),
        ({"train_module": {"optim": {"type": "lion"}}}, "train_module.optim.type", "adamw, skip_step_adamw"),
        ({"train_module": {"optim": {"lr": 1.0}}}, "train_module.optim.lr", "set training.optimizer.lr"),
        ({"train_module": {"scheduler": {"type": "wsdd"}}}, "train_module.scheduler.type", "did you mean wsd?"),
        ({"train_module": {"tp_config": {"degree": 2}}}, "train_module.tp_config", "tensor parallelism"),
        ({"train_module": {"z_loss_multiplier": 1e-5}}, "train_module.z_loss_multiplier", "set training.z_loss"),
        ({"train_module": {"dp_config": {"param_dtype": "float16"}}}, "dp_config.param_dtype", "precision"),
        ({"data_loader": {"type": "vsl"}}, "data_loader.type", "one of numpy, composable"),
        ({"data_loader": {"type": "composable", "shuffle_strategy": "a"}}, "data_loader.shuffle_strategy", "plans"),
        ({"dataset": {"type": "packed"}}, "dataset.type", "packed, padded and variable lengths"),
        ({"dataset": {"max_target_sequence_length": S + 1}}, "dataset.max_target_sequence_length", "multiple of"),
        ({"trainer": {"save_folder": "x"}}, "trainer.save_folder", "decided by the job"),
        ({"trainer": {"callbacks": {"a": {"_CLASS_": "olmo_core.train.callbacks.No"}}}}, "a._CLASS_", "no such"),
        ({"model": {"block": {"sequence_mixr": {}}}}, "model.block.sequence_mixr", "did you mean sequence_mixer?"),
    ],
)  # fmt: skip
def test_arguments_that_olmo_core_does_not_take_are_refused(
    bench: Bench, args: dict[str, Any], key: str, says: str
) -> None:
    found = problems(args)
    assert [error for error in found if (error.key or "").endswith(key)], [error.render() for error in found]
    assert says in "\n".join(error.render() for error in found)


def test_arguments_of_official_runs_are_taken(bench: Bench) -> None:
    args = {
        "train_module": {
            "optim": {"type": "skip_step_adamw", "group_overrides": [{"params": ["a"], "opts": {"weight_decay": 0.0}}]},
            "scheduler": {"type": "half_cos_with_warmup", "warmup": 3},
            "dp_config": {"name": "hsdp", "shard_degree": 1, "wrapping_strategy": "blocks"},
            "ac_config": {"mode": "selected_modules", "modules": ["blocks.*.feed_forward"]},
            "float8_config": {"enabled": False},
        },
        "data_loader": {"type": "composable", "num_threads": 2},
        "trainer": {"callbacks": {"memory": {"_CLASS_": "olmo_core.train.callbacks.GPUMemoryMonitorCallback"}}},
        "dataset": {"instance_filter_config": {"repetition_max_count": 32}, **CHUNK["dataset"]},
    }
    assert problems(args) == []


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({**CONFIG, "n_layer": 2}, "did you mean n_layers?"),
        ({**CONFIG, "factory": "olmo3_8B"}, "olmo3_7B"),
        ({**CONFIG, "attn_backend": "torch"}, "model.attn_implementation"),
        ({**CONFIG, "block_name": "reorderd_norm"}, "reordered_norm"),
        ({**CONFIG, "sliding_window": {"patern": [8]}}, "did you mean pattern?"),
        ({"factory": "olmo3_7B", "vocab_size": 512, "layer_norm_eps": 1e-5}, "olmo3_7B has no such field"),
        ({"d_model": 32, "n_heads": 2}, "takes those of OLMo-core"),
    ],
)
def test_a_config_that_olmo_core_does_not_take_is_refused(bench: Bench, config: dict[str, Any], says: str) -> None:
    assert says in "\n".join(error.render() for error in FRAMEWORK.check({"config": config}, TRAINING))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"micro_batch_size": 3}, "training.micro_batch_size"),
        ({"document_masking": True}, "training.document_masking"),
        ({"precision": "bf16", "args": {"train_module": {"dp_config": None}}}, "training.args.train_module.dp_config"),
        ({"schedule": {**TRAINING["schedule"], "name": "wsd", "decay_steps": 0}}, "training.schedule.decay_steps"),
    ],
)
def test_training_that_cannot_run_is_refused(bench: Bench, changes: dict[str, Any], key: str) -> None:
    found = FRAMEWORK.check({"config": CONFIG}, {**TRAINING, **changes})
    assert [error.key for error in found] == [key]


def test_a_vocabulary_is_rounded_up_as_olmo_core_does() -> None:
    assert FRAMEWORK.complete_config({"factory": "olmo3_7B"}, 100278, 1, S)["vocab_size"] == 100352


@pytest.mark.parametrize("name", ["olmo3_tiny", "olmo3_7b", "olmo3_32b", "olmo2_32b"])
def test_the_models_of_conf_are_what_olmo_core_takes(bench: Bench, name: str) -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base=None):
        given = ["framework=olmo3", f"model={name}", "framework.device=cpu", "training.schedule.total_steps=800000"]
        composed = OmegaConf.to_container(
            compose("config", [*given, "model.schedule.total_steps=800000"]), resolve=True
        )
    assert isinstance(composed, dict)
    model = ModelConfig.model_validate(composed["model"]).model_dump()
    training = {**composed["training"]}
    training["schedule"]["decay_steps"] = 1
    found = FRAMEWORK.check(model, training)
    assert [error.render() for error in found] == []
    assert model["name"] == name


# official scripts


SCRIPT = """
import argparse
from olmo_core.nn.transformer import TransformerConfig

LENGTH = 64
BATCH = 64 * 8  # tokens
LR = 3e-4


def build_config(opts: argparse.Namespace, overrides):
    sequence_length = opts.sequence_length or LENGTH
    tokenizer = TokenizerConfig.dolma2()
    model = TransformerConfig.olmo3_1M(
        vocab_size=tokenizer.padded_vocab_size(), attn_backend=AttentionBackendName.flash_2
    )
    dataset = NumpyFSLDatasetConfig.from_data_mix(
        DataMix.OLMo_mix_0625_official, sequence_length=sequence_length,
        max_target_sequence_length=max(128, sequence_length), mix_base_dir=opts.data_root,
    )
    loader = NumpyDataLoaderConfig(global_batch_size=BATCH, seed=34521, num_workers=8)
    module = TransformerTrainModuleConfig(
        rank_microbatch_size=2 * 64,
        max_sequence_length=sequence_length,
        optim=SkipStepAdamWConfig(
            lr=LR, weight_decay=0.1, betas=(0.9, 0.95),
            group_overrides=[OptimGroupOverride(params=["embeddings.weight"], opts=dict(weight_decay=0.0))],
        ),
        scheduler=CosWithWarmup(warmup_steps=20),
        compile_model=True,
        dp_config=TransformerDataParallelConfig(
            name=DataParallelType.hsdp, param_dtype=DType.bfloat16, num_replicas=get_world_size() // 8
        ),
        ac_config=TransformerActivationCheckpointingConfig(TransformerActivationCheckpointingMode.full),
        z_loss_multiplier=1e-5,
        max_grad_norm=1.0,
    )
    if get_world_size() > 8:
        module.rank_microbatch_size //= 2
    trainer = TrainerConfig(
        save_folder=opts.save_folder, max_duration=Duration.tokens(int(1e6))
    ).with_callback("config_saver", ConfigSaverCallback())
    return ExperimentConfig(
        model=model, dataset=dataset, data_loader=loader, train_module=module, trainer=trainer
    ).merge(overrides)


raise SystemExit("this script was run")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "OLMo-3-tiny.py"
    path.write_text(SCRIPT)
    return path


def test_an_official_script_drives(bench: Bench, script: Path) -> None:
    fields = FRAMEWORK.official(script)
    training = fields.pop("training")
    assert fields == {
        "name": "olmo_3_tiny",
        "config": {"factory": "olmo3_1M", "vocab_size": 100352},
        "tokenizer": "allenai/dolma2-tokenizer",
        "sequence_length": 64,
        "batch_size": 8,
        "optimizer": {"lr": 3e-4, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1},
        "schedule": {
            "name": "cosine", "warmup_steps": 20, "total_steps": 1954, "decay_steps": None, "min_lr_ratio": 0.1
        },
        "data_seed": 34521,
        "data_mix": "OLMo-mix-0625-official",
    }  # fmt: skip
    assert ModelConfig.model_validate(fields).batch_size == 8
    args = training.pop("args")
    assert training == {
        "precision": "bf16", "max_grad_norm": 1.0, "z_loss": 1e-5, "compile": True, "micro_batch_size": 2,
        "document_masking": False,
    }  # fmt: skip
    assert args["dataset"] == {"max_target_sequence_length": 128}
    assert args["train_module"]["dp_config"] == {"name": "hsdp"}
    assert args["train_module"]["ac_config"] == {"mode": "full"}
    overrides = [{"params": ["embeddings.weight"], "opts": {"weight_decay": 0.0}}]
    assert args["train_module"]["optim"] == {"type": "skip_step_adamw", "group_overrides": overrides}
    told = {**TRAINING, **training, "args": args, "sequence_length": 64, "batch_size": 8}
    assert [error.render() for error in FRAMEWORK.check(fields, told)] == []


def test_what_a_script_says_beyond_is_told(script: Path) -> None:
    text = SCRIPT.replace("seed=34521", "seed=34521, shuffle=True").replace(
        "model=model, ", "model=model, init_seed=3, "
    )
    text = text.replace("=opts.data_root", "=opts.data_root, label_mask_paths=['a'], tokenizer=tokenizer")
    script.write_text(text.replace("max_grad_norm=1.0", "max_grad_norm=1.0, autocast_precision=DType.bfloat16"))
    assert read_script(script).left == (
        "if get_world_size() > 8:",
        "model.attn_backend = flash_2: see model.attn_implementation",
        "train_module.dp_config.num_replicas = get_world_size() // 8",
        "init_seed = 3",
        "dataset.label_mask_paths = ['a']",
        "data_loader.num_workers = 8",
        "train_module.autocast_precision = 'bfloat16'",
    )


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("lr=LR", "lr=get_lr_from_checkpoint(opts.checkpoint)", "optim.lr is get_lr_from_checkpoint(opts.checkpoint)"),
        ("seed=34521", "seed=opts.seed", "data_loader.seed is None"),
        ("NumpyFSLDatasetConfig.", "NumpyPackedFSLDatasetConfig.", "packed"),
        ("SkipStepAdamWConfig", "LionConfig", "LionConfig"),
        ("    if get_world_size() > 8:\n    ", "    model.n_layers = 3\n", "model.n_layers = 3"),
        ("BATCH = 64 * 8", "BATCH = 64 * 8 + 1", "multiple of 64"),
        ("seed=34521", "seed=34521, shuffle=False", "data_loader.shuffle = False: plans refer to the shuffled order"),
        ("=opts.data_root", "=opts.data_root, source_permutation_seed=7", "the files in their given order"),
        ("max_grad_norm=1.0", "max_grad_norm=1.0, label_ignore_index=0", "which agree on -100"),
        ("return ExperimentConfig(", "return Other(", "ExperimentConfig"),
        ("def build_config", "def build config", "cannot be read"),
    ],
)  # fmt: skip
def test_a_script_that_would_have_to_be_run_is_refused(script: Path, before: str, after: str, says: str) -> None:
    assert before in SCRIPT
    script.write_text(SCRIPT.replace(before, after))
    with pytest.raises(UserError, match=r"model\.official") as caught:
        FRAMEWORK.official(script)
    assert says in caught.value.render()
