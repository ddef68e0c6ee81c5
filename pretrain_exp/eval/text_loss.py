"""The loss on whole token runs: runs in, nats of each or of each of its tokens out, however long it is.

A run is read after one token that is given and not scored, so each of its tokens is scored exactly once. One longer
than the model's context is cut into windows that do not overlap: a window reads the last token of the one before and
scores as many tokens as the model reads at once.

    scored   |0 1 2 3|4 5 6 7|8 9|      context length 4
    read     |s 0 1 2|3 4 5 6|7 8|      s = the token before
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pretrain_exp.eval.base import EvalContext, LoadedModel

if TYPE_CHECKING:
    from pretrain_exp.eval.scoring import TokenLikelihoods


class Run(NamedTuple):
    """Tokens to score, one at least, and the token before them."""

    before: int
    scored: Sequence[int]


def windows(run: Run, length: int) -> Iterator[Run]:
    """Consecutive parts of at most `length` tokens, which together score each token once."""
    tokens = run.scored
    for start in range(0, len(tokens), length):
        yield Run(tokens[start - 1] if start else run.before, tokens[start : start + length])


def losses(model: LoadedModel, runs: Sequence[Run], length: int, batch_size: int, context: EvalContext) -> list[float]:
    """Negative log-likelihood [nats] of each run. length: tokens to read at once; batch_size: windows at once."""
    return [-float(each.log_probs.sum()) for each in token_scores(model, runs, length, batch_size, context)]


def token_scores(
    model: LoadedModel,
    runs: Sequence[Run],
    length: int,
    batch_size: int,
    context: EvalContext,
    moments: bool = False,
) -> list[TokenLikelihoods]:
    """Each run token by token, its windows joined. moments: of the model's distribution at each token, as well."""
    from pretrain_exp.eval.scoring import Span, TokenLikelihoods, token_likelihoods

    spans, owners = [], []
    for owner, run in enumerate(runs):
        for before, scored in windows(run, length):
            spans.append(Span([before, *scored], len(scored)))
            owners.append(owner)
    parts: list[list[TokenLikelihoods]] = [[] for _ in runs]
    found = token_likelihoods(model.model, spans, batch_size, context.progress, moments)
    for owner, part in zip(owners, found, strict=True):
        parts[owner].append(part)
    return [TokenLikelihoods(*(np.concatenate(column) for column in zip(*each, strict=True))) for each in parts]
