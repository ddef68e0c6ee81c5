"""One model under two names: ai2-olmo's (`model.pt`, `ModelConfig`) and transformers' (`Olmo2ForCausalLM`).

    ai2-olmo                                 transformers
    blocks.i.att_proj  (q k v stacked)       layers.i.self_attn.q_proj, k_proj, v_proj
    blocks.i.ff_proj   (up, gate stacked)    layers.i.mlp.up_proj, gate_proj

Everything else is a change of name. Both directions; torch alone, no package of either framework.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch

from pretrain_exp.errors import UserError
from pretrain_exp.framework.identity import WEIGHTS
from pretrain_exp.framework.olmo2.recipe import ARCHITECTURE, FIXED

TOP = {"transformer.wte.weight": "model.embed_tokens.weight", "transformer.ln_f.weight": "model.norm.weight"}
HEAD = ("transformer.ff_out.weight", "lm_head.weight")
BLOCK = {
    "attn_out.weight": "self_attn.o_proj.weight",
    "q_norm.weight": "self_attn.q_norm.weight",
    "k_norm.weight": "self_attn.k_norm.weight",
    "ff_out.weight": "mlp.down_proj.weight",
    "attn_norm.weight": "post_attention_layernorm.weight",
    "ff_norm.weight": "post_feedforward_layernorm.weight",
}
STACKED = {
    "att_proj.weight": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "ff_proj.weight": ("mlp.up_proj.weight", "mlp.gate_proj.weight"),
}
DEFAULTS: dict[str, Any] = {"n_kv_heads": None, "multi_query_attention": None, "mlp_hidden_size": None, "mlp_ratio": 4}
"""Of ai2-olmo's ModelConfig, for fields that a configuration may leave out and that sizes are computed from."""


def unlike_olmo2(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of a ModelConfig by which it is no OLMo-2: name -> what it must be."""
    return {name: value for name, value in FIXED.items() if config.get(name, value) != value}


def kv_heads(config: dict[str, Any]) -> int:
    values = {**DEFAULTS, **config}
    return values["n_kv_heads"] or (1 if values["multi_query_attention"] else values["n_heads"])


def hf_config(config: dict[str, Any]) -> dict[str, Any]:
    """Fields of `Olmo2Config` for a ModelConfig. UserError for an architecture that it cannot say."""
    if unlike := unlike_olmo2(config):
        raise UserError(
            f"no OLMo-2: {', '.join(f'{name} must be {value}' for name, value in unlike.items())}",
            key="model.config",
            value={name: config[name] for name in unlike},
        )
    values = {**DEFAULTS, **ARCHITECTURE, **config}
    hidden = values["mlp_hidden_size"] or values["mlp_ratio"] * values["d_model"]
    return {
        "vocab_size": values.get("embedding_size") or values["vocab_size"],
        "hidden_size": values["d_model"],
        "intermediate_size": hidden // 2,
        "num_hidden_layers": values["n_layers"],
        "num_attention_heads": values["n_heads"],
        "num_key_value_heads": kv_heads(values),
        "max_position_embeddings": values["max_sequence_length"],
        "rms_norm_eps": values["layer_norm_eps"],
        "rope_parameters": {"rope_type": "default", "rope_theta": float(values["rope_theta"])},
        "attention_dropout": values["attention_dropout"],
        "initializer_range": values["init_std"],
        "tie_word_embeddings": values["weight_tying"],
        "bos_token_id": None,
        "eos_token_id": values["eos_token_id"],
        "pad_token_id": values["pad_token_id"],
    }


def olmo_config(hf: dict[str, Any]) -> dict[str, Any]:
    """Fields of a ModelConfig for the config.json of an Olmo2 folder; UserError for another architecture."""
    rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    off = {
        "model_type": hf.get("model_type") != "olmo2",
        "attention_bias": bool(hf.get("attention_bias", False)),
        "hidden_act": hf.get("hidden_act", "silu") != "silu",
        "rope_parameters": rope.get("rope_type", rope.get("type", "default")) != "default",
    }
    if any(off.values()):
        wrong = {name: hf.get(name) for name, is_off in off.items() if is_off}
        raise UserError("ai2-olmo has no such model", key="model.checkpoint", value=wrong, fix="framework=huggingface")
    return {
        **ARCHITECTURE,
        "d_model": hf["hidden_size"],
        "n_heads": hf["num_attention_heads"],
        "n_kv_heads": hf.get("num_key_value_heads") or hf["num_attention_heads"],
        "n_layers": hf["num_hidden_layers"],
        "mlp_hidden_size": 2 * hf["intermediate_size"],
        "vocab_size": hf["vocab_size"],
        "embedding_size": hf["vocab_size"],
        "max_sequence_length": hf["max_position_embeddings"],
        "rope_theta": int(rope.get("rope_theta") or hf.get("rope_theta") or 10_000),
        "layer_norm_eps": hf.get("rms_norm_eps", 1e-5),
        "weight_tying": bool(hf.get("tie_word_embeddings", False)),
        "attention_dropout": hf.get("attention_dropout", 0.0),
        "init_std": hf.get("initializer_range", 0.02),
        "eos_token_id": _first(hf.get("eos_token_id")),
        "pad_token_id": hf.get("pad_token_id")
        if hf.get("pad_token_id") is not None
        else _first(hf.get("eos_token_id")),
    }


def read_hf(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a Hugging Face folder, mapped where they can be; pickled ones where there are no others.

    UserError where there are none.
    """
    from safetensors.torch import load_file

    for pattern in WEIGHTS:
        if files := sorted(folder.glob(pattern)):
            parts = [load_file(file) if file.suffix == ".safetensors" else _unpickled(file) for file in files]
            return {name: tensor for part in parts for name, tensor in part.items()}
    fix = "a checkpoint whose weights are *.safetensors or pytorch_model*.bin"
    raise UserError("no weights of transformers here", key="model.checkpoint", value=str(folder), fix=fix)


def _unpickled(file: Path) -> dict[str, torch.Tensor]:
    """Tensors and nothing else; files of before torch 1.6 cannot be mapped."""
    return dict(torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file)))


def to_hf(weights: dict[str, torch.Tensor], config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a model.pt under the names of transformers. UserError where one is missing."""
    n_heads, head = config["n_heads"], config["d_model"] // config["n_heads"]
    sizes = {"att_proj.weight": [n_heads * head, kv_heads(config) * head, kv_heads(config) * head]}
    try:
        out = {theirs: weights[ours] for ours, theirs in _plain_names(config)}
        for ours, theirs in _stacked_names(config):
            whole = weights[ours]
            kind = ours.split(".", 3)[3]
            parts = sizes.get(kind) or [len(whole) // len(theirs)] * len(theirs)
            out |= dict(zip(theirs, torch.split(whole, parts), strict=True))
    except KeyError as missing:
        raise UserError(f"the checkpoint lacks the weight {missing.args[0]}", key="model.checkpoint") from None
    return out


def from_hf(weights: dict[str, torch.Tensor], config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of an Olmo2 folder under the names of ai2-olmo, float32. UserError where one is missing."""
    try:
        out = {ours: weights[theirs].float() for ours, theirs in _plain_names(config)}
        for ours, theirs in _stacked_names(config):
            out[ours] = torch.cat([weights[name].float() for name in theirs])
    except KeyError as missing:
        raise UserError(f"the checkpoint lacks the weight {missing.args[0]}", key="model.checkpoint") from None
    return out


def _plain_names(config: dict[str, Any]) -> list[tuple[str, str]]:
    """(ours, theirs) of every tensor that is the same in both."""
    names = [*TOP.items(), *([] if config.get("weight_tying") else [HEAD])]
    for i in range(config["n_layers"]):
        names += [(f"transformer.blocks.{i}.{a}", f"model.layers.{i}.{b}") for a, b in BLOCK.items()]
    return names


def _stacked_names(config: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """(ours, theirs) of every tensor that is several of theirs, one above the other."""
    return [
        (f"transformer.blocks.{i}.{a}", [f"model.layers.{i}.{b}" for b in parts])
        for i in range(config["n_layers"])
        for a, parts in STACKED.items()
    ]


def _first(token: Any) -> Any:
    return token[0] if isinstance(token, list) else token
