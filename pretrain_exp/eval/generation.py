"""The one place where text is generated: token prompts in, token continuations out, whatever the batch size.

    prompts   - - a b c     left-padded, longest prompts together; the padding is masked, positions count from the
    and then  . . . . . x   first token of the prompt, so a row reads what it would read alone
              d e f g h y

Greedy, or sampled: then token t of sample k of a prompt is drawn by a number that is a hash of (seed, prompt, k, t) and
nothing else, so samples depend neither on their neighbours nor on the order of the prompts. In float32 the logits of a
row move by rounding alone with its batch (below 1e-4); a token changes only where two candidates are that close.
What the model's own generation_config says (penalties, suppressed tokens, its end of text) is not applied.
Greedy decoding may be vLLM's instead (vllm.py); samples never are, since their tokens are drawn as said here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import LoadedModel
from pretrain_exp.plan.hashing import key64, mix

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to draw tokens. temperature: above 0; top_k: only the k most probable tokens (None: all).

    num: samples a prompt. A prompt that is given twice is sampled anew each time.
    """

    temperature: float = 1.0
    top_k: int | None = None
    seed: int = 0
    num: int = 1

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            problem, fix = "the temperature must be above 0", "leave sampling out to decode greedily"
            raise UserError(problem, key="temperature", value=self.temperature, fix=fix)
        if self.top_k is not None and self.top_k < 1:
            raise UserError("keeps no token", key="top_k", value=self.top_k, fix="choose 1 or more, or null for all")
        if self.num < 1:
            raise UserError("asks for no sample", key="num", value=self.num, fix="choose 1 or more")


def generate(
    model: LoadedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop: Sequence[int] = (),
    batch_size: int = 16,
    sample: Sampling | None = None,
    progress: Progress | None = None,
) -> list[list[int]]:
    """The continuation of each prompt: at most max_new_tokens tokens, cut before the first token that is in `stop`.

    Greedy without `sample`; with it, the samples of a prompt follow each other: index prompt * sample.num + k.
    batch_size: sequences at once. progress: called with (sequences done, sequences in all) after each batch.
    Raises ValueError for an empty prompt, UserError where prompt and continuation exceed the model's context.
    """
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("a prompt without tokens cannot be continued")
    longest = max(map(len, prompts), default=0)
    if longest + max_new_tokens > model.context_length:
        raise UserError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the {model.context_length} tokens that "
            "the model reads at once",
            key="max_new_tokens",
            value=max_new_tokens,
            fix="shorten the prompts (fewer examples before each) or generate fewer tokens",
        )
    copies = sample.num if sample else 1
    rows = [prompt for prompt in prompts for _ in range(copies)]
    keys = _keys(prompts, sample) if sample else [0] * len(rows)
    out: list[list[int]] = [[] for _ in rows]
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    if sample is None and model.generation == "vllm":
        from pretrain_exp.eval.vllm import continuations

        found = continuations(model, prompts, max_new_tokens, stop) if prompts else []
        if progress:
            progress(len(rows), len(rows))
        return [_until(tokens, stop) for tokens in found]
    with _bare(model.model) as config:
        config.max_new_tokens, config.eos_token_id = max_new_tokens, list(stop) or None
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            draw = _Draw(sample, [keys[i] for i in chosen], len(rows[chosen[0]])) if sample else None
            for i, tokens in zip(chosen, _continue(model.model, [rows[i] for i in chosen], config, draw), strict=True):
                out[i] = _until(tokens, stop)
            if progress:
                progress(min(start + batch_size, len(rows)), len(rows))
    return out


def _keys(prompts: Sequence[Sequence[int]], sample: Sampling) -> list[int]:
    """A 64-bit word for each sample of each prompt; repetitions of a prompt are numbered on."""
    seen: Counter[tuple[int, ...]] = Counter()
    keys = []
    for prompt in map(tuple, prompts):
        for _ in range(sample.num):
            keys.append(key64(sample.seed, "sample", " ".join(map(str, prompt)), seen[prompt]))
            seen[prompt] += 1
    return keys


class _Draw(LogitsProcessor):
    """Leaves one token a row: the one at which the cumulative distribution passes a number drawn for (row, token)."""

    def __init__(self, sample: Sampling, keys: Sequence[int], prompt_length: int) -> None:
        self.sample, self.keys, self.start = sample, np.array(keys, dtype=np.uint64), prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """input_ids: (B, T), scores: (B, V) logits -> (B, V)."""
        uniform = (mix(self.keys, input_ids.shape[1] - self.start) >> np.uint64(11)) * 2.0**-53  # in [0, 1)
        logits = scores.double() / self.sample.temperature
        if self.sample.top_k is not None:
            kept = logits.topk(min(self.sample.top_k, logits.shape[1]), dim=-1)
            logits = torch.full_like(logits, -torch.inf).scatter(1, kept.indices, kept.values)
        cumulative = logits.softmax(-1).cumsum(-1)  # (B, V)
        at = torch.as_tensor(uniform, device=scores.device)[:, None] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, at, right=True).clamp(max=logits.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


@torch.inference_mode()
def _continue(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], config: GenerationConfig, draw: _Draw | None
) -> list[list[int]]:
    """Continuations of one batch, stop tokens and what follows them included. The first prompt is the longest."""
    length = len(prompts[0])
    pad = [length - len(prompt) for prompt in prompts]
    tokens = torch.tensor([[0] * n + list(prompt) for n, prompt in zip(pad, prompts, strict=True)])  # (B, T)
    mask = torch.arange(length) >= torch.tensor(pad)[:, None]
    decode: Any = model.generate
    continued = decode(  # it counts positions from the mask
        tokens.to(model.device),
        attention_mask=mask.long().to(model.device),
        generation_config=config,
        logits_processor=LogitsProcessorList([draw] if draw else []),
    )
    return [row[length:] for row in continued.tolist()]


@contextmanager
def _bare(model: PreTrainedModel) -> Iterator[GenerationConfig]:
    """A configuration for plain decoding; while it is used, the model has no generation defaults to mix in."""
    defaults = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield GenerationConfig(do_sample=False, num_beams=1, pad_token_id=0, use_cache=True)
    finally:
        model.generation_config = defaults


def _until(tokens: Sequence[int], stop: Sequence[int]) -> list[int]:
    ends = [i for i, token in enumerate(tokens) if token in stop]
    return list(tokens[: ends[0]] if ends else tokens)
