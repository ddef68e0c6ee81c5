"""The loss on whole token runs: runs in, nats of each out, however long it is.

A run is read after one token that is given and not scored, so each of its tokens is scored exactly once. One longer
than the model's context is cut into windows that do not overlap: a window reads the last token of the one before and
scores as many tokens as the model reads at once.

    scored   |0 1 2 3|4 5 6 7|8 9|      context length 4
    read     |s 0 1 2|3 4 5 6|7 8|      s = the token before
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pretrain_exp.eval.base import EvalContext, LoadedModel


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
    from pretrain_exp.eval.scoring import Span, log_likelihoods

    spans, owners = [], []
    for owner, run in enumerate(runs):
        for before, scored in windows(run, length):
            spans.append(Span([before, *scored], len(scored)))
            owners.append(owner)
    nats = [0.0] * len(runs)
    likelihoods = log_likelihoods(model.model, spans, batch_size, context.progress)
    for owner, likelihood in zip(owners, likelihoods, strict=True):
        nats[owner] -= likelihood.log_likelihood
    return nats
