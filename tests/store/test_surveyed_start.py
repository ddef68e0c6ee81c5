"""A checkpoint given by URL, for a plan: how much of it is still to come, without its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_official_run import Command, Server, overrides  # noqa: F401  a fixture

from pretrain_exp.study import start

WEIGHTS = b"\0" * 300_000
CONFIG = {"model_type": "olmo2", "vocab_size": 512, "max_position_embeddings": 64, "hidden_size": 16}


@pytest.fixture
def checkpoint(server: Server, overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:  # noqa: F811
    """What the command line says of a checkpoint at step 7 whose weights are not small."""
    monkeypatch.setattr(start, "SMALL", 1 << 17)
    server.files["/step7/config.json"] = json.dumps(CONFIG).encode()
    server.files["/step7/model.safetensors"] = WEIGHTS
    kept = [each for each in overrides if not each.startswith("model.config")]
    url = f"model.checkpoint_url='{server.url}/step{{step}}/'"
    files = "model.checkpoint_files=[config.json,model.safetensors]"
    return [*kept, url, files, "model.config=null", "model.checkpoint_step=7"]


def test_a_plan_says_how_much_a_checkpoint_is_and_fetches_no_weights(
    server: Server, checkpoint: list[str], command: Command, tmp_path: Path
) -> None:
    small = len(server.files["/step7/config.json"])
    for _ in range(2):
        status, said = command("plan", *checkpoint)
        assert status == 0, said
        assert f"to be fetched: {len(WEIGHTS) + small:,} bytes" in said
        assert "of 2 files of the checkpoint at http" in said
    assert server.sent == small, "the configuration, once"
    (folder,) = (tmp_path / "outputs/store/downloads").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "sizes.json"]


def test_what_does_not_fit_is_said_from_its_configuration(
    server: Server, checkpoint: list[str], command: Command
) -> None:
    server.files["/step7/config.json"] = json.dumps({**CONFIG, "vocab_size": 100}).encode()
    status, said = command("plan", *checkpoint)
    assert status == 2
    assert "the model has 100 token ids, the tokenizer 301" in said


def test_files_that_are_not_there_are_named(server: Server, checkpoint: list[str], command: Command) -> None:
    del server.files["/step7/model.safetensors"]
    status, said = command("plan", *checkpoint)
    assert status == 2
    assert "model.safetensors" in said
