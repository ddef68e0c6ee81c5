"""What a model is known by, weights and tokenizer alike: a folder or a hub name in, a name of its content out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.eval.job import digest_file
from pretrain_exp.framework.identity import WEIGHTS, stamp
from pretrain_exp.store.hub import resolve_revision
from pretrain_exp.store.keys import digest

BESIDE = (".json", ".txt", ".model", ".tiktoken", ".jinja", ".py")  # of all that may decide tokens and architecture


def folder_identity(folder: Path) -> str:
    """Of a Hugging Face folder: its weights and all that lies beside them and counts. UserError where it is none."""
    files = _files(folder)
    if not {path for path in files if _is_weights(path)} or not (folder / "config.json").is_file():
        fix = "it must hold config.json and *.safetensors"
        raise UserError("the folder is no Hugging Face checkpoint", value=str(folder), fix=fix)
    return digest([[str(path.relative_to(folder)), _digest(path, *stamp(path))] for path in files])


def folder_seal(folder: Path) -> dict[str, Any]:
    """The identity, and how the files stood before they were read for it: JSON for `refuse_changed`. UserError."""
    return {"files": _stamps(folder), "identity": folder_identity(folder)}


def refuse_changed(folder: Path, seal: Mapping[str, Any]) -> dict[str, Any]:
    """The seal as it is now. UserError where the folder does not hold what it was planned with.

    Where no file came or went and all have kept size, time of change and inode, nothing is read; else (one was copied,
    touched, or another machine sees it otherwise) all are read again and the identity decides.
    """
    if _stamps(folder) == seal["files"]:
        return dict(seal)
    try:
        now = folder_seal(folder)
    except OSError:  # a file went away while it was looked at
        now = {}
    if now.get("identity") == seal["identity"]:
        return now
    problem = "the model has changed since its job was planned: no result is kept"
    raise UserError(problem, value=str(folder), fix="type the command again, which plans it anew")


def _files(folder: Path) -> list[Path]:
    beside = {path for path in folder.glob("*") if path.suffix in BESIDE and path.is_file()}
    templates = {*folder.glob("additional_chat_templates/*.jinja")}
    return sorted({path for pattern in WEIGHTS for path in folder.glob(pattern)} | beside | templates)


def _is_weights(path: Path) -> bool:
    return any(path.match(pattern) for pattern in WEIGHTS)


def _stamps(folder: Path) -> list[list[Any]]:
    return [[str(path.relative_to(folder)), *stamp(path)] for path in _files(folder)]


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


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, modified: int, inode: int) -> str:
    """Of a file as it was at that time: a study asks for the same one many times."""
    return digest_file(path)
