"""A folder that is evaluated is looked at again where it is scored: what changed since the plan leaves no result."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pretrain_exp.errors import UserError
from pretrain_exp.eval import identity, worker
from pretrain_exp.eval.identity import folder_seal, refuse_changed
from pretrain_exp.eval.job import EvalJob, EvalTask, Outcome

CHANGES: dict[str, tuple[Callable[[Path], Any], bool]] = {  # and whether the model is still the same
    "nothing": (lambda folder: None, True),
    "touched": (lambda folder: os.utime(folder / "model.safetensors", ns=(5, 5)), True),
    "a note beside it": (lambda folder: (folder / "notes.md").write_text("x"), True),
    "weights": (lambda folder: (folder / "model.safetensors").write_bytes(b"WEIGHTS!"), False),
    "tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("[]"), False),
    "a template": (lambda folder: (folder / "additional_chat_templates/own.jinja").write_text("changed"), False),
    "gone": (lambda folder: (folder / "model.safetensors").unlink(), False),
    "weights beside it": (lambda folder: (folder / "pytorch_model.bin").write_bytes(b"x"), False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_seal_holds_while_the_content_does(tmp_path: Path, change: str) -> None:
    for name in ("model.safetensors", "config.json", "tokenizer.json", "additional_chat_templates/own.jinja"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    seal = json.loads(json.dumps(folder_seal(tmp_path)))
    apply, same = CHANGES[change]
    apply(tmp_path)
    if same:
        assert refuse_changed(tmp_path, seal) == folder_seal(tmp_path)
        return
    with pytest.raises(UserError):
        refuse_changed(tmp_path, seal)


def test_unread_files_are_not_read(hf_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seal = folder_seal(hf_folder)
    monkeypatch.setattr(identity, "digest_file", lambda path: pytest.fail("it is read again"))
    identity._digest.cache_clear()
    assert refuse_changed(hf_folder, seal) == seal


class Meanwhile:
    """An evaluation during which the model's folder changes."""

    folder: Path

    def inputs(self) -> list[tuple[str, str]]:
        return []

    def fingerprint(self, items: Any) -> dict[str, Any]:
        return {}

    def run(self, model: Any, context: Any) -> list[Any]:
        (self.folder / "config.json").write_text("{} ")
        context.notes.append("nothing")
        return []


@pytest.mark.parametrize("when", ["before", "while it is scored"])
def test_other_weights_leave_no_result(
    hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr("own_evaluations.Meanwhile", Meanwhile, raising=False)
    Meanwhile.folder = hf_folder
    task = EvalTask(name="e", target="own_evaluations.Meanwhile", args={}, out=str(tmp_path / "out"))
    job = EvalJob(model=str(hf_folder), seal=folder_seal(hf_folder), evaluations=(task,), device="cpu", threads=1)
    job.write(tmp_path / "job.json")
    if when == "before":
        (hf_folder / "tokenizer_config.json").write_text("{}")
    assert worker.main([str(tmp_path / "job.json")]) == 1
    error = Outcome.read(task.out).error
    assert error is not None
    assert (error["user_error"], "the model has changed" in error["message"]) == (True, True)
    assert not (tmp_path / "out").exists()
