"""Tokenizers: a folder in Hugging Face format, known by its content, that turns texts into token ids and back.

In: a folder, a hub name, or `{vocab_size: 4096}` (a byte-level BPE of that size, trained on the texts of the data
source). Out: `Tokenizer`, which encodes texts as plain text: an end-of-text marker that is written out in a document
becomes ordinary tokens, never the id that ends documents. Where the folder holds tokenizer.json only the `tokenizers`
library is imported (0.05 s); transformers (seconds) serves the folders without one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pretrain_exp.errors import UserError
from pretrain_exp.store.publish import beside, publish

EOS = "<|endoftext|>"
PAD = "<|padding|>"
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "spiece.model")
_TRAINING_OPTIONS = {"vocab_size": 0, "min_frequency": 2, "max_bytes": 256 << 20}


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer in a folder. fingerprint: 32 hex digits of its content; vocab_size: the largest id plus one."""

    folder: str
    fingerprint: str
    vocab_size: int
    eos_token_id: int

    @cached_property
    def _backend(self) -> Any:
        if (Path(self.folder) / "tokenizer.json").is_file():
            return _fast(Path(self.folder))
        return _slow(Path(self.folder))

    def __getstate__(self) -> dict[str, Any]:
        # Each process loads its own backend.
        return {name: getattr(self, name) for name in ("folder", "fingerprint", "vocab_size", "eos_token_id")}

    @property
    def token_dtype(self) -> str:
        """The smallest type that holds every id."""
        return "uint16" if self.vocab_size <= 1 << 16 else "uint32"

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """The ids of each text, uint32, nothing added. UnicodeEncodeError for text that is not valid Unicode."""
        if hasattr(self._backend, "encode_batch_fast"):
            encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
            return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]
        encoded = (
            self._backend(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"] if texts else []
        )
        return [np.array(ids, dtype=np.uint32) for ids in encoded]

    def decode(self, ids: np.ndarray) -> str:
        """The text of these ids, special tokens written out."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=False)


def resolve(
    tokenizer: str | Mapping[str, Any],
    cache: Path,
    texts: Callable[[], Iterator[str]] | None = None,
    texts_digest: str = "",
) -> Tokenizer:
    """The tokenizer that a configuration names: a folder, a hub name ("name" or "name@revision"), or training options.

    Training options are vocab_size (ids in all, the two special ones and 256 bytes included), min_frequency (2) and
    max_bytes (how much of `texts` is read, 256 MiB). A trained tokenizer is kept in `cache` by its options and
    `texts_digest`. UserError for a folder that is no tokenizer, a hub name that cannot be reached, a wrong option.
    """
    if isinstance(tokenizer, str):
        if os.path.isdir(os.path.expanduser(tokenizer)):
            return load(Path(os.path.expanduser(tokenizer)))
        return load(_from_hub(tokenizer))
    options = _training_options(tokenizer)
    if texts is None:
        raise UserError(
            "a tokenizer can be trained only on a source of texts; this source holds tokens already",
            key="tokenizer",
            value=dict(tokenizer),
            fix="name the folder or hub name of the tokenizer that made these tokens",
        )
    key = hashlib.blake2b(json.dumps(["bpe", 1, options, texts_digest]).encode(), digest_size=8).hexdigest()
    folder = cache / "tokenizers" / f"bpe{options['vocab_size']}-{key}"
    if not folder.is_dir():
        _train(texts(), options, folder)
    return load(folder)


def load(folder: Path) -> Tokenizer:
    """The tokenizer in a folder of Hugging Face format. UserError where there is none, or none with an EOS token."""
    present = [name for name in _FILES if (folder / name).is_file()]
    if not present:
        raise UserError(
            "this folder holds no tokenizer",
            key="tokenizer",
            value=str(folder),
            fix=f"it needs one of {', '.join(_FILES)}",
        )
    try:
        backend = _fast(folder) if present[0] == "tokenizer.json" else _slow(folder)
    except ImportError as error:
        fix = f"pip install {error.name or 'transformers sentencepiece'}"
        problem = f"this tokenizer needs a package that is not here: {error}"
        raise UserError(problem, key="tokenizer", value=str(folder), fix=fix) from error
    except Exception as error:  # `tokenizers` and transformers raise what comes to hand for a file that is damaged
        raise _unreadable(folder, error) from error
    eos = _eos_token(folder)
    vocabulary = backend.get_vocab()
    if eos not in vocabulary:
        raise UserError(
            f"the tokenizer names no end-of-text token, or one outside its vocabulary ({eos!r})",
            key="tokenizer",
            value=str(folder),
            fix='set "eos_token" in its tokenizer_config.json',
        )
    hasher = hashlib.blake2b(eos.encode(), digest_size=16)
    for name in present[:1] if present[0] == "tokenizer.json" else present:
        hasher.update((folder / name).read_bytes())
    return Tokenizer(str(folder.resolve()), hasher.hexdigest(), max(vocabulary.values()) + 1, vocabulary[eos])


def _fast(folder: Path) -> Any:
    import tokenizers

    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.encode_special_tokens = True  # "<|endoftext|>" inside a document is text
    backend.no_truncation()
    backend.no_padding()
    return backend


def _slow(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


def _eos_token(folder: Path) -> str:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            try:
                token = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token")
                token = token["content"] if isinstance(token, dict) else token
            except (ValueError, AttributeError, KeyError) as error:  # no JSON, or another shape
                raise _unreadable(folder, error) from error
            if token:
                return token
    return ""


def _unreadable(folder: Path, error: Exception) -> UserError:
    fix = "fetch or save this tokenizer again"
    return UserError(f"this tokenizer cannot be read: {error}", key="tokenizer", value=str(folder), fix=fix)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    repository, _, revision = name.partition("@")
    patterns = [*_FILES, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"]
    patterns += ["chat_template.*", "additional_chat_templates/*"]
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"no such folder, and the hub gives no tokenizer of this name ({type(error).__name__}: {reason})",
            key="tokenizer",
            value=name,
            fix="give a folder that exists, or download the tokenizer once on a machine with network",
        ) from error


def _training_options(given: Mapping[str, Any]) -> dict[str, int]:
    unknown = sorted(set(given) - set(_TRAINING_OPTIONS))
    if unknown or "vocab_size" not in given:
        raise UserError(
            f"unknown training options {unknown}" if unknown else "the options name no vocab_size",
            key="tokenizer",
            value=dict(given),
            fix=f"known options: {', '.join(_TRAINING_OPTIONS)}",
        )
    options = {name: given.get(name, default) for name, default in _TRAINING_OPTIONS.items()}
    for name, value in options.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError("must be a whole number of at least 1", key=f"tokenizer.{name}", value=value)
    if options["vocab_size"] < 256 + 2:
        raise UserError(
            "a byte-level vocabulary needs at least 258 ids: 256 bytes and two special tokens",
            key="tokenizer.vocab_size",
            value=options["vocab_size"],
        )
    return options


def _train(texts: Iterator[str], options: dict[str, int], folder: Path) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=options["vocab_size"],
        min_frequency=options["min_frequency"],
        special_tokens=[EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_first_bytes(texts, options["max_bytes"]), trainer)
    if backend.get_vocab_size() < options["vocab_size"]:
        raise UserError(
            f"the texts hold only enough for {backend.get_vocab_size()} tokens",
            key="tokenizer.vocab_size",
            value=options["vocab_size"],
            fix="ask for a smaller vocabulary, or give more text",
        )
    staging = beside(folder)
    staging.mkdir(parents=True)
    backend.save(str(staging / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1 << 30,
    }
    (staging / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    publish(staging, folder)


def _first_bytes(texts: Iterator[str], limit: int) -> Iterator[str]:
    for text in texts:
        if limit <= 0:
            return
        limit -= len(text.encode("utf-8"))
        yield text
