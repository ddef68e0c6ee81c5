"""The architectures that litgpt and transformers share: which fields of the one are which fields of the other.

A family fixes the fields of litgpt.Config that its transformers class has no choice about; a Config with anything else
than the defaults beyond them belongs to no family, and is refused by name. What is claimed here is held by the probe of
every conversion. Standard library only: both sides read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pretrain_exp.errors import UserError

SIZES = {  # litgpt.Config -> transformers
    "padded_vocab_size": "vocab_size",
    "n_embd": "hidden_size",
    "intermediate_size": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "block_size": "max_position_embeddings",
}
FREE = {*SIZES, "name", "hf_config", "vocab_size", "padding_multiple", "norm_eps", "rope_base", "head_size"}
LLAMA3 = {"factor", "low_freq_factor", "high_freq_factor"}  # of litgpt's rope_adjustments, beside the length
LLAMA: dict[str, Any] = {
    "norm_class_name": "RMSNorm",
    "mlp_class_name": "LLaMAMLP",
    "bias": False,
    "parallel_residual": False,
    "rotary_percentage": 1.0,
}


@dataclass(frozen=True, eq=False)
class Family:
    """model_type: of transformers. fixed: fields of litgpt.Config; demands: fields of transformers.

    reader, writer: litgpt's functions that rename the weights, in convert_hf_checkpoint and convert_lit_checkpoint.
    """

    model_type: str
    reader: str
    writer: str
    fixed: Mapping[str, Any]
    demands: Mapping[str, Any]
    free: frozenset[str] = frozenset({"n_query_groups"})
    own_head_size: bool = False  # heads * head_size may differ from the width
    writer_calls: tuple[str, str] | None = None  # a part of litgpt's names, and what the writer takes it for


FAMILIES = {
    family.model_type: family
    for family in (
        Family(
            "gpt_neox",
            "copy_weights_gpt_neox",
            "copy_weights_gpt_neox",
            {},
            {"hidden_act": "gelu", "attention_bias": True},
            frozenset({"rotary_percentage", "parallel_residual"}),
        ),
        Family(
            "llama",
            "copy_weights_hf_llama",
            "copy_weights_llama",
            LLAMA,
            {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
            frozenset({"n_query_groups", "rope_adjustments"}),
            own_head_size=True,
        ),
        Family(
            "qwen2",
            "copy_weights_qwen_2_5",
            "copy_weights_qwen_2_5",
            {**LLAMA, "attn_bias": True},
            {"hidden_act": "silu", "use_sliding_window": False},
        ),
        Family(
            "qwen3",
            "copy_weights_qwen_3",
            "copy_weights_qwen_3",
            {**LLAMA, "norm_qk": True},
            {"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False},
            own_head_size=True,
        ),
        Family(
            "olmo2",
            "copy_weights_olmo2",
            "copy_weights_olmo2",
            {
                **LLAMA,
                "norm_qk": True,
                "norm_qk_type": "olmo2",
                "norm_1": False,
                "norm_2": False,
                "post_attention_norm": True,
                "post_mlp_norm": True,
            },
            {"hidden_act": "silu", "attention_bias": False},
            writer_calls=(".post_attention_norm.", ".norm_2."),  # of litgpt 0.5.13, whose reader has it right
        ),
    )
}


def family_of(config: Any) -> Family:
    """The family of a litgpt.Config. UserError, which names it and what stands in the way, where there is none."""
    reasons = [(family, _differences(family, config)) for family in FAMILIES.values()]
    nearest, found = min(reasons, key=lambda reason: len(reason[1]))
    if not found:
        return nearest
    raise UserError(
        f"litgpt's {config.name or 'model'} has no counterpart in transformers that is known here: "
        f"{nearest.model_type} would need {', '.join(found)}",
        key="model.config",
        value=config.name,
        fix=f"families that convert both ways: {', '.join(FAMILIES)}",
    )


def _differences(family: Family, config: Any) -> list[str]:
    found = []
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in family.fixed:
            wanted = family.fixed[field.name]
        elif field.name == "n_query_groups" and field.name not in family.free:
            wanted = config.n_head
        elif field.name in FREE or field.name in family.free:
            continue
        else:
            wanted = field.default
        if value != wanted:
            found.append(f"{field.name}={wanted}")
    if not family.own_head_size and config.head_size * config.n_head != config.n_embd:
        found.append(f"head_size={config.n_embd // config.n_head}")
    if "Gemma" in config.name or (family.model_type == "gpt_neox" and "OLMo" in config.name):
        found.append("another name")  # by which litgpt gives its norms another form
    if config.rope_adjustments and set(config.rope_adjustments) != {*LLAMA3, "original_max_seq_len"}:
        found.append("rope_adjustments of Llama 3, or none")
    return found


def to_transformers(family: Family, config: Any) -> dict[str, Any]:
    """The fields of transformers' configuration class for a litgpt.Config of this family."""
    found: dict[str, Any] = {name: getattr(config, own) for own, name in SIZES.items()} | dict(family.demands)
    if family.model_type == "gpt_neox":
        return found | {
            "layer_norm_eps": config.norm_eps,
            "use_parallel_residual": config.parallel_residual,
            "rotary_pct": config.rotary_percentage,
            "rotary_emb_base": config.rope_base,
        }
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(config.rope_base)}
    if config.rope_adjustments:
        rope |= {"rope_type": "llama3", **{name: config.rope_adjustments[name] for name in sorted(LLAMA3)}}
        rope["original_max_position_embeddings"] = config.rope_adjustments["original_max_seq_len"]
    found |= {"num_key_value_heads": config.n_query_groups, "rms_norm_eps": config.norm_eps, "rope_parameters": rope}
    return found | ({"head_dim": config.head_size} if family.own_head_size else {})


def from_transformers(values: Mapping[str, Any], name: str) -> tuple[Family, dict[str, Any]]:
    """The family and the fields of litgpt.Config for a transformers configuration, complete and as it stands on disk.

    UserError where litgpt has no such architecture, or where this one uses what the family does not.
    """
    family = FAMILIES.get(values.get("model_type", ""))
    if family is None:
        fix = f"architectures that litgpt trains here: {', '.join(FAMILIES)}"
        raise UserError("no architecture of litgpt", key="model.checkpoint", value=values.get("model_type"), fix=fix)
    for field, wanted in family.demands.items():
        if values.get(field, wanted) != wanted:
            problem = f"litgpt's {family.model_type} has {field}={wanted} only"
            raise UserError(problem, key="model.checkpoint", value=values[field])
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    found: dict[str, Any] = {own: values[other] for own, other in SIZES.items()} | dict(family.fixed)
    base = rope.get("rope_theta", values.get("rope_theta", values.get("rotary_emb_base", 10000)))
    found |= {"name": name, "vocab_size": found["padded_vocab_size"], "rope_base": int(base)}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "llama3" and "rope_adjustments" in family.free:
        found["rope_adjustments"] = {key: rope[key] for key in sorted(LLAMA3)}
        found["rope_adjustments"]["original_max_seq_len"] = rope["original_max_position_embeddings"]
    elif kind != "default":
        raise UserError("rotary embeddings that litgpt does not have", key="model.checkpoint", value=rope)
    if family.model_type == "gpt_neox":
        share = values.get("rotary_pct", rope.get("partial_rotary_factor", 0.25))
        return family, found | {
            "norm_eps": values["layer_norm_eps"],
            "parallel_residual": values["use_parallel_residual"],
            "rotary_percentage": share,
        }
    found |= {"norm_eps": values["rms_norm_eps"], "n_query_groups": values["num_key_value_heads"]}
    return family, found | ({"head_size": values["head_dim"]} if family.own_head_size else {})
