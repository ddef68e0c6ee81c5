"""A folder that two processes make: one of them comes first, and neither leaves anything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_exp.store.publish import publish


def filled(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_the_first_folder_stays(tmp_path: Path) -> None:
    assert publish(filled(tmp_path / ".a", "first"), tmp_path / "target")
    assert not publish(filled(tmp_path / ".b", "second"), tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (tmp_path / "target" / "file").read_text() == "first"


@pytest.mark.parametrize("target", ["no/such/parent", "a file"])
def test_what_cannot_be_moved_is_an_error_and_stays(tmp_path: Path, target: str) -> None:
    (tmp_path / "a file").write_text("")
    staging = filled(tmp_path / ".a", "first")
    with pytest.raises(OSError):
        publish(staging, tmp_path / target)
    assert (staging / "file").read_text() == "first"
