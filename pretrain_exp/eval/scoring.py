"""The one place where log-likelihoods are computed: token sequences in, log-probabilities or their sums out.

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

import numpy as np
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


class TokenLikelihoods(NamedTuple):
    """Of each scored token, (scored,) each: its log-probability [nats]; whether it was the most probable one.

    mean, sd: of the log-probabilities of all tokens that could have stood there, under the model's own distribution;
    empty unless asked for.
    """

    log_probs: np.ndarray
    right: np.ndarray
    mean: np.ndarray
    sd: np.ndarray


def log_likelihoods(
    model: PreTrainedModel,
    spans: Sequence[Span],
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Likelihood]:
    """The log-likelihood of each span, in the order given, as `token_likelihoods` has it token by token."""
    found = token_likelihoods(model, spans, batch_size, progress)
    return [Likelihood(float(each.log_probs.sum()), bool(each.right.all())) for each in found]


def token_likelihoods(
    model: PreTrainedModel,
    spans: Sequence[Span],
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
    moments: bool = False,
) -> list[TokenLikelihoods]:
    """The log-likelihoods of each span's scored tokens. Spans with the same input are computed once.

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
    results: list[TokenLikelihoods | None] = [None] * len(spans)
    done = 0
    for rows in _batches(inputs, kept, batch_size, vocabulary):
        members = [(row - rows.start, index) for row in rows for index in shared[inputs[row]]]
        batch = _score(model, inputs[rows.start : rows.stop], [(row, spans[index]) for row, index in members], moments)
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
    model: PreTrainedModel, inputs: Sequence[tuple[int, ...]], members: Sequence[tuple[int, Span]], moments: bool
) -> list[TokenLikelihoods]:
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

    counts = [scored for _, (_, scored) in members]
    log_probs = -cross_entropy(picked, targets, reduction="none").double().cpu()
    columns = [log_probs, (picked.argmax(dim=-1) == targets).cpu(), *(_moments(picked) if moments else ())]
    parts = zip(*(column.split(counts) for column in columns), strict=True)
    none = torch.empty(0)
    return [TokenLikelihoods(*(each.numpy() for each in (*part, none, none)[:4])) for part in parts]


def _moments(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of log p(v) under v ~ p; (N, V) -> (N,), (N,)."""
    log_probs = logits.log_softmax(-1)
    probs = log_probs.exp()
    mean = (probs * log_probs).sum(-1, keepdim=True)
    variance = (probs * (log_probs - mean) ** 2).sum(-1)
    return mean[:, 0].double().cpu(), variance.sqrt().double().cpu()


def _logits(model: PreTrainedModel, tokens: torch.Tensor, keep: int) -> torch.Tensor:
    """Logits of the last `keep` columns; models that cannot leave out the others compute all."""
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        return model(tokens, use_cache=False, logits_to_keep=keep).logits
    return model(tokens, use_cache=False).logits[:, -keep:]
