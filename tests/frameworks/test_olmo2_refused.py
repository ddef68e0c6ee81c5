"""What framework `olmo2` refuses before anything starts: formats, fields, files; and the models of conf/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from olmo2_shared import LEGACY, OFFICIAL
from rig_olmo2 import MARKS, PYTHON, SIZES, framework
from rigs import TRAINING, VOCAB

from pretrain_exp.errors import UserError
from pretrain_exp.framework.olmo2.formats import FIX, REFUSED, detect, format_of
from pretrain_exp.framework.olmo2.framework import Olmo2
from pretrain_exp.framework.olmo2.official import left_out, read_official

pytestmark = MARKS


# Checkpoints


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["model.pt", "optim.pt", "train.pt"], "unsharded"),
        (["rank0.pt", "rank1.pt"], "torch_legacy"),
        (["model_and_optim/x", "train/rank0.pt"], "torch_new"),
        (["metadata.yaml", "model/rank0.pt", "optim/rank0.pt"], "local"),
        (["model/.metadata", "optim/.metadata", "train/rank0.pt"], "olmo_core"),
    ],
)
def test_a_format_is_known_by_its_files(tmp_path: Path, files: list[str], kind: str) -> None:
    for name in ("config.yaml", *files):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert format_of(tmp_path) == kind
    if kind in REFUSED:
        with pytest.raises(UserError, match=f"of format {kind}: ") as refused:
            detect(tmp_path, 2, True)
        assert refused.value.fix == FIX
    else:
        assert detect(tmp_path, 2, True) == kind


def test_a_checkpoint_that_is_not_whole(tmp_path: Path) -> None:
    for name in ("config.yaml", "model.pt", "train.pt"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"lacks optim\.pt"):
        Olmo2().initial({"checkpoint": str(tmp_path)})


# Configurations


MODEL = {"config": {**SIZES, "vocab_size": VOCAB}, "checkpoint": None}


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an unknown field": ({}, {"args": {"fsdp": {"sharding": 1}}}, "sharding: .*\n.*did you mean sharding_strategy"),
    "a field of ours": ({}, {"args": {"optimizer": {"learning_rate": 1}}}, "has another place: training.optimizer.lr"),
    "a field of nobody's": ({}, {"args": {"save_interval": 5}}, "save_interval: cannot be chosen: states are saved"),
    "an unknown choice": ({}, {"args": {"distributed_strategy": "ddq"}}, "knows no such DistributedStrategy"),
    "another model by args": ({}, {"args": {"model": {"norm_after": False}}}, "makes another model than OLMo-2"),
    "a format that does not restore": ({}, {"args": {"sharded_checkpointer": "olmo_core"}}, "does not go on exactly"),
    "shards of what is whole": ({}, {"args": {"sharded_checkpointer": "torch_legacy"}}, "is a format of FSDP"),
    "a schedule": ({}, {"schedule": {**TRAINING["schedule"], "name": "wsd"}}, "ai2-olmo has no such schedule"),
    "bf16 on a CPU": ({}, {"precision": "bf16"}, "bf16 on a GPU only"),
    "document masking without flash": ({}, {"document_masking": True}, "flash-attn alone"),
    "a batch": ({}, {"batch_size": 5}, "5 sequences do not divide among 2 ranks"),
    "a field of the model": ({"config": {**SIZES, "hidden_size": 3}}, {}, "ModelConfig has no such field"),
    "a size that is missing": ({"config": {"d_model": 8}}, {}, "lacks n_heads, n_layers"),
    "heads": ({"config": {**SIZES, "n_heads": 5}}, {}, "d_model: must be a multiple of its 5 heads"),
    "another architecture": ({"config": {**SIZES, "layer_norm_type": "default"}}, {}, "other models do not convert"),
    "attention of transformers": ({"attn_implementation": "sdpa"}, {}, "is a setting of transformers"),
    "copies that the ranks do not make": (
        {}, {"args": {**LEGACY, "fsdp": {"hybrid_sharding_num_model_replicas": 3}}}, "2 ranks cannot hold so many"
    ),
    "whole states of CPU shards": ({}, {"args": {"distributed_strategy": "fsdp"}}, "cannot gather an unsharded"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_refused(name: str) -> None:
    model, training, message = WRONG[name]
    found = framework(2).check({**MODEL, **model}, {**TRAINING, **training})
    assert len(found) == 1, found
    assert found[0].fix
    with pytest.raises(UserError, match=message):
        raise found[0]


def test_nothing_is_wrong_with_what_is_right() -> None:
    args = {"fsdp": {"sharding_strategy": "HYBRID_SHARD"}, "fused_loss": True, "model": {"flash_attention": True}}
    there = Olmo2(python=str(PYTHON)).elsewhere(8, "cuda")
    training = {**TRAINING, "args": args, "precision": "bf16", "document_masking": True, "batch_size": 16}
    assert there.check(MODEL, training) == []
    assert framework(2).check(MODEL, TRAINING) == []


# Official files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "cannot be read"),
        ("model: {}", "lacks optimizer, scheduler, global_train_batch_size"),
        (OFFICIAL.replace("norm_after: true", "norm_after: false"), "another model: norm_after is False, not True"),
        (OFFICIAL.replace("cosine_with_warmup", "inverse_sqrt_with_warmup"), "has scheduler inverse_sqrt_with_warmup"),
        (OFFICIAL.replace("\nprecision: fp32", "\nprecision: amp_fp16"), "computes in amp_fp16"),
    ],
)
def test_files_that_do_not_drive(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        framework(1).official(tmp_path / "run.yaml")


def test_what_differs_from_the_recipe_goes_to_args(tmp_path: Path) -> None:
    text = OFFICIAL.replace("decay_embeddings: false", "decay_embeddings: true")
    text += "  label_mask_paths: [a.npy]\n  drop_last: true\nearly_stopping_factor: 2.0\nwandb: {name: a}\n"
    (tmp_path / "run.yaml").write_text(text.replace("repetition_max_count: 32", "repetition_max_count: 64"))
    said = read_official(tmp_path / "run.yaml")["training"]
    assert said["args"] == {
        "optimizer": {"decay_embeddings": True},
        "data": {
            "instance_filter": {"repetition_max_period": 13, "repetition_min_period": 1, "repetition_max_count": 64}
        },
        "fsdp": {"wrapping_strategy": None, "sharding_strategy": "SHARD_GRAD_OP"},
    }
    assert said["z_loss"] == 1e-4
    told = left_out(tmp_path / "run.yaml")
    assert "flash_attention" in told[0]
    assert "auxiliary_loss_multiplier 1e-05, which ai2-olmo never reads" in told[1]
    assert [text.partition(":")[0] for text in told[2:4]] == ["data.label_mask_paths", "early_stopping_factor"]
    assert told[4].endswith(": device_eval_batch_size, device_train_microbatch_size, wandb.name")


# conf/


STAGE_1 = {"olmo2_1b": 512, "olmo2_7b": 1024, "olmo2_13b": 2048}


@pytest.mark.parametrize("name", [*STAGE_1, "olmo2_1b_stage2", "olmo2_7b_stage2", "olmo2_13b_stage2", "olmo2_tiny"])
def test_models_compose_and_fit_the_framework(name: str) -> None:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from pretrain_exp.paths import conf_dir

    GlobalHydra.instance().clear()
    mix = ["model.data_mix=mix.yaml"] if "stage2" in name else []
    with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
        composed = compose("config", overrides=["framework=olmo2", f"model={name}", *mix])
    config: Any = OmegaConf.to_container(composed, resolve=True)
    model, training = config["model"], config["training"]
    training["schedule"]["total_steps"] = training["schedule"]["total_steps"] or 600
    tiny = name == "olmo2_tiny"
    there = Olmo2(python=str(PYTHON)).elsewhere(1 if tiny else 8, "cpu" if tiny else "cuda")
    assert there.check(model, training) == []
    assert config["data"]["_target_"].endswith("OfflineEnglish" if tiny else "OfficialMix")
    if name in STAGE_1:
        tokens = model["batch_size"] * model["sequence_length"]
        assert model["batch_size"] == STAGE_1[name]
        assert training["schedule"]["warmup_steps"] * tokens == 8_388_608_000
        assert 0 <= training["schedule"]["total_steps"] * tokens - 5e12 < tokens


def test_the_framework_brings_its_model(command: Any) -> None:
    status, said = command("--cfg", "job", "framework=olmo2")
    assert status == 0
    assert "name: olmo2_1b" in said
    assert "mix: ${model.data_mix}" in said
