"""framework=olmo2 begins with weights of transformers in either format, pickled ones where there are no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pretrain_exp.errors import UserError
from pretrain_exp.framework.olmo2.config import checkpoint_folder
from pretrain_exp.framework.olmo2.weights import read_hf

ONE, OTHER = {"a": torch.arange(4.0)}, {"b": torch.arange(6.0).reshape(2, 3)}


def _pickled(folder: Path, zipped: bool = True) -> None:
    for number, part in enumerate((ONE, OTHER), start=1):
        torch.save(part, folder / f"pytorch_model-{number}-of-2.bin", _use_new_zipfile_serialization=zipped)


WRITE: dict[str, Callable[[Path], Any]] = {
    "safetensors": lambda folder: save_file({**ONE, **OTHER}, folder / "model.safetensors"),
    "pickled": _pickled,
    "pickled long ago": lambda folder: _pickled(folder, zipped=False),
}


@pytest.mark.parametrize("kind", WRITE)
def test_weights_of_either_format_are_read(tmp_path: Path, kind: str) -> None:
    WRITE[kind](tmp_path)
    torch.save({"lr": 1.0}, tmp_path / "training_args.bin")
    found = read_hf(tmp_path)
    assert found.keys() == {"a", "b"}
    assert all(torch.equal(found[name], tensor) for name, tensor in {**ONE, **OTHER}.items())


def test_safetensors_are_read_where_there_are_both(tmp_path: Path) -> None:
    _pickled(tmp_path)
    save_file(ONE, tmp_path / "model.safetensors")
    assert read_hf(tmp_path).keys() == {"a"}


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights of transformers") as error:
        read_hf(tmp_path)
    assert error.value.key == "model.checkpoint"


@pytest.mark.parametrize(
    ("there", "fetched"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["config.json", "model.safetensors"]),
        (["pytorch_model.bin", "training_args.bin"], ["config.json", "pytorch_model.bin"]),
        (["adapter.gguf"], None),
    ],
)
def test_of_a_repository_one_format_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: list[str], fetched: list[str] | None
) -> None:
    def snapshot(name: str, revision: str, allow_patterns: list[str]) -> str:
        for file in ("config.json", *there):
            if any(Path(file).match(pattern) for pattern in allow_patterns):
                (tmp_path / file).touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    model = {"checkpoint": "me/model", "revision": "c"}
    if fetched is None:
        with pytest.raises(UserError, match="holds no weights of transformers"):
            checkpoint_folder(model)
        return
    assert sorted(path.name for path in checkpoint_folder(model).iterdir()) == fetched
