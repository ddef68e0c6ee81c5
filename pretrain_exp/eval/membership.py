"""Scores by which a membership attack guesses whether a text was read: planted and held-out texts in, scores out.

Each is higher for what is more likely a member; `analysis.membership` says how well members (dose above 0) stand out
from non-members (dose 0) of the same insertion.

    neg_loss     minus the mean loss                                            Yeom et al. 2018
    neg_zlib     minus the mean loss over the bytes of the zlib-compressed text Carlini et al. 2021
    min_k        mean of the lowest k % of token log-probabilities              Shi et al. 2024
    min_k_pp     the same of (log p - mean) / sd of the model's distribution    Zhang et al. 2025
    reference    the reference model's mean loss minus this one's               Carlini et al. 2022

A text of which only a span is of interest (a canary in a dialogue) names it in its payload: `span`: [first, stop) of
its tokens; then only these are scored, given all before them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from pretrain_exp.analysis.membership import min_k
from pretrain_exp.eval.base import EvalContext, LoadedModel, Score
from pretrain_exp.eval.planted_runs import identity, plain_text, planted_runs
from pretrain_exp.eval.reference import load_reference, reference_identity, reference_inputs
from pretrain_exp.eval.text_loss import Run, token_scores
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.items.planned import PlantedText

VERSION = 2  # of what the numbers mean; raised when they change
SMALLEST_SD = 1e-6  # of a distribution that is all but certain


@dataclass(frozen=True, kw_only=True)
class Membership:
    """k: share of the tokens that Min-k % looks at. reference: folder or hub name of a model that never read the texts.

    batch_size: windows at once.
    """

    k: Annotated[float, Field(gt=0, le=1)] = 0.2
    reference: str | None = None
    reference_revision: str | None = None
    batch_size: Annotated[int, Field(ge=1)] = 16
    divisible: ClassVar[bool] = True

    def inputs(self) -> list[tuple[str, str]]:
        return reference_inputs(self.reference)

    def fingerprint(self, items: Sequence[ChoiceItem]) -> dict[str, Any]:
        reference = reference_identity(self.reference, self.reference_revision)
        return {"evaluation": "membership", "version": VERSION, "k": self.k, "reference": reference, **identity(items)}

    def run(self, model: LoadedModel, context: EvalContext) -> list[Score]:
        texts = planted_runs(model, context)
        spans = [_span(text, run) for text, run in texts]
        scored = self._score(model, [run for _, run in texts], context, moments=True)
        losses = self._reference_losses([run for _, run in texts], spans, model, context)
        scores: list[Score] = []
        for (text, run), span, tokens, reference in zip(texts, spans, scored, losses, strict=True):
            log_probs = tokens.log_probs[span]
            normal = (log_probs - tokens.mean[span]) / np.maximum(tokens.sd[span], SMALLEST_SD)
            loss = -float(log_probs.mean())
            said = plain_text(model, Run(run.before, list(run.scored[span])))
            values = {
                "neg_loss": -loss,
                "neg_zlib": -loss / len(zlib.compress(said.encode("utf-8"))),
                "min_k": min_k(log_probs, self.k),
                "min_k_pp": min_k(normal, self.k),
            }
            values |= {} if reference is None else {"reference": reference - loss}
            scores += [Score(text.insertion, text.item, metric, float(value)) for metric, value in values.items()]
        return scores

    def _score(self, model: LoadedModel, runs: Sequence[Run], context: EvalContext, moments: bool) -> list[Any]:
        return token_scores(model, runs, model.context_length, self.batch_size, context, moments)

    def _reference_losses(
        self, runs: Sequence[Run], spans: Sequence[slice], model: LoadedModel, context: EvalContext
    ) -> list[float | None]:
        """Mean loss of each span under the reference model; it must read the tokens of this one's tokenizer."""
        if self.reference is None:
            return [None] * len(runs)
        reference = load_reference(self.reference, self.reference_revision, model)
        scored = self._score(reference, runs, context, moments=False)
        return [-float(tokens.log_probs[span].mean()) for tokens, span in zip(scored, spans, strict=True)]


def _span(text: PlantedText, run: Run) -> slice:
    """The scored tokens that count; a span in a payload counts from the first token as planted."""
    span = (text.payload or {}).get("span")
    if span is None:
        return slice(0, len(run.scored))
    offset = len(text.tokens) - len(run.scored)  # 1 where the text begins with an EOS, which is given
    return slice(max(0, span[0] - offset), span[1] - offset)
