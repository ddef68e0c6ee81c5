"""Verbatim memorization: the texts of a plan in, what greedy decoding and sampling would give back of them out.

    start token | prefix tokens (given) | suffix tokens (to be given back) | rest

    exact        1 where greedy decoding completes the prefix to the very suffix (25 + 25 tokens: Carlini et al. 2023)
    right        share of suffix tokens that are the most probable ones, given all true tokens before them
    suffix_nll   negative log-probability of the suffix, given the prefix [nats]
    discoverable probability that at least one of n samples is the suffix (Hayes et al. 2025)
    strength     1 - (shortest prefix that greedy decoding completes to the end) / length, over the whole text

A text may say itself how much of it is given (`prefix` in its payload, of a document that was removed): then all the
rest must come back. Up to its first error, greedy decoding reads the true tokens; so one forward pass decides, and
nothing is generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from pretrain_exp.analysis.memorization import discoverable, extraction_strength
from pretrain_exp.eval.base import EvalContext, LoadedModel, Score
from pretrain_exp.eval.planted_runs import identity, planted, planted_runs
from pretrain_exp.eval.text_loss import Run, token_scores
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.items.content import content_id
from pretrain_exp.items.planned import PlannedItems, PlantedText

VERSION = 1  # of what the numbers mean; raised when they change


@dataclass(frozen=True, kw_only=True)
class Verbatim:
    """prefix, suffix: tokens. n: samples that `discoverable` may draw. batch_size: texts at once.

    A text that is shorter than prefix + suffix, or of which the model cannot read what is asked of it, is not scored,
    and counted in a note; strength looks at as many tokens as the model reads at once.
    """

    prefix: Annotated[int, Field(ge=1)] = 25
    suffix: Annotated[int, Field(ge=1)] = 25
    n: Annotated[int, Field(ge=1)] = 100
    batch_size: Annotated[int, Field(ge=1)] = 16
    divisible: ClassVar[bool] = True

    def inputs(self) -> list[tuple[str, str]]:
        return []

    def fingerprint(self, items: Sequence[ChoiceItem]) -> dict[str, Any]:
        sizes = {"prefix": self.prefix, "suffix": self.suffix, "samples": self.n}
        own = own_prefixes(items.texts) if isinstance(items, PlannedItems) else {}
        return {"evaluation": "verbatim", "version": VERSION, **sizes, **own, **identity(items)}

    def run(self, model: LoadedModel, context: EvalContext) -> list[Score]:
        limit = model.context_length
        texts, cut = [], 0
        for text, run in planted_runs(model, context):
            said = _without_eos(run.scored, model)
            cut += len(said) > limit
            texts.append((text, Run(run.before, said[:limit]), self._part(text, len(said))))
        scored = [each for each in texts if each[2].start < each[2].stop <= len(each[1].scored)]
        if short := len(texts) - len(scored):
            needed = self.prefix + self.suffix
            context.notes.append(f"{short} texts have fewer than {needed} tokens (or the model reads fewer): no score")
        if cut:
            context.notes.append(f"of {cut} texts the model reads only the first {limit} tokens: strength is of these")
        found = token_scores(model, [run for _, run, _ in scored], limit, self.batch_size, context)
        scores: list[Score] = []
        for (text, _, part), tokens in zip(scored, found, strict=True):
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

    def _part(self, text: PlantedText, size: int) -> slice:
        """The suffix among the `size` tokens of a text."""
        prefix = (text.payload or {}).get("prefix")
        return slice(self.prefix, self.prefix + self.suffix) if prefix is None else slice(prefix, size)


def own_prefixes(texts: Sequence[PlantedText]) -> dict[str, str]:
    """What a fingerprint says of texts that say themselves how much of them is given; nothing where none does."""
    own = [(text, (text.payload or {}).get("prefix")) for text in planted(texts)]
    found = sorted(content_id(text.insertion, text.item, str(prefix)) for text, prefix in own if prefix is not None)
    return {"prefixes": content_id(*found)} if found else {}


def _without_eos(tokens: Sequence[int], model: LoadedModel) -> Sequence[int]:
    """An EOS at the end says that a text is over, and is no part of it."""
    return tokens[:-1] if len(tokens) > 1 and tokens[-1] == model.tokenizer.eos_token_id else tokens
