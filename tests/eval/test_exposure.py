"""Exposure against its definition, computed from plain logits; under the null; and after the canaries were read."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pretrain_exp.eval.base import EvalContext, LoadedModel
from pretrain_exp.eval.exposure import Exposure, planted_canaries
from pretrain_exp.items.canaries import alternatives, canary
from pretrain_exp.items.planned import PlannedItems, PlantedText

EOS = 0
POOL = np.arange(400, 700, dtype=np.uint32)


def texts(tokenizer: Any, count: int = 12, length: int = 3, eos: bool = True) -> list[PlantedText]:
    """Canaries after carriers, every other one planted, and their pool."""
    out = [PlantedText("c", "pool/rare", POOL, payload={"kind": "canary_pool", "type": "rare"}, probe=True)]
    for i in range(count):
        carrier = tokenizer.encode(f"The {i}th plant needs light to make its own food.")
        run = [*[EOS] * eos, *carrier, *canary(POOL, length, i).tolist(), *[EOS] * eos]
        span = [len(run) - length - eos, len(run) - eos]
        payload = {"kind": "canary", "type": "rare", "span": span}
        out.append(PlantedText("c", f"{i}", np.array(run, np.uint32), f"rare/{length}", i % 2, payload))
    return out


def values(model: LoadedModel, given: list[PlantedText], **fields: Any) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for score in Exposure(**fields).run(model, EvalContext(texts=given)):
        assert score.task == "c"
        found.setdefault(score.item, {})[score.metric] = score.value
    return found


@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_it_is_the_rank_among_alternatives(
    model: LoadedModel, tokenizer: Any, naive: Callable[..., float], batch_size: int, eos: bool
) -> None:
    given = texts(tokenizer, 3, eos=eos)
    found = values(model, given, candidates=16, batch_size=batch_size)
    for each in planted_canaries(given):
        tokens = each.text.tokens.tolist()
        own, before = tokens[each.span], tokens[: each.span.start]
        before = before if eos else [EOS, *before]
        others = alternatives(np.array(own, np.uint32), POOL, 15, each.text.item)
        mine = naive(model, before, own)
        rank = 1 + sum(naive(model, before, other.tolist()) >= mine for other in others)
        assert found[each.text.item] == {
            "exposure": pytest.approx(4 - np.log2(rank)),
            "canary_ce": pytest.approx(-mine / 3, abs=1e-4),
        }


def test_what_was_never_read_has_the_exposure_of_chance(models: Any, tokenizer: Any) -> None:
    """Ranks of 60 canaries are uniform over 1 to 8: the mean of 3 - log2 rank is 1.0875, its standard error 0.12."""
    found = values(models["absolute"], texts(tokenizer, 60, length=1), candidates=8)
    expected = 3 - np.log2(np.arange(1, 9))
    mean = np.mean([row["exposure"] for row in found.values()])
    assert abs(mean - expected.mean()) < 4 * expected.std() / np.sqrt(60)


def test_what_was_read_is_exposed(models: Any, tokenizer: Any) -> None:
    import torch

    model = LoadedModel(copy.deepcopy(models["rotary"].model), tokenizer)
    given = texts(tokenizer)
    optimizer = torch.optim.AdamW(model.model.parameters(), lr=3e-3)
    for _ in range(15):
        for each in given[1:]:
            if each.dose:
                row = torch.from_numpy(each.tokens.astype(np.int64))[None]
                model.model(input_ids=row, labels=row).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
    found = values(model, given, candidates=64)
    read, other = ([found[each.item]["exposure"] for each in given[1:] if each.dose == dose] for dose in (1, 0))
    assert min(read) == 6.0  # log2 64: none of 63 alternatives is as likely
    assert np.mean(other) < 4.5


def test_what_cannot_be_scored_is_said(models: Any, tokenizer: Any) -> None:
    context = EvalContext(texts=[])
    assert Exposure().run(models["rotary"], context) == []
    assert "no canaries" in context.notes[0]
    long = texts(tokenizer, 1)
    tokens = np.concatenate([np.repeat(long[1].tokens[:1], 95), POOL[:3]])
    payload = {"kind": "canary", "type": "rare", "span": [95, 98]}
    far = PlantedText("c", "far", tokens, "rare/3", 1, payload)
    context = EvalContext(texts=[*long, far])
    assert {score.item for score in Exposure(candidates=4).run(models["rotary"], context)} == {"0"}
    assert "beyond the model's context" in context.notes[0]


def test_the_fingerprint_is_of_canaries_pools_and_candidates(tokenizer: Any) -> None:
    one, two = (PlannedItems(texts=texts(tokenizer, n)) for n in (3, 4))
    narrow = texts(tokenizer, 3)
    narrow[0] = PlantedText("c", "pool/rare", POOL[:-1], payload=narrow[0].payload, probe=True)
    known = [Exposure().fingerprint(each) for each in (one, two, PlannedItems(texts=narrow))]
    known.append(Exposure(candidates=9).fingerprint(one))
    assert len({str(each) for each in known}) == 4
    assert Exposure(batch_size=2).fingerprint(one) == known[0]
