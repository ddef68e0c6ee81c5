"""Twelve texts of numbers, sources that read them, and what they are as tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pretrain_exp.data.texts import TextSource

TEXTS = [" ".join(map(str, range(start, start + 5))) for start in range(0, 60, 5)]  # "0 1 2 3 4", "5 6 7 8 9", ...


def lines(texts: list[str], **more: str) -> bytes:
    return "".join(json.dumps({"text": text} | more) + "\n" for text in texts).encode()


def tokens_of(texts: list[str], eos: int) -> list[int]:
    return [token for text in texts for token in [*map(int, text.split()), eos]]


def source(folder: Path, **fields: Any) -> TextSource:
    return TextSource(paths=[f"{folder}/*"], **({"processes": 1} | fields))


def tokens(files: Any) -> list[int]:
    return files.read(0, files.num_tokens).tolist()
