"""One stream, and jobs over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from segments import EOS, OLMO2, TRAINING, VOCAB, Segment

from pretrain_exp.data.order import ShuffledOrder
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.data.token_files import TokenFile, TokenFiles


@pytest.fixture(scope="session")
def make_segment(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("stream")
    np.arange(VOCAB, dtype=np.uint16).tofile(folder / "range.npy")
    files = TokenFiles((TokenFile(str(folder / "range.npy"), "uint16", 0, VOCAB, "range", "range"),), EOS, None)

    def make(
        *,
        saves: tuple[int, ...] = (6,),
        start: tuple[Path | None, int] = (None, 0),
        training: dict[str, Any] | None = None,
        overlay: Path | None = None,
        store: Path | None = None,
        model: dict[str, Any] | None = None,
        seed: int | None = None,
        tokenizer: Path | None = None,
    ) -> Segment:
        root = tmp_path_factory.mktemp("segment")
        settings = {**TRAINING, **(training or {})}
        job = {
            "schema": 1,
            "start": {"state": str(start[0]) if start[0] else None, "step": start[1]},
            "stop": saves[-1],
            "save": [{"step": step, "key": f"key-{step}", "record": {"step": step}} for step in saves],
            "store": str(store or root / "store"),
            "live": str(root),
            "order": ShuffledOrder(files, settings["sequence_length"], seed).to_json(),
            "phases": Phases([Phase(0, settings["batch_size"], settings["sequence_length"])]).to_json(),
            "overlay": str(overlay) if overlay else None,
            "model": model or {"config": OLMO2},
            "training": settings,
            "tokenizer": str(tokenizer) if tokenizer else None,
            "eos_token_id": EOS,
            "seeds": {"init": 0},
            "hooks": [],
        }
        return Segment(root, job)

    return make
