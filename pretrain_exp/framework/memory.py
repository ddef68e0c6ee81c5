"""Whether a model can be trained on the GPUs of this machine at all, asked before anything starts and without torch.

parameters x bytes a parameter / ranks that share them  >  memory of a GPU  -->  a problem, with the way out

Activations come on top and depend on too much to be guessed, so what passes here may still be too large; what does not
pass never fits. On a machine without GPUs, and for jobs that run elsewhere, nothing is said.
"""

from __future__ import annotations

import json
import os
import subprocess
from functools import lru_cache
from math import ceil, prod
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError

ADAMW_BYTES = 16  # a parameter: weight, gradient and two moments in fp32
_GIB = 1 << 30
GATED = (  # an MLP of three matrices
    "llama", "mistral", "qwen2", "qwen3", "olmo", "olmo2", "olmo3",
    "gemma", "gemma2", "gemma3_text", "phi3", "granite", "cohere", "cohere2", "stablelm", "smollm3", "glm",
    "glm4", "helium", "exaone4", "ernie4_5", "seed_oss", "bitnet", "diffllama",
)  # fmt: skip
PLAIN = ("gpt_neox", "opt", "falcon", "phi", "starcoder2", "arcee", "apertus", "persimmon")  # of two
EXPERTS = {  # model_type -> the fields that hold the width of an expert, and that of those for all tokens
    "mixtral": ("intermediate_size", ""),
    "olmoe": ("intermediate_size", ""),
    "qwen2_moe": ("moe_intermediate_size", "shared_expert_intermediate_size"),
    "qwen3_moe": ("moe_intermediate_size", ""),
}


def check_memory(parameters: int | None, shards: int, bytes_per_parameter: float = ADAMW_BYTES) -> list[UserError]:
    """A problem where weights, gradients and optimizer alone are more than a GPU has. parameters: None if unknown.

    shards: the ranks among which they are divided; 1 where each holds all.
    """
    gpus = gpu_memory()
    if parameters is None or not gpus:
        return []
    have, whole = min(gpus), parameters * bytes_per_parameter
    if whole / shards <= have:
        return []
    problem = (
        f"weights, gradients and optimizer of {parameters:,} parameters need {whole / shards / _GIB:,.1f} GiB on each "
        f"of {shards} ranks, before any activation; a GPU of this machine has {have / _GIB:,.1f} GiB"
    )
    fix = f"share them among at least {ceil(whole / have)} GPUs (executor=slurm: of many machines), or a smaller model"
    return [UserError(problem, key="framework.devices", value=shards, fix=fix)]


@lru_cache(maxsize=1)
def gpu_memory() -> tuple[int, ...]:
    """The memory of each GPU that a job of this process would see, in bytes; () where there is none."""
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    rows = [line.split(", ") for line in done.stdout.splitlines()] if done.returncode == 0 else []
    found = {name: int(row[2]) << 20 for row in rows if len(row) == 3 and row[2].isdigit() for name in row[:2]}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [row[0] for row in rows] if visible is None else [name.strip() for name in visible.split(",")]
    return tuple(found[name] for name in names if name in found)


def hf_parameters(config: dict[str, Any], folder: Path | None = None) -> int | None:
    """How many parameters a model of transformers has: counted in its weights, else estimated from its config.

    The estimate leaves out biases, norms and routers, and a head of its own where the config does not say that there is
    one: so it is too small. None where the config does not say enough, or is of a kind not known here.
    """
    if folder is not None and (counted := _in_weights(folder)):
        return counted
    width, layers = config.get("hidden_size"), config.get("num_hidden_layers")
    if not (width and layers):
        return None
    heads = config.get("num_attention_heads") or 1
    head = config.get("head_dim") or width // heads
    shared = config.get("num_key_value_heads") or (1 if config.get("multi_query") else heads)
    attention = 2 * width * head * (heads + shared)
    mlps = _mlps(config, width, layers)
    embeddings = (config.get("vocab_size") or 0) * width * (1 if config.get("tie_word_embeddings", True) else 2)
    return None if mlps is None else embeddings + layers * attention + mlps


def _mlps(config: dict[str, Any], width: int, layers: int) -> int | None:
    """Of all layers together; None for a kind that is not known here."""
    kind, dense = config.get("model_type"), config.get("intermediate_size") or 4 * width
    if not any("expert" in name and value for name, value in config.items()):
        matrices = 3 if kind in GATED else 2 if kind in PLAIN else None
        return None if matrices is None else layers * matrices * width * dense
    if kind not in EXPERTS:
        return None
    number = config.get("num_experts") or config.get("num_local_experts") or 0  # one name or the other, by version
    size, shared = (config.get(name) or 0 for name in EXPERTS[kind])
    every, plain = config.get("decoder_sparse_step") or 1, config.get("mlp_only_layers") or ()
    sparse = sum((i + 1) % every == 0 and i not in plain for i in range(layers))
    return 3 * width * (sparse * (number * size + shared) + (layers - sparse) * dense)


def _in_weights(folder: Path) -> int:
    """The numbers in a folder's *.safetensors, from their headers: eight bytes of length, then JSON (its format)."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            try:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            except (ValueError, MemoryError, OverflowError):
                return 0  # damaged: who opens it will say so
        total += sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return total
