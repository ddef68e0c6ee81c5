"""The checkpoint that a member starts from, where it is given by URL: brought here or, for a plan, how much it is.

model.checkpoint_url, _step, _files --fetched--> <store>/downloads/<digest>/
                                    --surveyed--> .../<digest>.small/, which holds what is small; sizes of all else
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain_exp.config import Config
from pretrain_exp.errors import UserError
from pretrain_exp.framework.base import Framework
from pretrain_exp.framework.identity import published
from pretrain_exp.store.claims import claimed
from pretrain_exp.store.download import checkpoint_downloads, download, download_checkpoint
from pretrain_exp.store.keys import digest
from pretrain_exp.store.sizes import remote_sizes
from pretrain_exp.store.transfer import Download

SMALL = 64 << 20  # bytes: configurations, and the lists of shards, which name further files


@dataclass(frozen=True)
class Start:
    """config: with model.checkpoint as a folder on this machine. needed: what of the checkpoint has not come yet."""

    config: Config
    needed: tuple[Download, ...] = ()

    def initial(self, framework: Framework, model: dict[str, Any]) -> dict[str, Any]:
        """As `Framework.initial`; a checkpoint that has not come is known by where it comes from."""
        if not self.needed:
            return framework.initial(model)
        for error in framework.check_start(model):
            raise error
        return {"kind": "hf", "checkpoint": model["checkpoint"], "revision": None, "identity": published(model)}


def download_folder(config: Config) -> Path:
    """Where a checkpoint given by URL is brought to."""
    facts = [config.model.checkpoint_url, config.model.checkpoint_step, config.model.checkpoint_files]
    return Path(config.store) / "downloads" / digest(facts)


def fetched(config: Config, framework: Framework) -> Start:
    """With the checkpoint in the store: each (URL, step) is downloaded once. As it is where none is given by URL."""
    model = config.model
    if model.checkpoint_url is None:
        return Start(config)
    folder = download_folder(config)
    with claimed(config.store, f"download-{folder.name}"):
        url, step, names = model.checkpoint_url, model.checkpoint_step, files_named(config)
        download_checkpoint(url, step, names, folder, named_within=framework.named_files)
    return Start(_starting_from(config, folder))


def surveyed(config: Config, framework: Framework) -> Start:
    """The same without what is large: its size is asked for. UserError where a file is not to be had."""
    model = config.model
    if model.checkpoint_url is None or download_folder(config).is_dir():
        return fetched(config, framework)
    whole, names = download_folder(config), files_named(config)
    folder, partial = whole.with_name(f"{whole.name}.small"), whole.with_name(f"{whole.name}.part")
    with claimed(config.store, f"survey-{whole.name}"):
        files = _sized(config, names, folder)
        download([file for file in files if (file.size or 0) <= SMALL])
        files += _sized(config, [name for name in framework.named_files(folder) if name not in names], folder)
    come = {file.path for file in files if (partial / file.path.relative_to(folder)).is_file()}
    return Start(_starting_from(config, folder), tuple(file for file in files if file.path not in come))


def files_named(config: Config) -> list[str]:
    """model.checkpoint_files. UserError where there are none."""
    if not config.model.checkpoint_files:
        fix = "list the files of the checkpoint's folder, such as [config.json, model.safetensors]"
        raise UserError("is needed with model.checkpoint_url", key="model.checkpoint_files", value=None, fix=fix)
    return config.model.checkpoint_files


def _sized(config: Config, names: list[str], folder: Path) -> list[Download]:
    """The files with their sizes, by their server."""
    if not names:
        return []
    files = checkpoint_downloads(str(config.model.checkpoint_url), config.model.checkpoint_step, names, folder)
    remotes = remote_sizes([file.url for file in files], folder)
    return [Download(file.url, file.path, remote.size) for file, remote in zip(files, remotes, strict=True)]


def _starting_from(config: Config, folder: Path) -> Config:
    return config.model_copy(update={"model": config.model.model_copy(update={"checkpoint": str(folder)})})
