"""The watermark: the inner product by its definition, N(0, 1) where nothing was planted, below it where it was."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from pretrain_exp.analysis.gaussian import watermark_test
from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext, LoadedModel
from pretrain_exp.eval.gaussian_watermark import GaussianWatermark
from pretrain_exp.items.planned import PlannedItems, PlantedText
from pretrain_exp.plan.overlay import noise_values

VOCAB, SIZE, DIM, ROWS = 64, 32, 32, 16


def payload(slot: int, column: int = 0, length: int = SIZE, seed: int = 5) -> dict[str, Any]:
    return {
        "kind": "gaussian_watermark", "sigma": 0.05, "seed": seed, "slot": slot, "column": column, "length": length
    }  # fmt: skip


def texts(count: int, size: int = SIZE, **fields: int) -> list[PlantedText]:
    rng = np.random.default_rng(0)
    return [
        PlantedText("noise", f"t{i}", rng.integers(1, VOCAB, size).astype(np.uint32), payload=payload(i, **fields))
        for i in range(count)
    ]


def values(model: LoadedModel, planted: list[PlantedText], metric: str = "watermark", **fields: int) -> list[float]:
    scores = GaussianWatermark(**fields).run(model, EvalContext(texts=planted))
    assert len({(score.item, score.metric) for score in scores}) == len(scores)
    return [score.value for score in scores if score.metric == metric]


@pytest.mark.parametrize(("column", "length"), [(0, SIZE), (7, 5)])
def test_it_is_the_directional_derivative_of_the_loss(model: LoadedModel, column: int, length: int) -> None:
    """By differences: how the loss changes towards the noise, over the norm of its gradient on the span."""
    (text,) = texts(1, column=column, length=length)
    network: Any = copy.deepcopy(model.model)
    tokens = torch.from_numpy(text.tokens.astype(np.int64))[None]
    clean = network.get_input_embeddings()(tokens).detach().double()
    towards = torch.zeros_like(clean[0])
    noise = noise_values(5, 0, column, length, clean.shape[2])
    towards[column : column + length] = torch.from_numpy(noise.astype(np.float64))
    exact = network.double()

    def loss(embedded: torch.Tensor) -> torch.Tensor:
        return cross_entropy(exact(inputs_embeds=embedded).logits[0, :-1], tokens[0, 1:], reduction="mean")

    embedded = clean.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(embedded), embedded)
    size = gradient[0, column : column + length].norm()
    step = 1e-6
    with torch.no_grad():
        slope = (loss(clean + step * towards) - loss(clean - step * towards)) / (2 * step)
    assert values(model, [text]) == pytest.approx([float(slope / size)], abs=0.02)  # this model rounds hard in float32


def test_batches_and_lengths_change_nothing(model: LoadedModel) -> None:
    planted = [*texts(5), *(replace(t, item=f"s{i}") for i, t in enumerate(texts(3, size=20, length=20)))]
    one = values(model, planted, batch_size=1)
    assert values(model, planted, batch_size=4) == pytest.approx(one, abs=1e-3)


def test_a_model_that_never_met_the_noise_gives_the_null(models: dict[str, LoadedModel]) -> None:
    planted = texts(400)
    for metric in ("watermark", "watermark_fresh", "watermark_fresh_1"):
        found = watermark_test(values(models["rotary"], planted, metric, fresh=2, batch_size=100))
        assert found.ks_p > 1e-3
        assert found.low < 0.1
        assert found.high > -0.1
        assert found.tpr < 0.03


def test_a_model_that_was_trained_on_it_bears_its_trace() -> None:
    """30 steps, noise on the last 10: the mean lies far below 0, that of fresh noise does not."""
    from transformers import Olmo2Config, Olmo2ForCausalLM

    torch.manual_seed(0)
    rng, sigma = np.random.default_rng(0), 0.05
    config = Olmo2Config(
        vocab_size=VOCAB, hidden_size=DIM, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=SIZE, eos_token_id=0, pad_token_id=None, bos_token_id=None,
    )  # fmt: skip
    network = Olmo2ForCausalLM(config)
    follows = rng.dirichlet(np.full(VOCAB, 0.1), size=VOCAB).cumsum(axis=1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, betas=(0.9, 0.95))
    planted = []
    for step in range(30):
        rows = np.zeros((ROWS, SIZE), dtype=np.int64)
        for column in range(1, SIZE):
            draws = rng.random(ROWS)[:, None]
            rows[:, column] = np.minimum((follows[rows[:, column - 1]] < draws).sum(axis=1), VOCAB - 1)
        tokens = torch.from_numpy(rows)
        embedded = network.get_input_embeddings()(tokens)
        if step >= 20:
            slots = range(step * ROWS, (step + 1) * ROWS)
            noise = np.stack([noise_values(5, slot, 0, SIZE, DIM) for slot in slots])
            embedded = embedded + sigma * torch.from_numpy(noise)
            planted += [
                PlantedText("noise", str(slot), row.astype(np.uint32), payload=payload(slot))
                for slot, row in zip(slots, rows, strict=True)
            ]
        logits = network(inputs_embeds=embedded).logits
        cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    model = LoadedModel(network.eval(), None)  # type: ignore[arg-type]
    trace, fresh = (
        watermark_test(values(model, planted, name, batch_size=80)) for name in ("watermark", "watermark_fresh")
    )
    assert trace.n == 160
    assert trace.high < -0.2
    assert trace.z_p < 1e-5
    assert fresh.z_p > 1e-3
    assert fresh.ks_p > 1e-3


def test_nothing_to_look_for_and_too_much(models: dict[str, LoadedModel]) -> None:
    context = EvalContext(texts=[PlantedText("a", "b", np.arange(3, dtype=np.uint32))])
    assert GaussianWatermark().run(models["rotary"], context) == []
    assert "nothing to look for" in context.notes[0]
    with pytest.raises(UserError, match="1 sequences of up to 200 tokens were planted, and the model reads 96"):
        values(models["rotary"], texts(1, size=200))


def test_the_fingerprint_is_what_changes_the_scores() -> None:
    def name(planted: list[PlantedText], **fields: int) -> str:
        return json.dumps(GaussianWatermark(**fields).fingerprint(PlannedItems((), planted)), sort_keys=True)

    base = name(texts(3))
    assert base == name(texts(3)[::-1], batch_size=1)
    others = [name(texts(4)), name(texts(3), fresh=2), name(texts(3, column=1)), name(texts(3, seed=6))]
    others.append(name([replace(each, tokens=each.tokens + 1) for each in texts(3)]))
    assert len({base, *others}) == 6


def test_the_configuration_is_the_class() -> None:
    import yaml

    text = (Path(__file__).parents[2] / "conf" / "eval" / "gaussian_watermark.yaml").read_text()
    values = yaml.safe_load(text)
    assert values.pop("_target_") == "pretrain_exp.eval.gaussian_watermark.GaussianWatermark"
    assert GaussianWatermark(**values) == GaussianWatermark()
