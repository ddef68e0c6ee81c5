"""The table's row for framework `litgpt`: a tiny Llama of litgpt's own, in its own environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from rigs import VOCAB, Rig, S

from pretrain_exp.framework.litgpt.framework import LitGPT

PYTHON = Path(__file__).parents[2] / ".venv-litgpt" / "bin" / "python"
MARKS = [  # of tests of this framework alone
    pytest.mark.litgpt,
    pytest.mark.skipif(
        not PYTHON.is_file() and not os.environ.get("PRETRAIN_EXP_FRAMEWORKS"), reason="make env-litgpt builds it"
    ),
]
LLAMA: dict[str, Any] = {
    "name": "tiny-llama",
    "block_size": S,
    "vocab_size": VOCAB,
    "padded_vocab_size": VOCAB,
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 32,
    "n_query_groups": 2,
    "intermediate_size": 64,
    "rotary_percentage": 1.0,
    "parallel_residual": False,
    "bias": False,
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
}


def framework(ranks: int) -> LitGPT:
    return LitGPT(python=str(PYTHON), devices=ranks, device="cpu")


def rig() -> Rig | str:
    """The rig, or why there is none on this machine."""
    if not PYTHON.is_file():
        return f"no litgpt here: make env-litgpt builds {PYTHON}"
    return Rig("litgpt", framework, {"config": LLAMA})
