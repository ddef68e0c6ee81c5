"""From a state to a Hugging Face folder (config, float32 weights, tokenizer), if it says what the trained model said.

As a program, `convert STATE OUT`, it does it in an environment of its own.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from pretrain_exp.framework.worker.conversion import no_weights, run_conversion, whole_folder


def convert(state: Path, out: Path) -> Path:
    """Writes `out` in one rename. UserError, and no folder, where the state has no weights or its probe disagrees."""
    import torch
    import torch.distributed.checkpoint as dcp
    from transformers import AutoConfig
    from transformers.utils.logging import disable_progress_bar

    from pretrain_exp.framework.huggingface.model import materialise, skeleton, weights
    from pretrain_exp.framework.worker.probe import check_folder

    checkpoint = state / "checkpoint"
    if not (checkpoint / ".metadata").is_file():
        raise no_weights(state)
    hf = skeleton(AutoConfig.from_pretrained(checkpoint / "hf"), None)
    materialise(hf, torch.device("cpu"))
    hf.tie_weights()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as it should be: one process reads all
        dcp.load({"model": weights(hf)}, checkpoint_id=checkpoint, no_dist=True)
    disable_progress_bar()
    with whole_folder(out, checkpoint / "hf") as folder:
        hf.save_pretrained(folder)
        del hf
        check_folder(folder, state / "probe.json")
    return out


if __name__ == "__main__":
    run_conversion(convert)
