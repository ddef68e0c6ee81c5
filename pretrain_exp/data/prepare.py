"""From a data source to what a run reads: the tokenizer, the token files, and the documents that were held out of them.

source --texts--> tokenizer (trained, if the model asks for one) --prepare--> token files, held-out documents
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain_exp.data.inputs import file_digest
from pretrain_exp.data.pack import heldout
from pretrain_exp.data.token_files import TokenFiles
from pretrain_exp.data.tokenizer import Tokenizer, resolve
from pretrain_exp.errors import Problems, UserError


@dataclass(frozen=True)
class PreparedData:
    """held_out: a JSONL file of {text, domain}; None where the source holds nothing out.

    Its digest is of its content.
    """

    files: TokenFiles
    tokenizer: Tokenizer
    held_out: Path | None
    held_out_digest: str


def prepare_data(source: Any, tokenizer: str | Mapping[str, Any], cache: Path) -> PreparedData:
    """Tokenizer and token files of a source, made now or in `cache`. UserError or Problems under model or data."""
    trainable = hasattr(source, "texts")
    try:
        if trainable:
            resolved = resolve(tokenizer, cache, lambda: source.texts(cache), source.texts_digest(cache))
        else:
            resolved = resolve(tokenizer, cache)
    except UserError as error:
        found = [error.under("model"), *_lacking(source, cache)]  # what else is missing is said in the same breath
        raise Problems(found) if len(found) > 1 else found[0] from None
    try:
        files = source.prepare(cache, resolved)
    except UserError as error:
        raise error.under("data") from None
    held_out = heldout(files)
    digest = "" if held_out is None else file_digest(str(held_out), cache)
    return PreparedData(files, resolved, held_out, digest)


def missing_data(source: Any, tokenizer: str | Mapping[str, Any], cache: Path) -> list[UserError]:
    """What of them cannot be had here: a tokenizer that is not trained on the data itself, what the source lacks."""
    found = []
    if not hasattr(source, "texts"):
        try:
            resolve(tokenizer, cache)
        except UserError as error:
            found.append(error.under("model"))
    return found + _lacking(source, cache)


def _lacking(source: Any, cache: Path) -> list[UserError]:
    return [problem.under("data") for problem in source.check(cache)] if hasattr(source, "check") else []
