"""What test_olmo3.py asks of one process in OLMo-core's environment, whose import takes long; prints one JSON object.

.venv-olmo3/bin/python inside_olmo3.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from olmo_core.data import InstanceFilterConfig, TokenizerConfig
from olmo_core.nn.attention import AttentionBackendName
from olmo_core.nn.hf import get_hf_config, save_hf_model
from olmo_core.nn.rope import YaRNRoPEScalingConfig
from olmo_core.nn.transformer import TransformerConfig
from olmo_core.optim import Scheduler
from olmo_core.train.train_module import TransformerTrainModuleConfig

from pretrain_exp.framework.huggingface.schedule import Schedule
from pretrain_exp.framework.olmo3.config import merged, scheduler_fields, scratch_config, set_attention
from pretrain_exp.framework.olmo3.hf import load_hf, transformer_config
from pretrain_exp.framework.olmo3.rows import Rows

EOS = 499


class Planted:
    """An overlay that puts given tokens into slot 3, from column 4 on."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens

    def touches(self, slot: int) -> bool:
        return slot == 3

    def apply(self, slot: int, tokens: np.ndarray, read: Any) -> np.ndarray:
        edited = tokens.copy()
        edited[4 : 4 + len(self.tokens)] = self.tokens
        return edited


def finished(planted: list[int], slot: int = 3, mask: bool = False) -> dict[str, Any]:
    """The item of a slot that held range(64) before."""
    rows = Rows.__new__(Rows)
    rows.overlay = Planted(planted)  # type: ignore[assignment]
    rows.tokenizer = TokenizerConfig(vocab_size=512, eos_token_id=EOS, pad_token_id=EOS)
    rows.document_lengths, rows.instance_filter = True, InstanceFilterConfig(repetition_max_count=8)
    item: dict[str, Any] = {"input_ids": torch.arange(64), "metadata": {}}
    if mask:
        item["label_mask"] = torch.zeros(64, dtype=torch.bool)
    done = rows.finish(slot, 7, item)
    return {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in done.items()}


def schedules() -> dict[str, float]:
    """The largest difference between OLMo-core's learning rate and ours over a run, by name."""
    found = {}
    for name in ("cosine", "linear", "wsd", "constant"):
        schedule = {"name": name, "warmup_steps": 5, "total_steps": 60, "decay_steps": 9, "min_lr_ratio": 0.1}
        training = {"optimizer": {"lr": 3e-3}, "schedule": schedule}
        theirs, ours = Scheduler.from_dict(scheduler_fields(training)), Schedule.from_training(training)
        found[name] = max(abs(theirs.get_lr(3e-3, step + 1, 60) - 3e-3 * ours.factor(step)) for step in range(60))
    return found


def both_ways(folder: Path) -> dict[str, float]:
    """Mean difference of the logits of a model that went to Hugging Face and back, by kind of model."""
    sizes = {"d_model": 32, "vocab_size": 128, "n_layers": 4, "n_heads": 4, "hidden_size_multiple_of": 32}
    olmo2 = {**sizes, "factory": "llama_like", "block_name": "reordered_norm", "qk_norm": True, "layer_norm_eps": 1e-6}
    windows = {"pattern": [4, 4, -1], "force_full_attention_on_first_layer": False}
    kinds = {
        "olmo2": olmo2,
        "olmo2, grouped queries": {**olmo2, "n_kv_heads": 2},
        "olmo3": {**olmo2, "sliding_window": windows},
        "olmo3, longer context": {**olmo2, "sliding_window": windows, "yarn": True},
    }
    found = {}
    for number, (kind, fields) in enumerate(kinds.items()):
        yarn = fields.pop("yarn", False)
        config = scratch_config(fields, seed=1)
        if yarn:
            config = config.with_rope_scaling(YaRNRoPEScalingConfig(factor=4, old_context_len=16))
        set_attention(config, AttentionBackendName.torch)
        model = config.build(init_device="cpu")
        model.init_weights(device=torch.device("cpu"))
        out = folder / f"hf{number}"
        save_hf_model(out, model.state_dict(), model)
        (out / "config.json").write_text(
            json.dumps({**json.loads((out / "config.json").read_text()), "max_position_embeddings": 64})
        )
        back = transformer_config(get_hf_config(model))
        set_attention(back, AttentionBackendName.torch)
        again = back.build(init_device="cpu")
        load_hf(str(out), None, again)
        tokens = torch.arange(64)[None] % 128
        with torch.no_grad():
            found[kind] = float((model.eval()(tokens) - again(tokens)).abs().mean())
    return found


def configurations() -> dict[str, Any]:
    """Arguments as OLMo-core's own objects."""
    base = {
        "rank_microbatch_size": 64,
        "max_sequence_length": 32,
        "optim": {"type": "adamw", "lr": 1e-3},
        "scheduler": {"type": "cos_with_warmup", "warmup": 3, "alpha_f": 0.1},
    }
    over = {
        "optim": {"type": "skip_step_adamw", "sigma_factor": 3},
        "scheduler": {"type": "half_cos_with_warmup", "warmup": 9},
    }
    made = TransformerTrainModuleConfig.from_dict(merged(base, over))
    named = scratch_config({"factory": "olmo3_1M", "vocab_size": 128, "attn_backend": "torch"}, seed=5)
    return {
        "optim": type(made.optim).__name__,
        "sigma_factor": made.optim.sigma_factor,
        "scheduler": type(made.scheduler).__name__,
        "seed": named.init_seed,
        "fields": TransformerConfig.from_dict(named.as_config_dict()) == named,
    }


def main(folder: Path) -> None:
    ids = SimpleNamespace(
        documents=finished([EOS, 5, 6, EOS]),
        untouched=finished([EOS], slot=2),
        repeating=finished([9] * 12),
        masked=finished([200, 201], mask=True),
        schedules=schedules(),
        both_ways=both_ways(folder),
        configurations=configurations(),
    )
    print(json.dumps(vars(ids)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
