"""GPU memory before a job starts: said with numbers where nothing fits, and silent where nothing is known."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pretrain_exp.framework import memory
from pretrain_exp.framework.huggingface.framework import HuggingFace
from pretrain_exp.framework.litgpt.framework import LitGPT
from pretrain_exp.framework.memory import check_memory, gpu_memory, hf_parameters
from pretrain_exp.framework.olmo2.framework import Olmo2
from pretrain_exp.framework.olmo3.framework import Olmo3
from pretrain_exp.framework.ranked import RankedFramework

TWO = "0, GPU-aa, 81559\n1, GPU-bb, 24576"


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """smi(answer, status): an nvidia-smi of that answer on PATH; before, there is none."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu_memory.cache_clear()

    def make(answer: str, status: int = 0) -> None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{answer}'\nexit {status}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        gpu_memory.cache_clear()

    yield make
    gpu_memory.cache_clear()


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, [81559, 24576]), ("1", [24576]), ("GPU-aa", [81559]), ("", []), ("1,0", [24576, 81559]), ("7", [])],
)
def test_the_gpus_that_a_job_would_see(
    smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: list[int]
) -> None:
    smi(TWO)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_memory() == tuple(mib << 20 for mib in expected)


@pytest.mark.parametrize("answer", [None, ("No devices were found", 6), ("0, GPU-aa, [N/A]", 0), ("", 0)])
def test_nothing_is_said_without_gpus(smi: Callable[..., None], answer: tuple[str, int] | None) -> None:
    if answer is not None:
        smi(*answer)
    assert gpu_memory() == ()
    assert check_memory(10**15, 1) == []


@pytest.mark.parametrize(
    ("parameters", "shards", "bytes_each", "fits"),
    [
        (None, 1, 16, True),
        (1_600_000_000, 1, 16, True),  # 23.8 GiB
        (1_700_000_000, 1, 16, False),  # 25.3
        (1_700_000_000, 2, 16, True),
        (1_700_000_000, 1, 12, True),
        (7_000_000_000, 4, 16, False),
        (7_000_000_000, 5, 16, True),
    ],
)
def test_what_never_fits_is_said(
    smi: Callable[..., None], parameters: int | None, shards: int, bytes_each: float, fits: bool
) -> None:
    smi(TWO)  # the smaller one decides
    found = check_memory(parameters, shards, bytes_each)
    assert (not found) is fits
    if parameters == 7_000_000_000 and found:
        said = found[0].render()
        assert "7,000,000,000 parameters need 26.1 GiB on each of 4 ranks" in said
        assert "has 24.0 GiB" in said
        assert "at least 5 GPUs" in said


# parameters as their model cards and papers count them
KNOWN = {
    "OLMo-2 1B": (
        {"model_type": "olmo2", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16,
         "intermediate_size": 8192, "vocab_size": 100352, "tie_word_embeddings": False},
        1_484_916_736,
    ),
    "Pythia 70M": (
        {"model_type": "gpt_neox", "hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8,
         "intermediate_size": 2048, "vocab_size": 50304, "tie_word_embeddings": False},
        70_426_624,
    ),
    "StarCoder2 3B": (  # no gate
        {"model_type": "starcoder2", "hidden_size": 3072, "num_hidden_layers": 30, "num_attention_heads": 24,
         "num_key_value_heads": 2, "intermediate_size": 12288, "vocab_size": 49152},
        3_030_371_328,
    ),
    "Llama 3.2 1B": (
        {"model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
         "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128256, "tie_word_embeddings": True},
        1_235_814_400,
    ),
    "Gemma 2B": (  # tied, which its config.json does not say
        {"model_type": "gemma", "hidden_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 8,
         "num_key_value_heads": 1, "head_dim": 256, "intermediate_size": 16384, "vocab_size": 256000},
        2_506_172_416,
    ),
    "Qwen3 30B A3B": (
        {"model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32,
         "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768,
         "num_experts": 128, "num_experts_per_tok": 8, "decoder_sparse_step": 1, "mlp_only_layers": [],
         "vocab_size": 151936, "tie_word_embeddings": False},
        30_532_122_624,
    ),
    "Qwen1.5 MoE A2.7B": (
        {"model_type": "qwen2_moe", "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16,
         "num_key_value_heads": 16, "intermediate_size": 5632, "moe_intermediate_size": 1408,
         "shared_expert_intermediate_size": 5632, "num_experts": 60, "decoder_sparse_step": 1, "vocab_size": 151936,
         "tie_word_embeddings": False},
        14_315_784_192,
    ),
    "Mixtral 8x7B": (
        {"model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 8, "intermediate_size": 14336, "num_local_experts": 8, "vocab_size": 32000,
         "tie_word_embeddings": False},
        46_702_792_704,
    ),
}  # fmt: skip


_MOE, _NUMBER = KNOWN["Qwen3 30B A3B"]
KNOWN["Qwen3 30B A3B, saved by transformers 5"] = (
    {"num_local_experts" if name == "num_experts" else name: value for name, value in _MOE.items()}, _NUMBER,
)  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_the_estimate_is_a_little_too_small(name: str) -> None:
    config, published = KNOWN[name]
    estimate = hf_parameters(config)
    assert estimate is not None
    assert 0.99 * published < estimate <= published


@pytest.mark.parametrize(
    ("name", "kind"), [("Mixtral 8x7B", "deepseek_v3"), ("Llama 3.2 1B", "mamba2"), ("Llama 3.2 1B", "electra")]
)
def test_a_layout_that_is_not_known_is_not_estimated(name: str, kind: str) -> None:
    config, _ = KNOWN[name]
    assert hf_parameters({**config, "model_type": kind}) is None


@pytest.mark.parametrize(
    ("kind", "args", "bytes_each"),
    [
        (Olmo2, {}, 16),
        (Olmo2, {"optimizer": {"name": "lionw"}}, 12),
        (Olmo3, {}, 16),
        (Olmo3, {"train_module": {"optim": {"type": "skip_step_adamw", "dtype": "bfloat16"}}}, 12),
        (LitGPT, {}, 16),
        (LitGPT, {"precision": "bf16-true"}, 8),
        (LitGPT, {"optimizer": {"class_path": "torch.optim.SGD"}}, 8),
        (LitGPT, {"optimizer": {"class_path": "torch.optim.SGD"}, "precision": "bf16-true"}, 4),
        (LitGPT, {"optimizer": "AdamW"}, 16),
    ],
)
def test_a_framework_counts_what_its_optimizer_holds(
    monkeypatch: pytest.MonkeyPatch, kind: type[RankedFramework], args: dict[str, Any], bytes_each: int
) -> None:
    asked: list[float] = []
    monkeypatch.setattr(kind, "check_gpu_memory", lambda self, n, each, shared=True: asked.append(each) or [])
    training = {
        "batch_size": 8, "sequence_length": 64, "micro_batch_size": None, "precision": "bf16", "z_loss": 0.0,
        "schedule": {"name": "constant", "total_steps": 9}, "optimizer": {"lr": 1e-3, "betas": [0.9, 0.95]},
        "document_masking": False, "activation_checkpointing": False, "args": args,
    }  # fmt: skip
    kind(python="/no/such/python").check({"config": None, "checkpoint": None, "parameters": 1}, training)
    assert asked == [bytes_each]


def test_weights_are_counted_where_they_are(tmp_path: Path) -> None:
    for i, shape in enumerate(([3, 4], [5])):
        header = json.dumps(
            {"__metadata__": {}, "w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}
        ).encode()
        (tmp_path / f"{i}.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    assert hf_parameters({}, tmp_path) == 17
    (tmp_path / "0.safetensors").write_bytes(b"short")
    assert hf_parameters({}, tmp_path) is None


def test_a_framework_says_it_before_a_job_starts(smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    smi(TWO)
    monkeypatch.setattr("pretrain_exp.framework.ranked.num_gpus", lambda: 2)
    config = KNOWN["OLMo-2 1B"][0] | {"num_hidden_layers": 64}
    training = {
        "batch_size": 8, "sequence_length": 64, "micro_batch_size": None, "precision": "bf16", "z_loss": 0.0,
        "schedule": {"name": "constant", "total_steps": 9}, "optimizer": {"lr": 1e-3, "betas": [0.9, 0.95]},
    }  # fmt: skip
    model = {"config": config, "checkpoint": None}
    counted = {"config": None, "checkpoint": None, "parameters": 8_000_000_000}  # as its model/ says

    def said(framework: HuggingFace, model: dict[str, Any] = model) -> list[str]:
        return [problem.problem for problem in framework.check(model, training) if "GiB" in problem.problem]

    assert len(said(HuggingFace(device="cuda"))) == 1
    assert "8,000,000,000 parameters" in said(HuggingFace(device="cuda"), counted)[0]
    assert said(HuggingFace(device="cpu")) == [], "on a CPU nothing of it matters"
    assert said(HuggingFace().elsewhere(1, "cuda")) == [], "the other machine's GPUs are not known"
    assert memory.ADAMW_BYTES == 16
