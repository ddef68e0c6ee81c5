"""From a state to a Hugging Face folder (config, float32 weights, tokenizer) by olmo_core.nn.hf, if it says the same.

A program, `convert STATE OUT`, that runs in the framework's own environment.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pretrain_exp.framework.worker.conversion import no_weights, run_conversion, whole_folder


def convert(state: Path, out: Path) -> Path:
    """Writes `out` in one rename. UserError, and no folder, where the state has no weights or its probe disagrees."""
    checkpoint = state / "checkpoint"
    if not (checkpoint / "model_and_optim" / ".metadata").is_file():
        raise no_weights(state)
    from olmo_core.distributed.checkpoint import load_model_and_optim_state
    from olmo_core.nn.attention import AttentionBackendName
    from olmo_core.nn.hf import save_hf_model
    from transformers.utils.logging import disable_progress_bar

    from pretrain_exp.framework.olmo3.config import saved_config, set_attention
    from pretrain_exp.framework.worker.probe import check_folder

    disable_progress_bar()
    config = saved_config(checkpoint)
    set_attention(config, AttentionBackendName.torch)
    model = config.build(init_device="cpu")
    load_model_and_optim_state(str(checkpoint / "model_and_optim"), model)
    with whole_folder(out, checkpoint / "hf") as folder:
        save_hf_model(folder, model.state_dict(), model, save_overwrite=True)
        _complete(folder / "config.json", json.loads((checkpoint / "config.json").read_text())["dataset"])
        check_folder(folder, state / "probe.json")
    return out


def _complete(path: Path, dataset: dict[str, Any]) -> None:
    """What OLMo-core leaves open in a config.json: how long sequences were, and the ids with a meaning."""
    config = json.loads(path.read_text())
    config["max_position_embeddings"] = dataset["sequence_length"]
    config |= {name: dataset["tokenizer"].get(name) for name in ("bos_token_id", "eos_token_id")}
    path.write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    run_conversion(convert)
