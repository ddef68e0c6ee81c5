"""Damaged files of a user's own: each ends with status 2 and a message with the key and the way out."""

from __future__ import annotations

import numpy as np
import pytest

SMALL = ["experiment=smoke", "tracking=none"]
DAMAGED = {
    "no row": ("", ["insertion.add_texts.file: holds no row", "texts.jsonl"]),
    "broken line": ('{"text": "a"}\n{"text": ', ["texts.jsonl", "2"]),
    "missing field": ('{"text": "a"}\n{"body": "b"}', ["texts.jsonl", "text"]),
    "not text": ('{"text": 3}', ["texts.jsonl"]),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_insertion_file(name, command, tmp_path):
    content, words = DAMAGED[name]
    (tmp_path / "texts.jsonl").write_text(content + "\n")
    chosen = ["insertion=add_texts", "insertion.add_texts.file=texts.jsonl"]
    status, said = command("plan", *SMALL, *chosen)
    assert status == 2, said
    assert "Traceback" not in said
    for word in words:
        assert word in said


def test_token_file_of_an_odd_size(command, tmp_path):
    (tmp_path / "tokens.bin").write_bytes(np.arange(1000, dtype="<u4").tobytes() + b"x")
    data = ["data=token_files", f"data.paths=[{tmp_path}/tokens.bin]", "data.eos_token_id=0"]
    status, said = command("plan", "tracking=none", *data)
    assert status == 2, said
    assert "Traceback" not in said
