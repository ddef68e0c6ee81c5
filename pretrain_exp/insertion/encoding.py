"""From an entry to what is planted of it: its text encoded, EOS around it, and what becomes of it if it is too long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pretrain_exp.errors import UserError

if TYPE_CHECKING:
    from pretrain_exp.insertion.base import Entry, InsertionContext, Planting


def wrap_eos(tokens: np.ndarray, eos: int, rule: str, limit: int | None) -> np.ndarray:
    """EOS around a text. `both`: after it, unless it ends so; then before it, unless it begins so or is `limit` long.

    A text of `limit` tokens stays bare; `append` puts EOS after it only; `none` changes nothing.
    """
    room = None if limit is None else limit - len(tokens)
    if rule in ("both", "append") and tokens[-1] != eos and room != 0:
        tokens = np.append(tokens, np.uint32(eos))
        room = None if room is None else room - 1
    if rule == "both" and tokens[0] != eos and room != 0:
        tokens = np.append(np.uint32(eos), tokens)
    return tokens


def encoded(context: InsertionContext, entries: Sequence[Entry], field: str) -> list[np.ndarray]:
    """The tokens of each entry, uint32. UserError under `field` for one without any, or beyond the vocabulary."""
    texts = [entry.text for entry in entries if entry.tokens is None]
    runs = iter(context.encode(texts) if texts else [])
    out = []
    for entry in entries:
        tokens = np.asarray(next(runs) if entry.tokens is None else entry.tokens, dtype=np.uint32)
        if not len(tokens):
            raise UserError(f"{entry.origin} has no tokens", key=field, value=entry.text, fix="remove it")
        check_vocabulary(tokens, context, entry.origin, field)
        out.append(tokens)
    return out


def check_vocabulary(tokens: np.ndarray, context: InsertionContext, origin: str, field: str) -> None:
    """UserError under `field` where one of the tokens lies beyond the vocabulary. origin: for the message."""
    limit = context.vocab_size
    if limit is not None and len(tokens) and int(tokens.max()) >= limit:
        problem = f"{origin} holds token {int(tokens.max())}, the vocabulary has {limit}"
        raise UserError(problem, key=field, fix="tokenize it with the tokenizer of this model")


def note_long(
    context: InsertionContext, planting: Planting, long: list[tuple[Entry, int]], field: str, notes: list[str]
) -> None:
    """Notes the texts that are longer than a sequence; UserError where the policy is `error`."""
    entry, length = max(long, key=lambda pair: pair[1])
    text = (
        f"{len(long):,} texts are longer than a sequence of {context.sequence_length:,} tokens, the longest "
        f"{length:,} ({entry.origin})"
    )
    if planting.too_long == "error":
        fix = "shorten them, or set too_long: split, truncate or skip"
        raise UserError(text, key="too_long", value=planting.too_long, fix=fix)
    notes.append(f"{text}: {planting.too_long}")


def pieces(tokens: np.ndarray, context: InsertionContext, planting: Planting, too_long: bool) -> list[np.ndarray]:
    """What is planted of one text: itself with its EOS, the first S tokens of it, or consecutive pieces of it."""
    size, eos, rule = context.sequence_length, context.eos_token_id, planting.eos_rule
    if planting.mode == "explicit":
        return [wrap_eos(tokens, eos, rule, None)]
    if not too_long:
        return [wrap_eos(tokens, eos, rule, size)]
    if planting.too_long == "truncate":
        return [tokens[:size]]
    if planting.too_long == "split":
        whole = wrap_eos(tokens, eos, rule, None)
        return [whole[i : i + size] for i in range(0, len(whole), size)]
    return [tokens]
