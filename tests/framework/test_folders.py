"""Conversion to a Hugging Face folder: what is held against the probe is what lies in the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from segments import tensors
from transformers import PreTrainedModel

from pretrain_exp.errors import UserError
from pretrain_exp.framework.huggingface.framework import HuggingFace


def trained(make_segment: Any) -> Path:
    """A state of its own."""
    segment = make_segment(saves=(2,))
    segment.here()
    return segment.state(2)


def test_damaged_weights_are_not_converted(make_segment: Any, tmp_path: Path) -> None:
    state = trained(make_segment)
    values = tensors(state)
    values["model.model.layers.1.mlp.up_proj.weight"] *= 1.05
    dcp.save(values, checkpoint_id=state / "checkpoint", no_dist=True)
    with pytest.raises(UserError, match="off by"):
        HuggingFace().to_hf(state, tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("factor", "says"), [(1.05, "off by"), (None, "1 weights do not fit transformers, first lm_head.weight")]
)
def test_what_is_judged_is_the_folder(
    make_segment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float | None, says: str
) -> None:
    """The state is whole; what is written of it is another model, or a weight is left out."""
    save = PreTrainedModel.save_pretrained

    def damaged(self: Any, folder: Path) -> None:
        save(self, folder)
        weights = load_file(folder / "model.safetensors")
        head = weights.pop("lm_head.weight")
        kept = {} if factor is None else {"lm_head.weight": head * factor}
        save_file({**weights, **kept}, folder / "model.safetensors", {"format": "pt"})

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", damaged)
    with pytest.raises(UserError, match=says):
        HuggingFace().to_hf(trained(make_segment), tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []
