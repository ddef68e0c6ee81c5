"""What tests of framework `olmo2` share: an official file as small as they need it, sharded states, a conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rig_olmo2 import framework
from rigs import EOS, VOCAB, G

LEGACY = {"distributed_strategy": "fsdp", "sharded_checkpointer": "torch_legacy"}
L = 128  # tokens of a sequence in which three can be repeated 34 times
OFFICIAL = f"""
run_name: OLMo2-like
seed: 6198
model: {{d_model: 32, n_heads: 2, n_layers: 2, mlp_ratio: 8, weight_tying: false, alibi: false, rope: true,
  rope_theta: 500000, flash_attention: true, attention_dropout: 0.0, include_bias: false, block_type: sequential,
  layer_norm_type: rms,
  layer_norm_with_affine: true, layer_norm_eps: 1e-6, bias_for_layer_norm: false, attention_layer_norm: true,
  attention_layer_norm_with_affine: true, norm_after: true, activation_type: swiglu, residual_dropout: 0.0,
  embedding_dropout: 0.0, max_sequence_length: {L}, vocab_size: {VOCAB}, embedding_size: {VOCAB}, eos_token_id: {EOS},
  pad_token_id: {EOS}, init_device: meta, init_fn: normal, init_std: 0.02, init_cutoff_factor: 3}}
softmax_auxiliary_loss: true
auxiliary_loss_multiplier: 1e-5
optimizer: {{name: adamw, learning_rate: 4.0e-12, weight_decay: 0.1, eps: 1e-8, decay_norm_and_bias: true,
  decay_embeddings: false, betas: [0.9, 0.95]}}
scheduler: {{name: cosine_with_warmup, units: tokens, t_warmup: {2 * G * L}, t_max: {9 * G * L + 1},
  alpha_f: 0.1, warmup_min_lr: 0.0}}
tokenizer: {{identifier: tokenizers/allenai_dolma2.json}}
max_duration: 4e12T
global_train_batch_size: {G}
device_train_microbatch_size: 2
precision: fp32
fsdp: {{wrapping_strategy: null, sharding_strategy: SHARD_GRAD_OP, precision: mixed}}
max_grad_norm: 1.0
device_eval_batch_size: ${{device_train_microbatch_size}}
data:
  instance_filter: {{repetition_max_period: 13, repetition_min_period: 1, repetition_max_count: 32}}
  paths: [http://olmo-data.org/a.npy, http://olmo-data.org/b.npy]
"""


def converted(state: Path, folder: Path) -> Any:
    """A state as transformers reads it, to be scored."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(framework(1).to_hf(state, folder / "hf")).eval()
