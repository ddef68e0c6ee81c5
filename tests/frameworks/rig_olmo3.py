"""The table's row for framework `olmo3`: a tiny OLMo-3 of OLMo-core, sliding windows and all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rigs import VOCAB, Rig, S

from pretrain_exp.framework.olmo3.framework import Olmo3

PYTHON = Path(__file__).parents[2] / ".venv-olmo3" / "bin" / "python"
CONFIG: dict[str, Any] = {
    "factory": "llama_like",
    "d_model": 32,
    "vocab_size": VOCAB,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_size_multiple_of": 32,
    "block_name": "reordered_norm",
    "qk_norm": True,
    "layer_norm_eps": 1e-6,
    "sliding_window": {"pattern": [8, -1], "force_full_attention_on_first_layer": False},
}

CHUNK = {"dataset": {"max_target_sequence_length": 4 * S}}  # rows that the shuffle keeps together
FRAMEWORK = Olmo3(python=str(PYTHON), devices=1, device="cpu")


def rig() -> Rig | str:
    """The rig, or why there is none on this machine."""
    if not PYTHON.is_file():
        return "there is no .venv-olmo3: make env-olmo3 builds it"
    return Rig("olmo3", lambda ranks: Olmo3(python=str(PYTHON), devices=ranks, device="cpu"), {"config": CONFIG})
