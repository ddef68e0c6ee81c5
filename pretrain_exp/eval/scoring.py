"""The one place where log-likelihoods are computed: token sequences in, sums of log-probabilities out.

    tokens   c c c c c x x x         scored = 3: the x are scored, given all before them
    input    c c c c c x x           right-padded, longest sequences first, no attention mask: attention is causal,
    logits         .  . .            so nothing that is scored sees the padding, whatever the positions are made of

Logits are computed for the positions that are scored only, which matters where the vocabulary is large. Batches hold
sequences of similar length; in float32 a score moves by less than 1e-4 nats with the batch size (rounding alone).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

MAX_LOGITS = 2**26  # logits of one batch, in numbers (256 MiB in float32)


class Span(NamedTuple):
    """A sequence of tokens of which the last `scored` ones are scored, given all those before."""

    tokens: Sequence[int]
    scored: int


class Likelihood(NamedTuple):
    log_likelihood: float  # nats, summed over the scored tokens
    greedy: bool  # whether each of them was the most probable one


def log_likelihoods(
    model: PreTrainedModel,
    spans: Sequence[Span],
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Likelihood]:
    """The log-likelihood of each span, in the order given. Spans with the same input are computed once.

    batch_size: sequences at once, fewer where their logits would not fit into MAX_LOGITS.
    progress:   called with (spans done, spans in all) after each batch.
    Raises ValueError where nothing is to be scored, or nothing precedes what is.
    """
    for index, (tokens, scored) in enumerate(spans):
        if not 1 <= scored < len(tokens):
            raise ValueError(f"span {index}: cannot score {scored} of {len(tokens)} tokens")
    shared: dict[tuple[int, ...], list[int]] = {}
    for index, (tokens, _) in enumerate(spans):
        shared.setdefault(tuple(tokens[:-1]), []).append(index)

    inputs = sorted(shared, key=lambda tokens: (-len(tokens), tokens))
    kept = [max(spans[index].scored for index in shared[tokens]) for tokens in inputs]
    vocabulary = int(model.get_output_embeddings().weight.shape[0])
    results: list[Likelihood | None] = [None] * len(spans)
    done = 0
    for rows in _batches(inputs, kept, batch_size, vocabulary):
        members = [(row - rows.start, index) for row in rows for index in shared[inputs[row]]]
        batch = _score(model, inputs[rows.start : rows.stop], [(row, spans[index]) for row, index in members])
        for (_, index), result in zip(members, batch, strict=True):
            results[index] = result
        done += len(members)
        if progress:
            progress(done, len(spans))
    return [result for result in results if result is not None]


def _batches(
    inputs: Sequence[tuple[int, ...]], kept: Sequence[int], batch_size: int, vocabulary: int
) -> Iterator[range]:
    """Consecutive rows, at most `batch_size` of them and MAX_LOGITS logits in all."""
    start = 0
    while start < len(inputs):
        stop, window = start, 0
        while stop < min(start + batch_size, len(inputs)):
            padding = len(inputs[start]) - len(inputs[stop])
            window = max(window, kept[stop] + padding)
            if stop > start and window * (stop + 1 - start) * vocabulary > MAX_LOGITS:
                break
            stop += 1
        yield range(start, stop)
        start = stop


@torch.inference_mode()
def _score(
    model: PreTrainedModel, inputs: Sequence[tuple[int, ...]], members: Sequence[tuple[int, Span]]
) -> list[Likelihood]:
    """Score the members, each (its row among the inputs, its span), with one forward pass."""
    length = max(len(tokens) for tokens in inputs)
    padded = torch.tensor([[*tokens, *([0] * (length - len(tokens)))] for tokens in inputs])  # (B, T)

    row: list[int] = []
    column: list[int] = []
    target: list[int] = []
    for index, (tokens, scored) in members:
        row += [index] * scored
        column += range(len(tokens) - 1 - scored, len(tokens) - 1)
        target += tokens[-scored:]
    first = min(column)
    logits = _logits(model, padded.to(model.device), keep=length - first)  # (B, K, V), of the last K columns
    picked = logits[row, [position - first for position in column]].float()  # (N, V)
    targets = torch.tensor(target, device=picked.device)  # (N,)

    nll = cross_entropy(picked, targets, reduction="none").double().cpu()
    hit = (picked.argmax(dim=-1) == targets).cpu()
    counts = [scored for _, (_, scored) in members]
    return [
        Likelihood(-float(part.sum()), bool(hits.all()))
        for part, hits in zip(nll.split(counts), hit.split(counts), strict=True)
    ]


def _logits(model: PreTrainedModel, tokens: torch.Tensor, keep: int) -> torch.Tensor:
    """Logits of the last `keep` columns; models that cannot leave out the others compute all."""
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        return model(tokens, use_cache=False, logits_to_keep=keep).logits
    return model(tokens, use_cache=False).logits[:, -keep:]
