"""The loss on planted texts: every item of the plan that is neither multiple choice nor a probe in, its loss out.

The tokens are those that were planted, EOS and truncation included, at every dose; an item of dose 0 is a holdout.
A run that begins with EOS is read from that token, as it was in training; any other is read after the start token.

    planted   eos  a  b  c  eos             planted   a  b  c
    scored         a  b  c  eos             scored    a  b  c      after BOS, or EOS where there is none

Metrics per item; its task is the insertion that plants it:

    nll            negative log-likelihood of the scored tokens [nats]
    tokens         how many are scored
    ce             nll / tokens [nats per token]
    bytes          of their text in UTF-8, special tokens left out
    bits_per_byte  nll / (ln 2 * bytes); not given for a run without text
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from pretrain_exp.eval.base import EvalContext, LoadedModel, Score
from pretrain_exp.eval.planted_runs import identity, plain_text, planted_runs
from pretrain_exp.eval.text_loss import losses
from pretrain_exp.items.choice import ChoiceItem

VERSION = 1  # of what the numbers mean; raised when they change


@dataclass(frozen=True, kw_only=True)
class PlantedTexts:
    """Scores the texts and token runs of a plan, all doses. batch_size: windows at once."""

    batch_size: Annotated[int, Field(ge=1)] = 16
    divisible: ClassVar[bool] = True

    def inputs(self) -> list[tuple[str, str]]:
        return []

    def fingerprint(self, items: Sequence[ChoiceItem]) -> dict[str, Any]:
        return {"evaluation": "planted_texts", "version": VERSION, **identity(items)}

    def run(self, model: LoadedModel, context: EvalContext) -> list[Score]:
        scored = planted_runs(model, context)
        nats = losses(model, [run for _, run in scored], model.context_length, self.batch_size, context)
        scores: list[Score] = []
        for (text, run), nll in zip(scored, nats, strict=True):
            size, count = len(plain_text(model, run).encode("utf-8")), len(run.scored)
            values = {"nll": nll, "tokens": count, "ce": nll / count, "bytes": size}
            values |= {"bits_per_byte": nll / (math.log(2) * size)} if size else {}
            scores += [Score(text.insertion, text.item, metric, float(value)) for metric, value in values.items()]
        return scores
