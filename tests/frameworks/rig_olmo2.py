"""The table's row for framework `olmo2`: a tiny OLMo-2 of ai2-olmo, in the environment that `make env-olmo2` builds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rigs import EOS, VOCAB, Rig, S

from pretrain_exp.framework.olmo2.framework import Olmo2

PYTHON = Path(__file__).parents[2] / ".venv-olmo2" / "bin" / "python"
MARKS = [  # of tests of this framework alone
    pytest.mark.olmo2,
    pytest.mark.skipif(
        not PYTHON.is_file() and not os.environ.get("PRETRAIN_EXP_FRAMEWORKS"), reason="make env-olmo2 builds it"
    ),
]
SIZES = {"d_model": 32, "n_heads": 2, "n_layers": 2, "mlp_ratio": 4}


def rig() -> Rig | str:
    """The rig, or why there is none on this machine."""
    if not PYTHON.is_file():
        return "no .venv-olmo2: make env-olmo2"
    config = framework(1).complete_config(SIZES, VOCAB, EOS, S)
    return Rig("olmo2", framework, {"config": config})


def framework(ranks: int) -> Olmo2:
    return Olmo2(python=str(PYTHON), devices=ranks, device="cpu")
