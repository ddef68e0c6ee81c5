"""A start from a Hugging Face folder or hub name: Olmo2 and Olmo3 of transformers as OLMo-core models.

config.json --> TransformerConfig        weights --olmo_core.nn.hf--> state dict, refused unless the logits agree
"""

from __future__ import annotations

from typing import Any

import torch
from olmo_core.nn.attention import SlidingWindowAttentionConfig
from olmo_core.nn.feed_forward import FeedForwardConfig
from olmo_core.nn.hf.convert import convert_state_from_hf
from olmo_core.nn.rope import YaRNRoPEScalingConfig
from olmo_core.nn.transformer import Transformer, TransformerBlockType, TransformerConfig

from pretrain_exp.errors import UserError
from pretrain_exp.framework.worker.probe import TOLERANCE, probe_tokens

KINDS = ("olmo2", "olmo3")


def hf_config(name: str, revision: str | None) -> Any:
    """The transformers configuration. UserError for architectures that OLMo-core has no counterpart of."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(name, revision=revision)
    if config.model_type not in KINDS:
        fix = f"a checkpoint of {' or '.join(KINDS)}, or framework=huggingface"
        problem = f"OLMo-core is not started from {config.model_type} here"
        raise UserError(problem, key="model.checkpoint", value=name, fix=fix)
    return config


def transformer_config(hf: Any) -> TransformerConfig:
    """The OLMo-core architecture that computes what this transformers configuration describes."""
    if hf.attention_bias or getattr(hf, "attention_dropout", 0.0) or hf.hidden_act != "silu":
        raise UserError("biases, dropout and activations of its own have no counterpart", key="model.checkpoint")
    rope, sliding_rope = _rope(hf)
    if sliding_rope not in (None, {"rope_type": "default", "rope_theta": rope["rope_theta"]}):
        raise UserError("sliding windows with a RoPE of their own have no counterpart here", key="model.checkpoint")
    windows = [-1] * hf.num_hidden_layers
    if hf.model_type == "olmo3":
        windows = [hf.sliding_window if kind == "sliding_attention" else -1 for kind in hf.layer_types]
    sliding = None
    if max(windows) > 0:
        sliding = SlidingWindowAttentionConfig(
            pattern=windows, force_full_attention_on_first_layer=False, force_full_attention_on_last_layer=False
        )
    config = TransformerConfig.llama_like(
        d_model=hf.hidden_size,
        vocab_size=hf.vocab_size,
        n_layers=hf.num_hidden_layers,
        n_heads=hf.num_attention_heads,
        n_kv_heads=hf.num_key_value_heads,
        block_name=TransformerBlockType.reordered_norm,
        qk_norm=True,
        rope_theta=rope["rope_theta"],
        layer_norm_eps=hf.rms_norm_eps,
        feed_forward=FeedForwardConfig(hidden_size=hf.intermediate_size, bias=False),
        sliding_window=sliding,
        tie_word_embeddings=hf.tie_word_embeddings,
    )
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return config
    if kind != "yarn":
        raise UserError(f"RoPE scaling of kind {kind} has no counterpart here", key="model.checkpoint")
    names = {"factor": "factor", "beta_fast": "beta_fast", "beta_slow": "beta_slow"}
    scaling = {ours: rope[theirs] for ours, theirs in names.items() if rope.get(theirs) is not None}
    old = rope["original_max_position_embeddings"]
    return config.with_rope_scaling(YaRNRoPEScalingConfig(**scaling, old_context_len=old))


def load_hf(name: str, revision: str | None, model: Transformer) -> None:
    """Fills a model on the CPU. UserError where it then does not say what transformers says."""
    from transformers import AutoModelForCausalLM

    hf = AutoModelForCausalLM.from_pretrained(name, revision=revision, dtype=torch.float32).eval()
    model.load_state_dict(convert_state_from_hf(hf.config, hf.state_dict(), model_type=hf.config.model_type))
    tokens = probe_tokens(hf.config.vocab_size, hf.config.max_position_embeddings)
    model.eval()
    with torch.no_grad():
        off = float((model(tokens) - hf(input_ids=tokens, use_cache=False).logits).abs().mean())
    if not off <= TOLERANCE["fp32"]:
        problem = f"the OLMo-core model made from it is off by {off:.3g} in its logits"
        raise UserError(problem, key="model.checkpoint", value=name)


def _rope(hf: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """RoPE of full attention and, where versions of transformers keep it apart, of sliding windows."""
    given = hf.rope_parameters
    return (given["full_attention"], given["sliding_attention"]) if "full_attention" in given else (given, None)
