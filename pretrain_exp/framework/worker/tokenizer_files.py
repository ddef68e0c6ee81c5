"""The files of a tokenizer, which a checkpoint keeps for whoever converts it."""

from __future__ import annotations

import shutil
from pathlib import Path

TOKENIZER_FILES = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.*",
    "vocab.*",
    "merges.txt",
    "*.model",
)
TEMPLATES = "additional_chat_templates"  # a folder: those with names of their own


def copy_tokenizer(source: Path | None, target: Path) -> None:
    """Copies a tokenizer's files, and nothing else that lies beside them, into a folder, made if need be."""
    target.mkdir(parents=True, exist_ok=True)
    for path in () if source is None else (path for pattern in TOKENIZER_FILES for path in source.glob(pattern)):
        shutil.copy(path, target)
    if source is not None and (source / TEMPLATES).is_dir():
        shutil.copytree(source / TEMPLATES, target / TEMPLATES, dirs_exist_ok=True)
