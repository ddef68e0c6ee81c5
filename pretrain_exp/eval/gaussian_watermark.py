"""The trace of noise on embeddings: planted sequences in, the inner product of their gradients with their noise out.

    tokens --embed--> e (clean) --forward--> mean loss --backward--> g = gradient at the columns that had noise
    n = noise_values(seed, slot, column)                   made again, never stored
    watermark        <g, n> / |g|          N(0, 1) unless the model was trained on e + sigma n
    watermark_fresh  the same with noise that nobody planted: the control that this model and sequence give themselves

Sequences are read as in training, without a start token. See analysis/gaussian.py for the tests and their source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext, LoadedModel, Score
from pretrain_exp.insertion.gaussian_poisoning import KIND
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.items.content import content_id
from pretrain_exp.items.planned import PlannedItems, PlantedText
from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.hashing import key64
from pretrain_exp.plan.overlay import noise_values

VERSION = 1  # of what the numbers mean; raised when they change


@dataclass(frozen=True, kw_only=True)
class GaussianWatermark:
    """Looks for planted noise. fresh: draws of noise that nobody planted, a sequence; batch_size: sequences at once."""

    fresh: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 8
    divisible: ClassVar[bool] = True

    def inputs(self) -> list[tuple[str, str]]:
        return []

    def fingerprint(self, items: Sequence[ChoiceItem]) -> dict[str, Any]:
        texts = _noisy(items.texts) if isinstance(items, PlannedItems) else []
        names = sorted(content_id(t.insertion, t.item, row_digest(t.tokens).hex(), str(t.payload)) for t in texts)
        return {
            "evaluation": "gaussian_watermark",
            "version": VERSION,
            "fresh": self.fresh,
            "items": content_id(*names),
            "n": len(texts),
        }

    def run(self, model: LoadedModel, context: EvalContext) -> list[Score]:
        texts = _noisy(context.texts)
        if not texts:
            context.notes.append("the plan puts noise on no sequence that is scored: nothing to look for")
        long = [text for text in texts if len(text.tokens) > model.context_length]
        if long:
            raise UserError(
                f"{len(long):,} sequences of up to {max(len(text.tokens) for text in long):,} tokens were planted, and "
                f"the model reads {model.context_length:,}",
                fix="evaluate a model that reads what it was trained on",
            )
        texts = [text for text in texts if context.shard.holds(text.insertion, text.item)]
        scores: list[Score] = []
        done = 0
        for batch in _batches(texts, self.batch_size):
            for text, gradient in zip(batch, _gradients(model, batch), strict=True):
                planted, fresh = _products(text, gradient, self.fresh)
                scores.append(Score(text.insertion, text.item, "watermark", planted))
                scores += [
                    Score(text.insertion, text.item, "watermark_fresh" + (f"_{i}" if i else ""), value)
                    for i, value in enumerate(fresh)
                ]
            done += len(batch)
            context.progress(done, len(texts))
        return scores


def _noisy(texts: Sequence[PlantedText]) -> list[PlantedText]:
    return [text for text in texts if text.payload is not None and text.payload["kind"] == KIND]


def _batches(texts: Sequence[PlantedText], size: int) -> Iterator[list[PlantedText]]:
    """Sequences of one length, `size` at once."""
    by_length: dict[int, list[PlantedText]] = {}
    for text in texts:
        by_length.setdefault(len(text.tokens), []).append(text)
    for _, group in sorted(by_length.items()):
        yield from (group[low : low + size] for low in range(0, len(group), size))


def _gradients(model: LoadedModel, batch: Sequence[PlantedText]) -> np.ndarray:
    """The gradient of each sequence's own loss at its clean input embeddings, float64 (B, S, D)."""
    import torch
    from torch.nn.functional import cross_entropy

    tokens = torch.from_numpy(np.stack([text.tokens for text in batch]).astype(np.int64)).to(model.model.device)
    embed: Any = model.model.get_input_embeddings()
    with torch.enable_grad():
        embedded = embed(tokens).detach().requires_grad_()
        logits = model.model(inputs_embeds=embedded, use_cache=False).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, embedded)  # rows do not see each other: each has its own gradient
    return gradient.double().cpu().numpy()


def _products(text: PlantedText, gradient: np.ndarray, fresh: int) -> tuple[float, list[float]]:
    """The inner product with the planted noise, and those with noise of other seeds."""
    payload = text.payload or {}
    seed, slot, column, length = (int(payload[name]) for name in ("seed", "slot", "column", "length"))
    g = gradient[column : column + length]
    size = float(np.linalg.norm(g))
    if not size > 0:
        raise UserError(f"item {text.item} has a gradient of norm {size} at its noise: there is nothing to compare")
    seeds = [seed, *(key64(seed, "fresh", i) >> 1 for i in range(fresh))]
    first, *others = (float((g * noise_values(each, slot, column, length, g.shape[1])).sum()) / size for each in seeds)
    return first, others
