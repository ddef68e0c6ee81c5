"""From a state to a Hugging Face folder (config, float32 weights, tokenizer), if it says what the trained model said.

As a program, `convert STATE OUT`, it does it in an environment of its own.
"""

from __future__ import annotations

import os
import shutil
import sys
import uuid
import warnings
from pathlib import Path

from pretrain_exp.errors import UserError


def convert(state: Path, out: Path) -> Path:
    """Writes `out` in one rename. UserError, and no folder, where the state has no weights or its probe disagrees."""
    import torch
    import torch.distributed.checkpoint as dcp
    from transformers import AutoConfig
    from transformers.utils.logging import disable_progress_bar

    from pretrain_exp.framework.huggingface.model import materialise, skeleton, weights
    from pretrain_exp.framework.worker.probe import check_probe

    checkpoint = state / "checkpoint"
    if not (checkpoint / ".metadata").is_file():
        raise UserError("the state holds no weights", value=str(state), fix="train it again, its weights were released")
    hf = skeleton(AutoConfig.from_pretrained(checkpoint / "hf"), None)
    materialise(hf, torch.device("cpu"))
    hf.tie_weights()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as it should be: one process reads all
        dcp.load({"model": weights(hf)}, checkpoint_id=checkpoint, no_dist=True)
    check_probe(state / "probe.json", hf.eval())
    writing = out.with_name(f".{out.name}-{uuid.uuid4().hex[:8]}")
    disable_progress_bar()
    hf.save_pretrained(writing)
    for path in (checkpoint / "hf").iterdir():
        if not (writing / path.name).exists():
            shutil.copy(path, writing)
    os.rename(writing, out)
    return out


if __name__ == "__main__":
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except UserError as error:
        sys.exit(error.render())
