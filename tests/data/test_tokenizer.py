"""Tokenizers: trained the same everywhere, lossless, known by content, loadable by transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pretrain_exp.data.tokenizer import EOS, PAD, Tokenizer, load, resolve
from pretrain_exp.errors import UserError

TEXTS = [f"the {a} {b} of the {c}" for a in ("big", "small") for b in ("cat", "dog", "house") for c in "abcdefgh"]


def texts() -> Iterator[str]:
    return iter(TEXTS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return resolve({"vocab_size": 280}, tmp_path_factory.mktemp("cache"), texts, "digest")


def test_trained_to_size(trained: Tokenizer) -> None:
    assert (trained.vocab_size, trained.token_dtype) == (280, "uint16")
    ids = trained.encode([" the"])[0]
    assert len(ids) == 1
    assert ids.dtype == np.uint32


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(), max_size=5))
def test_decoding_gives_the_text_back(trained: Tokenizer, written: list[str]) -> None:
    encoded = trained.encode([*written, f"a{EOS}{PAD}b"])
    assert [trained.decode(ids) for ids in encoded] == [*written, f"a{EOS}{PAD}b"]
    assert not any(np.any(ids == trained.eos_token_id) for ids in encoded)


def test_the_end_of_text_id_reads_as_its_name(trained: Tokenizer) -> None:
    assert trained.decode(np.array([trained.eos_token_id])) == EOS


def test_loadable_by_transformers(trained: Tokenizer) -> None:
    from transformers import AutoTokenizer

    other = AutoTokenizer.from_pretrained(trained.folder)
    assert (other.eos_token_id, len(other), other.pad_token) == (trained.eos_token_id, trained.vocab_size, PAD)
    for text in [*TEXTS, "Ünïcödé, 日本語 and\ttabs\n"]:
        assert other(text, add_special_tokens=False)["input_ids"] == trained.encode([text])[0].tolist()
        assert other.decode(trained.encode([text])[0]) == text


TRAIN = """
import sys
from pathlib import Path
from pretrain_exp.data.tokenizer import resolve
texts = Path(sys.argv[2]).read_text().splitlines()
print(resolve({"vocab_size": 280}, Path(sys.argv[1]), lambda: iter(texts), "digest").fingerprint)
"""


def test_training_is_deterministic_across_processes(trained: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("\n".join(TEXTS))
    for i in range(3):
        command = [sys.executable, "-c", TRAIN, str(tmp_path / str(i)), str(tmp_path / "texts")]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == trained.fingerprint


def test_trained_once(tmp_path: Path) -> None:
    first = resolve({"vocab_size": 270}, tmp_path, texts, "digest")

    def fail() -> Iterator[str]:
        pytest.fail("the texts were read again")

    assert resolve({"vocab_size": 270, "min_frequency": 2}, tmp_path, fail, "digest") == first
    assert resolve(first.folder, tmp_path) == first
    assert resolve({"vocab_size": 270}, tmp_path, lambda: iter(t.upper() for t in TEXTS), "other") != first
    assert not list(tmp_path.rglob(".*"))


def test_max_bytes_bounds_what_is_read(tmp_path: Path) -> None:
    read = []

    def counted() -> Iterator[str]:
        for text in TEXTS:
            read.append(text)
            yield text

    resolve({"vocab_size": 260, "max_bytes": 200}, tmp_path, counted, "digest")
    assert sum(len(text) for text in read[:-2]) < 200 <= sum(len(text) for text in read)


def test_fingerprint_is_of_the_content(trained: Tokenizer, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in Path(trained.folder).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert load(folder).fingerprint == trained.fingerprint
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": {"content": PAD}}))
    changed = load(folder)
    assert changed.fingerprint != trained.fingerprint
    assert changed.eos_token_id != trained.eos_token_id


WRONG: dict[str, tuple[Any, str]] = {
    "too small": ({"vocab_size": 200}, "at least 258"),
    "too large": ({"vocab_size": 5000}, "only enough for"),
    "no size": ({}, "no vocab_size"),
    "no number": ({"vocab_size": 300, "min_frequency": "two"}, "tokenizer.min_frequency"),
    "unknown option": ({"vocab_size": 300, "size": 1}, r"unknown training options \['size'\]"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve(options, tmp_path, texts, "digest")
    assert not (tmp_path / "tokenizers").exists() or not list((tmp_path / "tokenizers").iterdir())


def test_no_texts_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only on a source of texts"):
        resolve({"vocab_size": 300}, tmp_path)


def test_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no tokenizer"):
        resolve(str(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("name", "content"), [("tokenizer.json", None), ("tokenizer_config.json", None), ("tokenizer_config.json", b"[1]")]
)
def test_a_damaged_tokenizer(trained: Tokenizer, tmp_path: Path, name: str, content: bytes | None) -> None:
    for path in Path(trained.folder).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(content or (tmp_path / name).read_bytes()[:20])
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize(("name", "module"), [("tokenizer.json", "tokenizers"), ("tokenizer.model", "transformers")])
def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    (tmp_path / name).write_text("{}")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match="needs a package that is not here") as told:
        load(tmp_path)
    assert told.value.fix == f"pip install {module}"


def test_tokenizer_without_end_of_text(trained: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((Path(trained.folder) / "tokenizer.json").read_bytes())
    with pytest.raises(UserError, match="no end-of-text token"):
        load(tmp_path)


def test_hub_name_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="no such folder, and the hub gives no tokenizer"):
        resolve("nobody/no-such-model@main", tmp_path)


def test_folder_without_tokenizer_json_goes_through_transformers(trained: Tokenizer, tmp_path: Path) -> None:
    model = json.loads((Path(trained.folder) / "tokenizer.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [" ".join(pair) for pair in model["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": EOS, "unk_token": EOS, "bos_token": EOS}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    other = load(tmp_path)
    assert (other.vocab_size, other.eos_token_id) == (trained.vocab_size, trained.eos_token_id)
    written = [*TEXTS, f"a{EOS}b"]
    assert [ids.tolist() for ids in other.encode(written)] == [ids.tolist() for ids in trained.encode(written)]
    assert [other.decode(ids) for ids in other.encode(written)] == written
    assert other.encode([]) == trained.encode([]) == []
