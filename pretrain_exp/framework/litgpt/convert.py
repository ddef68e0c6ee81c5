"""From a state to a Hugging Face folder (config, float32 weights, tokenizer), if it says what the trained model said.

litgpt's own functions rename the weights; config.json is built from litgpt's Config (families.py).
As a program, `convert STATE OUT`, it does it in an environment of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pretrain_exp.framework.litgpt.families import Family, family_of, to_transformers
from pretrain_exp.framework.worker.conversion import no_weights, run_conversion, whole_folder


def convert(state: Path, out: Path) -> Path:
    """Writes `out` in one rename. UserError, and no folder, where the state has no weights or its probe disagrees."""
    import torch
    from litgpt import Config
    from safetensors.torch import save_file
    from transformers.utils.logging import disable_progress_bar

    from pretrain_exp.framework.litgpt.initial import WEIGHTS, is_tied
    from pretrain_exp.framework.litgpt.weights import to_hf
    from pretrain_exp.framework.worker.probe import check_folder

    disable_progress_bar()
    checkpoint = state / "checkpoint"
    if not (checkpoint / WEIGHTS).is_file():
        raise no_weights(state)
    config, tied = Config.from_file(checkpoint / "model_config.yaml"), is_tied(checkpoint / WEIGHTS)
    family = family_of(config)
    saved = torch.load(checkpoint / WEIGHTS, map_location="cpu", mmap=True, weights_only=True)
    with whole_folder(out, checkpoint) as folder:
        save_file(to_hf(family, config, saved["model"], tied), folder / "model.safetensors", {"format": "pt"})
        eos = json.loads((state / "job.json").read_text())["eos_token_id"]
        _write_config(folder, family, to_transformers(family, config), tied, eos)
        check_folder(folder, state / "probe.json")
    return out


def _write_config(folder: Path, family: Family, fields: dict[str, Any], tied: bool, eos_token_id: int) -> None:
    """config.json, under the names of transformers 4 too where they say the same."""
    from transformers import AutoConfig

    special = {"bos_token_id": None, "eos_token_id": eos_token_id, "pad_token_id": None, "tie_word_embeddings": tied}
    config = AutoConfig.for_model(family.model_type, **{**fields, **special, "dtype": "float32"})
    values = {**config.to_dict(), "model_type": family.model_type, "architectures": [_architecture(config)]}
    rope = fields.get("rope_parameters")
    if rope is None:  # rotary_pct and rotary_emb_base, which transformers 5.3 reads and does not write
        values |= {name: fields[name] for name in ("rotary_pct", "rotary_emb_base")}
    else:
        values["rope_theta"] = rope["rope_theta"]
        if rope["rope_type"] != "default":
            values["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
    (folder / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def _architecture(config: Any) -> str:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    found: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return found.__name__


if __name__ == "__main__":
    run_conversion(convert)
