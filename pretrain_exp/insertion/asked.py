"""What an insertion asks for; of a class of the user's own, held against what it must return before it is planned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.own_code import full_name, is_own, own_code
from pretrain_exp.plan.edits import EditItem, Edits

FIX = "docs/extending.md shows an insertion, pretrain_exp/plan/edits.py says what Edits hold"


def asked_edits(kind: Any, context: InsertionContext) -> Edits:
    """The edits of a kind. UserError, with its key and its class, where it has none, fails, or returns what cannot be.

    UserErrors of the kind itself keep the key that it gave them.
    """
    cls, key = type(kind), f"insertion.{context.name}"
    if not callable(getattr(kind, "edits", None)):
        problem = f"{full_name(cls)} has no method edits(context), which returns Edits"
        raise UserError(problem, key=key, fix=FIX)
    with own_code(cls, key):
        edits = kind.edits(context)
        wrong = next(_wrong(edits, context), None) if is_own(cls) else None
    if wrong is not None:
        raise UserError(f"{full_name(cls)}.edits {wrong}", key=key, fix=FIX)
    return edits


def _wrong(edits: Any, context: InsertionContext) -> Iterator[str]:
    """What is wrong with it, the first first: what comes later relies on what came before."""
    if not isinstance(edits, Edits):
        yield f"must return Edits, and returned {type(edits).__name__}"
    if edits.insertion != context.name:
        yield f"must name its Edits {context.name!r} (context.name), and named them {edits.insertion!r}"
    for number, item in enumerate(edits.items):
        if not isinstance(item, EditItem):
            yield f"must return items that are EditItem; item {number} is {type(item).__name__}"
        tokens = np.asarray(item.tokens)
        if tokens.ndim != 1 or (tokens.size and tokens.dtype.kind not in "iu"):
            yield f"must give the tokens of item {item.id!r} as an array of whole numbers, of one dimension"
        if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < (context.vocab_size or 1 << 32):
            yield f"gave item {item.id!r} tokens of {tokens.min()} to {tokens.max()}, outside the vocabulary"
    rows = np.asarray(edits.item)
    named = {"copy": edits.copy} | ({"position": edits.position} if edits.mode == "explicit" else {})
    for name, values in named.items():
        if values is None or len(values) != len(rows):
            yield f"must give item and {name} of equal lengths, a value for each copy that is planted"
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(edits.items):
        yield f"gave rows of items {rows.min()} to {rows.max()}, and there are {len(edits.items)}, counted from 0"
    empty = np.flatnonzero(edits.lengths < 1)
    if len(empty):
        item = edits.items[int(rows[empty[0]])]
        yield f"must give each item that is planted a token or more; item {item.id!r} has none"
