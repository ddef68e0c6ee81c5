"""A folder of weights is looked at again where it is trained from: what changed since the plan is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from segments import OLMO2
from transformers import AutoConfig, AutoModelForCausalLM

from pretrain_exp.errors import UserError
from pretrain_exp.framework.huggingface.framework import HuggingFace
from pretrain_exp.framework.identity import Content, refuse_changed

CHANGES: dict[str, tuple[Callable[[Path], Any], bool]] = {  # and whether the checkpoint is still the same
    "nothing": (lambda folder: None, True),
    "touched": (lambda folder: os.utime(folder / "model.safetensors", ns=(5, 5)), True),
    "copied": (lambda folder: _replace(folder / "model.safetensors", b"weights"), True),
    "a note beside it": (lambda folder: (folder / "notes.txt").write_text("x"), True),
    "weights": (lambda folder: _replace(folder / "model.safetensors", b"WEIGHTS"), False),
    "longer": (lambda folder: _replace(folder / "model.safetensors", b"weights."), False),
    "config": (lambda folder: _replace(folder / "config.json", b"[]"), False),
    "gone": (lambda folder: (folder / "model.safetensors").unlink(), False),
    "weights beside it": (lambda folder: (folder / "pytorch_model.bin").write_bytes(b"x"), False),
}


def _replace(path: Path, content: bytes) -> None:
    new = path.with_name("new")
    new.write_bytes(content)
    os.replace(new, path)


@pytest.mark.parametrize("ends", [None, (0, 4)])
@pytest.mark.parametrize("change", CHANGES)
def test_a_seal_holds_while_the_content_does(tmp_path: Path, change: str, ends: tuple[int, int] | None) -> None:
    files = tmp_path / "config.json", tmp_path / "model.safetensors"
    for file, content in zip(files, (b"{}", b"weights"), strict=True):
        file.write_bytes(content)
    seal = json.loads(json.dumps(Content(files, ends).seal()))
    apply, same = CHANGES[change]
    apply(tmp_path)
    if same:
        now = json.loads(json.dumps(refuse_changed(seal)))
        assert now == json.loads(json.dumps(Content(files, ends).seal()))
        return
    with pytest.raises(UserError, match="has changed since its job was planned") as error:
        refuse_changed(seal)
    assert (error.value.key, Path(str(error.value.value)).parent) == ("model.checkpoint", tmp_path)


def test_unread_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pt").write_bytes(b"weights")
    seal = Content((tmp_path / "a.pt",)).seal()
    monkeypatch.setattr(Content, "digest", lambda self: pytest.fail("it is read again"))
    assert refuse_changed(seal) == seal


@pytest.mark.parametrize("when", ["before", "while it is read"])
def test_a_worker_trains_nothing_from_other_weights(
    make_segment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    folder = tmp_path / "model"
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**OLMO2)).save_pretrained(folder)
    initial = HuggingFace(device="cpu").initial({"checkpoint": str(folder)})
    segment = make_segment(saves=(1,), model={"checkpoint": str(folder)})
    segment.job["seal"] = initial["seal"]
    config = (folder / "config.json").read_bytes()
    if when == "before":
        (folder / "config.json").write_bytes(config + b"\n")
    else:
        plain = AutoModelForCausalLM.from_pretrained

        def meanwhile(*arguments: Any, **fields: Any) -> Any:
            found = plain(*arguments, **fields)
            (folder / "config.json").write_bytes(config + b"\n")
            return found

        monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", meanwhile)
    segment.here(status=2)
    told = json.loads((segment.root / "error.json").read_text())
    assert (told["kind"], "has changed since its job was planned" in told["message"]) == ("user", True)
    assert not segment.state(1).exists()
    monkeypatch.undo()
    (segment.root / "error.json").unlink()
    (folder / "config.json").write_bytes(config)
    segment.here()
    assert segment.state(1).is_dir()
