"""The table's row for framework `huggingface`: a tiny OLMo-2 of transformers."""

from __future__ import annotations

from rigs import EOS, VOCAB, Rig, S

from pretrain_exp.framework.huggingface.framework import HuggingFace


def rig() -> Rig | str:
    """The rig, or why there is none on this machine."""
    config = {
        "model_type": "olmo2",
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": S,
        "eos_token_id": EOS,
    }
    return Rig("huggingface", lambda ranks: HuggingFace(devices=ranks, device="cpu"), {"config": config})
