"""Verbatim memorization: the texts of a plan in, what greedy decoding and sampling would give back of them out.

    start token | prefix tokens (given) | suffix tokens (to be given back) | rest

    exact        1 where greedy decoding completes the prefix to the very suffix (25 + 25 tokens: Carlini et al. 2023)
    right        share of suffix tokens that are the most probable ones, given all true tokens before them
    suffix_nll   negative log-probability of the suffix, given the prefix [nats]
    discoverable probability that at least one of n samples is the suffix (Hayes et al. 2025)
    strength     1 - (shortest prefix that greedy decoding completes to the end) / length, over the whole text

Up to its first error, greedy decoding reads the true tokens; so one forward pass decides, and nothing is generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from pretrain_exp.analysis.memorization import discoverable, extraction_strength
from pretrain_exp.eval.base import EvalContext, LoadedModel, Score
from pretrain_exp.eval.planted_runs import identity, planted_runs
from pretrain_exp.eval.text_loss import Run, token_scores
from pretrain_exp.items.choice import ChoiceItem

VERSION = 1  # of what the numbers mean; raised when they change


@dataclass(frozen=True, kw_only=True)
class Verbatim:
    """prefix, suffix: tokens. n: samples that `discoverable` may draw. batch_size: texts at once.

    A text shorter than prefix + suffix is not scored, and counted in a note; strength looks at as many tokens as the
    model reads at once.
    """

    prefix: Annotated[int, Field(ge=1)] = 25
    suffix: Annotated[int, Field(ge=1)] = 25
    n: Annotated[int, Field(ge=1)] = 100
    batch_size: Annotated[int, Field(ge=1)] = 16

    def inputs(self) -> list[tuple[str, str]]:
        return []

    def fingerprint(self, items: Sequence[ChoiceItem]) -> dict[str, Any]:
        sizes = {"prefix": self.prefix, "suffix": self.suffix, "samples": self.n}
        return {"evaluation": "verbatim", "version": VERSION, **sizes, **identity(items)}

    def run(self, model: LoadedModel, context: EvalContext) -> list[Score]:
        needed, limit = self.prefix + self.suffix, model.context_length
        texts = [
            (text, Run(run.before, _without_eos(run.scored, model)[:limit]))
            for text, run in planted_runs(model, context)
        ]
        scored = [(text, run) for text, run in texts if len(run.scored) >= needed]
        if short := len(texts) - len(scored):
            context.notes.append(f"{short} texts have fewer than {needed} tokens (or the model reads fewer): no score")
        found = token_scores(model, [run for _, run in scored], limit, self.batch_size, context)
        scores: list[Score] = []
        for (text, _), tokens in zip(scored, found, strict=True):
            part = slice(self.prefix, needed)
            nll = -float(tokens.log_probs[part].sum())
            values = {
                "exact": float(tokens.right[part].all()),
                "right": float(tokens.right[part].mean()),
                "suffix_nll": nll,
                "discoverable": float(discoverable(-nll, self.n)),
                "strength": extraction_strength(tokens.right),
            }
            scores += [Score(text.insertion, text.item, metric, value) for metric, value in values.items()]
        return scores


def _without_eos(tokens: Sequence[int], model: LoadedModel) -> Sequence[int]:
    """An EOS at the end says that a text is over, and is no part of it."""
    return tokens[:-1] if len(tokens) > 1 and tokens[-1] == model.tokenizer.eos_token_id else tokens
