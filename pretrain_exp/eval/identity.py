"""What a model is known by, weights and tokenizer alike: a folder or a hub name in, a name of its content out."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pretrain_exp.errors import UserError
from pretrain_exp.eval.job import digest_file
from pretrain_exp.framework.identity import WEIGHTS
from pretrain_exp.store.hub import resolve_revision
from pretrain_exp.store.keys import digest

BESIDE = (".json", ".txt", ".model", ".tiktoken", ".jinja", ".py")  # of all that may decide tokens and architecture


def folder_identity(folder: Path) -> str:
    """Of a Hugging Face folder: its weights and all that lies beside them and counts. UserError where it is none."""
    weights = {path for pattern in WEIGHTS for path in folder.glob(pattern)}
    if not weights or not (folder / "config.json").is_file():
        fix = "it must hold config.json and *.safetensors"
        raise UserError("the folder is no Hugging Face checkpoint", value=str(folder), fix=fix)
    beside = {path for path in folder.iterdir() if path.suffix in BESIDE and path.is_file()}
    return digest([[path.name, _digest(path, *_stamp(path))] for path in sorted(weights | beside)])


def model_identity(name: str, revision: str | None) -> list[str]:
    """Of a folder: its content; of a hub name: its commit. UserError where neither is to be had."""
    if is_folder(name):
        return [folder_identity(Path(name))]
    return [name, commit_of(name, revision)]


@lru_cache
def commit_of(name: str, revision: str | None) -> str:
    """Of a hub name: asked once a process, so that what is loaded is what was named, though a branch moves on."""
    return resolve_revision(name, revision)


def is_folder(name: str) -> bool:
    """Whether a model is named by its folder, there or not."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or Path(name).is_dir()


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, modified: int) -> str:
    """Of a file as it was at that time: a study asks for the same one many times."""
    return digest_file(path)
