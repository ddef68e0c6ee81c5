"""OfflineEnglish: real text, each once, mixed; no ARC; a clear word where the package is missing."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections import Counter
from pathlib import Path

import pytest
from packed import origins, starts

from pretrain_exp.data import pack
from pretrain_exp.data.offline import OfflineEnglish
from pretrain_exp.data.tokenizer import Tokenizer, resolve
from pretrain_exp.errors import UserError

SMALL = ["drop", "sciq"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tokenizer(cache: Path) -> Tokenizer:
    source = OfflineEnglish(domains=SMALL)
    return resolve({"vocab_size": 600}, cache, lambda: source.texts(cache), source.texts_digest(cache))


def test_all_default_texts(cache: Path) -> None:
    """Long enough for a small model, each document once, and none of them an ARC question."""
    texts = list(OfflineEnglish().texts(cache))
    assert len(texts) > 20_000
    assert sum(map(len, texts)) > 8_000_000
    assert len({" ".join(text.lower().split()) for text in texts}) == len(texts)
    everything = "\n".join(texts)
    for line in _arc():
        assert line not in everything


def _arc() -> list[str]:
    path = OfflineEnglish()._requests()["sciq"].parents[2] / "arc_easy" / "val_rc_5shot" / "requests.jsonl.gz"
    with gzip.open(path, "rt") as file:
        queries = {json.loads(line)["doc"]["query"] for line in file}
    questions = [query.removeprefix("Question: ").removesuffix("\nAnswer:") for query in queries]
    assert len(questions) > 500
    assert all(len(question) > 10 for question in questions)
    return questions


def test_packed_by_domain(cache: Path, tokenizer: Tokenizer) -> None:
    files = OfflineEnglish(domains=SMALL, holdout=0.1).prepare(cache, tokenizer, progress=False)
    report = pack.report(files)
    assert report is not None
    by_domain = {row["domain"]: row for row in report["domains"]}
    assert set(by_domain) == set(SMALL)
    assert sum(row["tokens"] for row in by_domain.values()) == files.num_tokens == report["num_tokens"]
    domains = [domain for *_, domain in origins(files)]
    assert Counter(domains) == {name: row["documents"] for name, row in by_domain.items()}
    assert {"drop", "sciq"} == set(domains[:40])  # mixed from the beginning
    path = pack.heldout(files)
    assert path is not None
    held = [json.loads(line) for line in path.open()]
    assert len(held) == report["heldout"] > 50
    start, stop = starts(files)[7:9]
    assert tokenizer.decode(files.read(start, stop - 1)) in set(OfflineEnglish(domains=SMALL).texts(cache))


def test_limit(cache: Path, tokenizer: Tokenizer) -> None:
    whole = OfflineEnglish(domains=SMALL).prepare(cache, tokenizer, progress=False)
    part = OfflineEnglish(domains=SMALL, limit_tokens=20_000).prepare(cache, tokenizer, progress=False)
    assert 19_000 < part.num_tokens <= 20_000
    assert part.read(0, part.num_tokens).tolist() == whole.read(0, part.num_tokens).tolist()


def test_prepared_again_without_reading(cache: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    files = OfflineEnglish(domains=SMALL).prepare(cache, tokenizer, progress=False)
    monkeypatch.setattr(gzip, "open", lambda *_, **__: pytest.fail("the package was read again"))
    monkeypatch.setattr(pack, "write_part", lambda *_: pytest.fail("tokenized again"))
    assert OfflineEnglish(domains=SMALL).prepare(cache, tokenizer, progress=False) == files


@pytest.mark.parametrize("domains", [[], ["arc_easy"], ["sciq", "sciq"]], ids=str)
def test_wrong_domains(domains: list[str]) -> None:
    with pytest.raises(UserError, match="known ones, each once"):
        OfflineEnglish(domains=domains)


def test_package_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed[\s\S]*pretrain-exp\[offline\]"):
        OfflineEnglish().files()
