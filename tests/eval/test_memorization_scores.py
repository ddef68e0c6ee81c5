"""Membership and verbatim scores against their definitions, computed from plain logits and by generating."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
import torch

from pretrain_exp.analysis.membership import auc
from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext, LoadedModel
from pretrain_exp.eval.generation import generate
from pretrain_exp.eval.membership import Membership
from pretrain_exp.eval.verbatim import Verbatim
from pretrain_exp.items.planned import PlannedItems, PlantedText

EOS = 0
TEXT = "Plants need light to make their own food, and so does the alga that colours a pond green in spring."


def text(tokenizer: Any, said: str, name: str, **fields: Any) -> PlantedText:
    return PlantedText("t", name, np.array([EOS, *tokenizer.encode(said), EOS], np.uint32), **fields)


def table(scores: Any) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for score in scores:
        found.setdefault(score.item, {})[score.metric] = score.value
    return found


def plain(model: LoadedModel, tokens: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probability of each token after the first, and mean and sd of the distribution it was drawn from."""
    with torch.no_grad():
        rows = model.model(torch.tensor([tokens])).logits[0, :-1].double().log_softmax(-1)
    p = rows.exp()
    mean = (p * rows).sum(-1)
    sd = ((p * rows**2).sum(-1) - mean**2).sqrt()
    return rows[torch.arange(len(rows)), tokens[1:]].numpy(), mean.numpy(), sd.numpy()


@pytest.mark.parametrize("batch_size", [1, 4])
def test_membership_is_what_it_is_defined_as(model: LoadedModel, tokenizer: Any, batch_size: int) -> None:
    texts = [text(tokenizer, TEXT[:length], str(length)) for length in (20, 60, 100)]
    found = table(Membership(k=0.3, batch_size=batch_size).run(model, EvalContext(texts=texts)))
    for each in texts:
        log_probs, mean, sd = plain(model, each.tokens.tolist())
        k = max(1, int(0.3 * len(log_probs)))
        size = len(zlib.compress(TEXT[: int(each.item)].encode()))
        assert found[each.item] == {
            "neg_loss": pytest.approx(log_probs.mean(), abs=1e-4),
            "neg_zlib": pytest.approx(log_probs.mean() / size, abs=1e-6),
            "min_k": pytest.approx(np.sort(log_probs)[:k].mean(), abs=1e-4),
            "min_k_pp": pytest.approx(np.sort((log_probs - mean) / sd)[:k].mean(), abs=1e-3),
        }


def test_only_the_span_counts(model: LoadedModel, tokenizer: Any) -> None:
    whole = text(tokenizer, TEXT, "span", payload={"kind": "canary", "span": [5, 9]})
    found = table(Membership().run(model, EvalContext(texts=[whole])))["span"]
    log_probs, *_ = plain(model, whole.tokens.tolist())
    assert found["neg_loss"] == pytest.approx(log_probs[4:8].mean(), abs=1e-4)  # token 5 is predicted by position 4


def test_a_model_is_no_reference_for_itself(models: Any, tokenizer: Any, tmp_path: Any) -> None:
    model = models["rotary"]
    model.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = [text(tokenizer, TEXT, "a"), text(tokenizer, TEXT[:30], "b")]
    found = table(Membership(reference=str(tmp_path)).run(model, EvalContext(texts=texts)))
    assert [row["reference"] for row in found.values()] == pytest.approx([0.0, 0.0], abs=1e-5)
    with pytest.raises(UserError, match="cannot be loaded"):
        Membership(reference=str(tmp_path / "nothing")).run(model, EvalContext(texts=texts))


def test_what_was_trained_on_stands_out(models: Any, tokenizer: Any) -> None:
    """A few updates on half of the texts: every score separates them from the other half."""
    import copy

    model = LoadedModel(copy.deepcopy(models["rotary"].model), tokenizer)
    words = TEXT.split()
    rng = np.random.default_rng(0)
    texts = [text(tokenizer, " ".join(rng.permutation(words)[:12]), str(i), dose=i % 2) for i in range(20)]
    optimizer = torch.optim.AdamW(model.model.parameters(), lr=3e-3)
    for _ in range(12):
        for each in texts[1::2]:
            row = torch.from_numpy(each.tokens.astype(np.int64))[None]
            model.model(input_ids=row, labels=row).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.model.eval()
    found = table(Membership().run(model, EvalContext(texts=texts)))
    for metric in ("neg_loss", "neg_zlib", "min_k", "min_k_pp"):
        by_dose = [[found[each.item][metric] for each in texts if each.dose == dose] for dose in (1, 0)]
        assert auc(*by_dose) > 0.9, metric
    exact = table(Verbatim(prefix=4, suffix=4).run(model, EvalContext(texts=texts)))
    strength = [np.mean([exact[each.item]["strength"] for each in texts if each.dose == d]) for d in (1, 0)]
    assert strength[0] > strength[1]


def test_verbatim_is_what_greedy_decoding_gives(model: LoadedModel, tokenizer: Any) -> None:
    """For texts that the model wrote itself, and for one that it did not."""
    prompt = [EOS, *tokenizer.encode(TEXT)[:4]]
    (own,) = generate(model, [prompt], 8)
    written = [*prompt, *own]
    texts = [
        PlantedText("t", "own", np.array(written, np.uint32)),
        PlantedText("t", "spoiled", np.array([*written[:-1], (written[-1] + 1) % 800 or 1], np.uint32)),
        PlantedText("t", "short", np.array(written[:9], np.uint32)),
    ]
    context = EvalContext(texts=texts)
    found = table(Verbatim(prefix=4, suffix=8, n=10).run(model, context))
    assert found["own"]["exact"] == 1.0
    assert found["own"]["strength"] >= 1 - 4 / 12
    assert found["spoiled"]["exact"] == 0.0
    assert found["spoiled"]["right"] == pytest.approx(7 / 8)
    assert found["spoiled"]["strength"] == 0.0
    assert "short" not in found
    assert "1 texts have fewer than 12 tokens" in context.notes[0]
    log_probs, *_ = plain(model, written)
    nll = -log_probs[4:].sum()
    assert found["own"]["suffix_nll"] == pytest.approx(nll, abs=1e-3)
    assert found["own"]["discoverable"] == pytest.approx(1 - (1 - np.exp(-nll)) ** 10, rel=1e-2)


def test_a_removed_document_says_itself_what_is_given(model: LoadedModel, tokenizer: Any) -> None:
    """Probes of insertion `removal`: from their own prefix on, all the rest must come back."""
    prompt = [EOS, *tokenizer.encode(TEXT)[:5]]
    (own,) = generate(model, [prompt], 7)
    written = [*prompt, *own][1:]

    def probe(name: str, tokens: list[int], prefix: int) -> PlantedText:
        payload = {"kind": "verbatim", "prefix": prefix}
        return PlantedText("removal", name, np.array(tokens, np.uint32), "removed", 0, payload, probe=True)

    spoiled = [*written[:-1], (written[-1] + 1) % 800 or 1]
    texts = [
        probe("own", written, 5),
        probe("spoiled", spoiled, 5),
        probe("late", spoiled, 11),
        probe("long", written * 20, 5),
        probe("nothing is left to give back", [*written[:5], EOS], 5),
    ]
    texts.append(PlantedText("other", "probe", texts[0].tokens, payload={"kind": "probe"}, probe=True))
    context = EvalContext(texts=texts)
    found = table(Verbatim(prefix=3, suffix=3).run(model, context))
    assert set(found) == {"own", "spoiled", "late"}
    assert "2 texts" in context.notes[0]
    assert [found[name]["exact"] for name in ("own", "spoiled", "late")] == [1.0, 0.0, 0.0]
    assert [found[name]["right"] for name in ("own", "spoiled", "late")] == [1.0, pytest.approx(6 / 7), 0.0]
    prints = [Verbatim().fingerprint(PlannedItems(texts=[probe("own", written, n)])) for n in (5, 6)]
    assert prints[0] != prints[1]


def test_a_text_beyond_the_context_is_said_to_be_cut(models: Any, tokenizer: Any) -> None:
    long = text(tokenizer, f"{TEXT} " * 9, "long")
    context = EvalContext(texts=[long, text(tokenizer, TEXT, "short")])
    found = table(Verbatim(prefix=4, suffix=4).run(models["rotary"], context))
    assert set(found) == {"long", "short"}
    assert context.notes == ["of 1 texts the model reads only the first 96 tokens: strength is of these"]


@pytest.mark.parametrize("kind", [Membership, Verbatim])
def test_the_fingerprint_is_of_texts_and_settings(kind: Any, models: Any, tokenizer: Any) -> None:
    one, two = (PlannedItems(texts=[text(tokenizer, TEXT[:n], "a")]) for n in (20, 30))
    assert kind().fingerprint(one) == kind(batch_size=2).fingerprint(one)
    assert kind().fingerprint(one) != kind().fingerprint(two)
    context = EvalContext(texts=[])
    assert kind().run(models["rotary"], context) == []
    assert "nothing to score" in context.notes[0]
