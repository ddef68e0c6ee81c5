"""Exposure of canaries: how high a planted canary ranks among others that might have been planted in its place.

    carrier | canary            log p(canary | carrier)           rank 1: no other is more likely
    carrier | alternative 1     ...                               exposure = log2 |R| - log2 rank  [bits]
    carrier | alternative 2     drawn from the pool that the canary was drawn from, by hash of (item, number)

(Carlini et al. 2019, arXiv:1802.08232.) By chance it is 1.44 bits in the limit, log2 |R| at most. Of each canary, dose
0 included: exposure [bits], and canary_ce, its loss [nats per token].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from pretrain_exp.analysis.membership import exposure, rank_among
from pretrain_exp.eval.base import EvalContext, LoadedModel, Score
from pretrain_exp.items.canaries import CANARY, POOL, alternatives
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.items.content import content_id
from pretrain_exp.items.planned import PlannedItems, PlantedText
from pretrain_exp.plan.digest import row_digest

VERSION = 1  # of what the numbers mean; raised when they change


class Planted(NamedTuple):
    """A canary in its carrier, and the tokens that it was drawn from."""

    text: PlantedText
    span: slice
    pool: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """candidates: size of R, the canary and its alternatives. batch_size: sequences at once."""

    candidates: Annotated[int, Field(ge=2)] = 128
    batch_size: Annotated[int, Field(ge=1)] = 32
    divisible: ClassVar[bool] = True

    def inputs(self) -> list[tuple[str, str]]:
        return []

    def fingerprint(self, items: Sequence[ChoiceItem]) -> dict[str, Any]:
        found = list(planted_canaries(items.texts)) if isinstance(items, PlannedItems) else []
        digests = []
        for each in found:
            runs = (row_digest(run).hex() for run in (each.text.tokens, each.pool))
            digests.append(content_id(each.text.insertion, each.text.item, *runs))
        return {
            "evaluation": "exposure",
            "version": VERSION,
            "candidates": self.candidates,
            "items": content_id(*sorted(digests)),
            "n": len(found),
        }

    def run(self, model: LoadedModel, context: EvalContext) -> list[Score]:
        found = list(planted_canaries(context.texts))
        if not found:
            context.notes.append("the plan holds no canaries: nothing to score")
        found = [each for each in found if context.shard.holds(each.text.insertion, each.text.item)]
        limit = model.context_length + 1  # the last token is predicted, never read
        kept = [each for each in found if each.span.stop <= limit]
        if long := len(found) - len(kept):
            context.notes.append(f"{long} canaries end beyond the model's context and have no score")
        scores: list[Score] = []
        few = 0
        for done, each in enumerate(kept):
            log_probs = self._log_probs(model, each)
            few += len(log_probs) < self.candidates
            rank = rank_among(log_probs[0], log_probs[1:])
            values = {
                "exposure": float(exposure(rank, len(log_probs))),
                "canary_ce": -float(log_probs[0]) / (each.span.stop - each.span.start),
            }
            scores += [Score(each.text.insertion, each.text.item, metric, value) for metric, value in values.items()]
            context.progress(done + 1, len(kept))
        if scores:
            most = math.log2(self.candidates)
            context.notes.append(f"exposure among {self.candidates} candidates is {most:.2f} bits at most")
        if few:
            context.notes.append(f"{few} canaries have fewer candidates than that: their pools hold no more")
        return scores

    def _log_probs(self, model: LoadedModel, each: Planted) -> np.ndarray:
        """Of the canary, then of its alternatives, each after the carrier: float64 (|R|,) [nats]."""
        from pretrain_exp.eval.scoring import Span, log_likelihoods

        tokens = each.text.tokens.astype(np.int64)
        own, before = tokens[each.span], tokens[: each.span.start].tolist()
        if not before or before[0] != model.tokenizer.eos_token_id:
            before = [model.start_token, *before][-(model.context_length + 1 - len(own)) :]
        others = alternatives(own.astype(np.uint32), each.pool, self.candidates - 1, each.text.item)
        spans = [Span([*before, *run.tolist()], len(own)) for run in (own, *others)]
        return np.array([found.log_likelihood for found in log_likelihoods(model.model, spans, self.batch_size)])


def planted_canaries(texts: Sequence[PlantedText]) -> Iterator[Planted]:
    """The canaries of a plan with their pools; a text of kind plain has none."""
    pools = {
        (text.insertion, text.payload["type"]): text.tokens
        for text in texts
        if text.payload is not None and text.payload["kind"] == POOL
    }
    for text in texts:
        fields = text.payload or {}
        if fields.get("kind") == CANARY and "span" in fields:
            yield Planted(text, slice(*fields["span"]), pools[text.insertion, fields["type"]])
