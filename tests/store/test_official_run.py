"""An experiment on an official mix, from the command line: planned, fetched, trained and proved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain_exp.data.tokenizer import EOS
from pretrain_exp.store.spans import join, total

Server = Any  # of conftest.py
Command = Callable[..., tuple[int, str]]
S, BATCH, STEPS = 32, 4, 3


@pytest.fixture
def overrides(server: Server, tmp_path: Path) -> list[str]:
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    folder = tmp_path / "tokenizer"
    folder.mkdir()
    backend = Tokenizer(WordLevel({str(i): i for i in range(300)}, unk_token="0"))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.add_special_tokens([AddedToken(EOS, special=True)])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOS}))
    for i in range(2):
        ids = np.random.default_rng(i).integers(0, 300, 5000)
        server.files[f"/{i}.npy"] = ids.astype("<u4").tobytes()
    (tmp_path / "mix.txt").write_text("0.npy\n1.npy\n")
    (tmp_path / "texts.jsonl").write_text('{"text": "7 8 9 10"}\n{"text": "11 12 13"}\n')
    return [
        "data=official", "data.mix=mix.txt", f"data.base_url={server.url}", f"model.tokenizer={folder}",
        "model.config={hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, "
        "num_key_value_heads: 2}",
        f"model.sequence_length={S}", f"model.batch_size={BATCH}", f"training.num_steps={STEPS}", "arms.placebo=true",
        "model.schedule.warmup_steps=0",
        "insertion=add_texts", "insertion.add_texts.file=texts.jsonl", "insertion.add_texts.repetitions=2",
        "eval=none", "tracking=none", "hydra.run.dir=study",
    ]  # fmt: skip


def test_planned_fetched_trained_and_proved(
    server: Server, overrides: list[str], command: Command, tmp_path: Path
) -> None:
    status, said = command("plan", *overrides)
    assert status == 0, said
    amount = int(said.partition("to be fetched: ")[2].partition(" bytes")[0].replace(",", ""))
    assert STEPS * BATCH * S * 4 < amount < 2 * STEPS * BATCH * S * 4, "its steps, and some for the placebo"
    assert server.sent == 0, "planning fetches nothing"
    status, said = command(*overrides)
    assert status == 0, said
    assert server.sent == amount
    asked = [join((start, stop) for path, start, stop in server.asked if path == f"/{i}.npy") for i in range(2)]
    assert sum(map(total, asked)) == amount, "no byte came twice"
    proofs = [json.loads(path.read_text()) for path in (tmp_path / "study/proof").glob("*.json")]
    assert [(proof["ok"], proof["rows_checked"]) for proof in proofs] == [(True, STEPS * BATCH)] * 3
    status, said = command("plan", *overrides)
    assert "nothing is to be fetched" in said
    status, said = command("inspect", "study", "--step", "1", "--row", "0")
    assert status == 0, said


def test_what_is_missing_is_said_before_anything_else(nobody: str, overrides: list[str], command: Command) -> None:
    status, said = command("plan", *overrides, f"data.base_url={nobody}")
    assert status == 2
    assert "data.base_url: the sizes of 2 token files of the mix are not known yet" in said
    status, said = command("plan", *overrides, "data.fetch=none")
    assert status == 2
    assert "\n  data.root: 2 token files of the mix are not here" in said
    status, said = command("plan", *overrides, "data.mix=null")
    assert status == 2
    assert "data.mix: no official list of token files is named" in said
    checkpoint = [f"model.checkpoint_url='{nobody}/step{{step}}/'", "model.checkpoint_files=[a]", "model.config=null"]
    kept = [each for each in overrides if not each.startswith("model.config")]
    wrong = ["model.tokenizer=/no/such/folder", f"data.base_url={nobody}", *checkpoint]
    status, said = command("plan", *kept, *wrong)
    assert status == 2
    for key in ("model.tokenizer", "data.base_url", "model.checkpoint_url"):
        assert f"\n  {key}: " in said, "all that is missing is said at once"
    status, said = command("plan", *kept, *wrong, "+training.args.no=field")
    assert status == 2
    for key in ("training.args", "model.tokenizer", "data.base_url", "model.checkpoint_url"):
        assert f"\n  {key}: " in said, "beside what the framework finds wrong"
