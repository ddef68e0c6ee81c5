"""The probe: log-probabilities of a fixed batch, recorded with every state, demanded of whatever is converted from it.

The tokens depend on nothing but vocabulary and sequence length, so any reader in any environment makes the same batch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pretrain_exp.errors import UserError
from pretrain_exp.store.states import write_json

ROWS, LONGEST = 2, 64
TOLERANCE = {
    "fp32": 2e-4,
    "bf16": 5e-2,
}  # mean absolute difference, nats; bf16 has 8 bits


def probe_tokens(vocab_size: int, sequence_length: int) -> torch.Tensor:
    """(ROWS, <= LONGEST) int64, raw words of Philox (Salmon et al. 2011) under a fixed key."""
    shape = (ROWS, min(sequence_length, LONGEST))
    raw = np.random.Philox(key=[1, 0]).random_raw(shape[0] * shape[1])
    return torch.from_numpy((np.asarray(raw) % np.uint64(vocab_size)).astype(np.int64).reshape(shape))


@dataclass(frozen=True)
class Probe:
    """values: nats, as `log_probabilities` gives them, of the model in this precision."""

    vocab_size: int
    sequence_length: int
    precision: str
    values: list[list[float]]

    def write(self, path: Path) -> None:
        facts = {"vocab_size": self.vocab_size, "sequence_length": self.sequence_length, "precision": self.precision}
        write_json(path, {"schema": 1, **facts, "log_probabilities": self.values})


@torch.no_grad()
def log_probabilities(logits: torch.Tensor, tokens: torch.Tensor) -> list[list[float]]:
    """Nats of each token given those before it, (ROWS, length - 1)."""
    found = logits[:, :-1].float().log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return [[float(f"{value:.9g}") for value in row] for row in found.tolist()]


def check_folder(folder: Path, probe: Path) -> None:
    """UserError where the model in a Hugging Face folder lacks weights, or does not say what the trained one said."""
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    model, found = loaded
    if wrong := sorted([*found["missing_keys"], *found["unexpected_keys"]]):
        raise UserError(f"{len(wrong)} weights do not fit transformers, first {wrong[0]}", value=str(probe.parent))
    check_probe(probe, model.eval())


def check_probe(path: Path, hf: Any) -> None:
    """UserError where a converted model (on the CPU, float32, evaluating) does not say what the trained one said."""
    said = json.loads(path.read_text())
    tokens = probe_tokens(said["vocab_size"], said["sequence_length"])
    with torch.no_grad():
        values = log_probabilities(hf(input_ids=tokens, use_cache=False).logits, tokens)
    off = float(np.abs(np.array(values) - np.array(said["log_probabilities"])).mean())
    allowed = TOLERANCE[said["precision"]]
    if not off <= allowed:
        raise UserError(
            f"the converted model is off by {off:.3g} nats a token on the probe batch, {allowed:g} are allowed",
            value=str(path.parent),
            fix="the state's weights were damaged after training: delete its folder and train it again",
        )
