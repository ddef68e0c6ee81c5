"""How likely a model goes on with a given text: (prompt, target) pairs in, the log-probability of each target out.

Prompt, a blank and target are encoded as one text, so the target has the tokens it has where it is read; what is scored
begins where these tokens leave those of the prompt alone. The start token precedes the prompt.

    prompt "The river is the"  target "Dextaa"    <s> |The| river| is| the| De|xta|a|
                                                                          scored
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import NamedTuple

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import LoadedModel
from pretrain_exp.items.choice import DELIMITER


class TargetScore(NamedTuple):
    log_prob: float  # nats, of all its tokens together
    tokens: int
    exact: bool  # whether each token was the most probable one, given those before it


def score_targets(
    model: LoadedModel,
    pairs: Sequence[tuple[str, str]],
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[TargetScore], int]:
    """The score of each pair's target, and of how many prompts the beginning was left out for want of context.

    Raises UserError for a target that is longer than the model's context.
    """
    wholes = [(prompt, prompt + DELIMITER + target) for prompt, target in pairs]
    return score_ends(model, wholes, batch_size, progress)


def score_ends(
    model: LoadedModel,
    pairs: Sequence[tuple[str, str]],
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[TargetScore], int]:
    """The same of (beginning, whole text) pairs: what follows the beginning is scored, all of it where that is ""."""
    from pretrain_exp.eval.scoring import Span, log_likelihoods

    whole = encode(model, [text for _, text in pairs])
    alone = encode(model, [beginning for beginning, _ in pairs])
    spans, shortened, limit = [], 0, model.context_length + 1  # the last token is predicted, never read
    for (_, text), tokens, prompt in zip(pairs, whole, alone, strict=True):
        shared = sum(1 for _ in takewhile(lambda two: two[0] == two[1], zip(tokens, prompt, strict=False)))
        scored = len(tokens) - shared
        if scored >= limit:
            problem = f"a target has {scored} tokens, the model reads {model.context_length} at once"
            raise UserError(problem, value=text, fix="use a model with a longer context, or shorter targets")
        spans.append(Span([model.start_token, *tokens][-limit:], scored))
        shortened += len(tokens) + 1 > limit
    likelihoods = log_likelihoods(model.model, spans, batch_size, progress)
    scores = [
        TargetScore(likelihood.log_likelihood, span.scored, likelihood.greedy)
        for likelihood, span in zip(likelihoods, spans, strict=True)
    ]
    return scores, shortened


def encode(model: LoadedModel, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text, without special ones."""
    return model.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
