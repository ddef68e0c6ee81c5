"""From a state to a Hugging Face folder (config, float32 weights, tokenizer) by olmo_core.nn.hf, if it says the same.

A program, `convert STATE OUT`, that runs in the framework's own environment.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError


def convert(state: Path, out: Path) -> Path:
    """Writes `out` in one rename. UserError, and no folder, where the state has no weights or its probe disagrees."""
    checkpoint = state / "checkpoint"
    if not (checkpoint / "model_and_optim" / ".metadata").is_file():
        raise UserError("the state holds no weights", value=str(state), fix="train it again, its weights were released")
    from olmo_core.distributed.checkpoint import load_model_and_optim_state
    from olmo_core.nn.attention import AttentionBackendName
    from olmo_core.nn.hf import save_hf_model
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from pretrain_exp.framework.olmo3.config import saved_config, set_attention
    from pretrain_exp.framework.worker.probe import check_probe

    disable_progress_bar()
    config = saved_config(checkpoint)
    set_attention(config, AttentionBackendName.torch)
    model = config.build(init_device="cpu")
    load_model_and_optim_state(str(checkpoint / "model_and_optim"), model)
    writing = out.with_name(f".{out.name}-{uuid.uuid4().hex[:8]}")
    try:
        save_hf_model(writing, model.state_dict(), model)
        _complete(writing / "config.json", json.loads((checkpoint / "config.json").read_text())["dataset"])
        check_probe(state / "probe.json", AutoModelForCausalLM.from_pretrained(writing, dtype="float32").eval())
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)
        raise
    for path in (checkpoint / "hf").iterdir():
        if not (writing / path.name).exists():
            shutil.copy(path, writing)
    os.rename(writing, out)
    return out


def _complete(path: Path, dataset: dict[str, Any]) -> None:
    """What OLMo-core leaves open in a config.json: how long sequences were, and the ids with a meaning."""
    config = json.loads(path.read_text())
    config["max_position_embeddings"] = dataset["sequence_length"]
    config |= {name: dataset["tokenizer"].get(name) for name in ("bos_token_id", "eos_token_id")}
    path.write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except UserError as error:
        sys.exit(error.render())
