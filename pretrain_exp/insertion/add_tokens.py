"""add_tokens: ready token runs of a file, planted as add_texts plants texts.

In: rows of .jsonl, .jsonl.gz or .parquet, a list of token ids each. Out: edits; an item's id is the hash of its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.add_texts import FilePlanting
from pretrain_exp.items.content import content_id
from pretrain_exp.plan.digest import row_digest


@dataclass(frozen=True, kw_only=True)
class AddTokens(FilePlanting):
    """Plants token ids; `key` names the field that holds them."""

    key: str = "tokens"

    def content(self, value: Any, origin: str) -> dict[str, Any]:
        if not isinstance(value, list) or not value:
            problem = f"{origin}: {self.key!r} must be a list of token ids that is not empty"
            raise UserError(problem, key="key", value=value, fix="mend or remove this row")
        for i, token in enumerate(value):
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < 1 << 32:
                problem = f"{origin}: entry {i} is no token id, a whole number from 0 to 2**32 - 1"
                raise UserError(problem, key="key", value=token, fix="mend or remove this row")
        tokens = np.array(value, dtype=np.uint32)
        return {"id": content_id("tokens", row_digest(tokens).hex()), "tokens": tokens}
