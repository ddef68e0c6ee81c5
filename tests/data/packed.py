"""What packing says of a stream's documents, read from its files as a person would."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pretrain_exp.data.token_files import TokenFiles


def starts(files: TokenFiles) -> list[int]:
    """Where each document begins in the stream."""
    assert files.documents is not None
    return np.load(files.documents).tolist()


def origins(files: TokenFiles) -> list[tuple[str, int, str]]:
    """File, record and domain of each document."""
    assert files.documents is not None
    folder = Path(files.documents).parent
    meta = json.loads((folder / "meta.json").read_text())
    about = np.load(folder / "about.npy")
    assert len(about) == len(starts(files))
    return [(meta["files"][f], record, meta["domains"][d]["domain"]) for f, record, d in about.tolist()]
