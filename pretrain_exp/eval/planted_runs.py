"""The texts of a plan as runs to be scored: what is planted or held out in, tokens with what precedes them out.

A run that begins with EOS is read from that token, as it was in training; any other is read after the start token.
"""

from __future__ import annotations

from collections.abc import Sequence

from pretrain_exp.eval.base import EvalContext, LoadedModel
from pretrain_exp.eval.text_loss import Run
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.items.content import content_id
from pretrain_exp.items.planned import DOCUMENT, PART, REMOVED, PlannedItems, PlantedText
from pretrain_exp.plan.digest import row_digest


def planted(texts: Sequence[PlantedText]) -> list[PlantedText]:
    """Those that are planted, or held out; and documents that are planted in parts, instead of the parts, or removed.

    Other probes ask about others and have evaluations of their own.
    """
    kinds = [(text.payload or {}).get("kind") for text in texts]
    whole = (DOCUMENT, REMOVED)
    return [t for t, kind in zip(texts, kinds, strict=True) if kind != PART and (kind in whole or not t.probe)]


def planted_runs(model: LoadedModel, context: EvalContext) -> list[tuple[PlantedText, Run]]:
    """Every text of the plan with the run that is scored of it. What is left out is said in the notes."""
    texts = planted(context.texts)
    if not texts:
        context.notes.append("the plan holds no texts beside multiple-choice items: nothing to score")
    runs = [(text, _run(text, model)) for text in texts if context.shard.holds(text.insertion, text.item)]
    kept = [(text, run) for text, run in runs if run.scored]
    if alone := len(runs) - len(kept):
        context.notes.append(f"{alone} items are a single EOS, which nothing precedes, and have no score")
    return kept


def identity(items: Sequence[ChoiceItem]) -> dict[str, object]:
    """What a fingerprint says of the texts."""
    texts = planted(items.texts) if isinstance(items, PlannedItems) else []
    digests = sorted(content_id(text.insertion, text.item, row_digest(text.tokens).hex()) for text in texts)
    return {"items": content_id(*digests), "n": len(texts)}


def plain_text(model: LoadedModel, run: Run) -> str:
    """What a run says, special tokens left out."""
    return str(model.tokenizer.decode(list(run.scored), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _run(text: PlantedText, model: LoadedModel) -> Run:
    tokens = text.tokens.tolist()
    if tokens[0] == model.tokenizer.eos_token_id:
        return Run(tokens[0], tokens[1:])
    return Run(model.start_token, tokens)
