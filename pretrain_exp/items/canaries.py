"""Canaries: pools of tokens in, runs of tokens that follow on nothing out.

    carrier "Cells were grown in ..."  |  canary: tokens drawn from a pool, each equally likely

    rare      token types that the data hold least often        random    all types that the data hold
    unlikely  types that a checkpoint expects least             plain     no canary: the carrier is what is scored

A pool is part of the plan as a probe, so that `eval=exposure` draws other canaries from the same distribution. Token j
of a canary is a hash of (seed, kind, length, number, j); nothing moves when kinds, lengths or repetitions are added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from pretrain_exp.data.order import DataOrder
from pretrain_exp.errors import UserError
from pretrain_exp.plan.hashing import key64, mix

CanaryKind = Literal["plain", "rare", "random", "unlikely"]
CANARY, POOL = "canary", "canary_pool"  # kinds of payload

_SAMPLED = 512  # sequences in which token types are counted
_CONTEXTS = 64  # carriers after which a checkpoint is asked what it expects
_PROBE = "Reading x, k times, at step t: 1 + 1 = 2."


def canary(pool: np.ndarray, length: int, *key: str | int) -> np.ndarray:
    """`length` tokens drawn from a pool, each token of it equally likely, uint32."""
    words = mix(np.array([key64("canary", *key)], dtype=np.uint64), np.arange(length))
    return pool[words % np.uint64(len(pool))]


def alternatives(own: np.ndarray, pool: np.ndarray, count: int, *key: str | int) -> list[np.ndarray]:
    """`count` other canaries of the same length and pool, all different; fewer where there are no more."""
    if len(own) == 1:
        others = pool[pool != own[0]]
        words = mix(np.array([key64("alternative", *key)], dtype=np.uint64), others)
        return list(others[np.argsort(words)[:count], None])
    wanted = min(count, len(pool) ** len(own) - 1)
    found: dict[tuple[int, ...], np.ndarray] = {tuple(own.tolist()): own}
    number = 0
    while len(found) <= wanted:
        drawn = canary(pool, len(own), "alternative", *key, number)
        found.setdefault(tuple(drawn.tolist()), drawn)
        number += 1
    return list(found.values())[1:]


def token_counts(order: DataOrder, slots: range, eos: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Token types of a sample of the run's sequences, ascending, without EOS, and how often each occurs there."""
    chosen = sorted({slots[key64("sample", seed, i) % len(slots)] for i in range(_SAMPLED)})
    types, counts = np.unique(np.concatenate([order.read(slot) for slot in chosen]), return_counts=True)
    kept = types != eos
    return types[kept].astype(np.uint32), counts[kept]


def rarest(types: np.ndarray, score: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The share of the types with the lowest score, ties by hash, ascending."""
    keys = mix(np.full(len(types), key64("rare", seed), dtype=np.uint64), types)
    return np.sort(types[np.lexsort((keys, score))[: max(2, round(share * len(types)))]])


def expected_least(
    checkpoint: str, texts: Sequence[np.ndarray], types: np.ndarray, share: float, seed: int,
    encode: Callable[[list[str]], list[np.ndarray]],) -> np.ndarray:  # fmt: skip
    """The share of the types with the lowest mean log-probability after the carriers.

    checkpoint: folder or hub name; UserError where it cannot be loaded, or reads text as other tokens.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    except OSError as error:
        raise UserError(f"the model cannot be loaded: {error}", key="checkpoint", value=checkpoint) from None
    if tokenizer(_PROBE, add_special_tokens=False)["input_ids"] != encode([_PROBE])[0].tolist():
        fix = "take a checkpoint with the tokenizer of this run"
        raise UserError("the model has another tokenizer", key="checkpoint", value=checkpoint, fix=fix)
    total = np.zeros(len(types))
    with torch.inference_mode():
        for tokens in texts[:_CONTEXTS]:
            logits = model(torch.from_numpy(tokens.astype(np.int64))[None]).logits[0, -1]  # (V,)
            total += logits.double().log_softmax(-1).numpy()[types.astype(np.int64)]
    return rarest(types, total, share, seed)
