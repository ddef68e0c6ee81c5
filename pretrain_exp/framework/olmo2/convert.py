"""From a state to a Hugging Face folder (config, float32 weights, tokenizer), if it says what the trained model said.

It needs torch and transformers, not ai2-olmo: config.yaml and model.pt of the state are all it reads.
As a program, `convert STATE OUT`, it does it in an environment of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.framework.olmo2.weights import hf_config, to_hf
from pretrain_exp.framework.worker.conversion import no_weights, run_conversion, whole_folder


def convert(state: Path, out: Path) -> Path:
    """Writes `out` in one rename. UserError, and no folder, where the state has no weights or its probe disagrees."""
    from transformers.utils.logging import disable_progress_bar

    from pretrain_exp.framework.worker.probe import check_folder

    disable_progress_bar()
    with whole_folder(out, state / "checkpoint" / "hf") as folder:
        load(state / "checkpoint").save_pretrained(folder)
        check_folder(folder, state / "probe.json")
    return out


def load(checkpoint: Path) -> Any:
    """The Olmo2ForCausalLM of a native checkpoint, float32 on the CPU. UserError where there are no whole weights."""
    import torch
    import yaml
    from transformers import Olmo2Config, Olmo2ForCausalLM

    if not (checkpoint / "model.pt").is_file():
        raise no_weights(checkpoint.parent)
    config = yaml.safe_load((checkpoint / "config.yaml").read_text())["model"]
    config = {name: value for name, value in config.items() if value is not None}
    weights = torch.load(checkpoint / "model.pt", map_location="cpu", weights_only=True, mmap=True)
    hf = Olmo2Config(**hf_config(config))
    hf.architectures = ["Olmo2ForCausalLM"]
    with torch.device("meta"):
        model = Olmo2ForCausalLM(hf)
    named = {name: tensor.float().contiguous() for name, tensor in to_hf(weights, config).items()}
    found = model.load_state_dict(named, strict=False, assign=True)
    model.tie_weights()
    lacking = [name for name in found.missing_keys if not (hf.tie_word_embeddings and name == "lm_head.weight")]
    if lacking or found.unexpected_keys:
        raise UserError(f"the weights do not fit the model: {lacking + found.unexpected_keys}", value=str(checkpoint))
    model.model.rotary_emb = type(model.model.rotary_emb)(hf)  # its buffer is computed, no checkpoint holds it
    return model


if __name__ == "__main__":
    run_conversion(convert)
