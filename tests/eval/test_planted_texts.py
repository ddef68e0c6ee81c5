"""Planted texts against the definition: the planted tokens themselves, each scored once."""

import json
import math

import numpy as np
import pytest

from pretrain_exp.eval.base import EvalContext
from pretrain_exp.eval.planted_texts import PlantedTexts
from pretrain_exp.items.planned import PlannedItems, PlantedText

EOS = 0
TEXTS = ["Plants need light.", "Ice melts.", "Wasser gefriert bei 0 °C.", "A magnet attracts iron. " * 40]


@pytest.fixture
def texts(tokenizer) -> list[PlantedText]:
    """Every text with and without EOS around it; the last is longer than the models read at once."""
    found = []
    for number, text in enumerate(TEXTS):
        bare = tokenizer.encode(text)
        for rule, tokens in (("none", bare), ("both", [EOS, *bare, EOS]), ("append", [*bare, EOS])):
            found.append(PlantedText(rule, f"i{number}", np.array(tokens, np.uint32)))
    return found


def values(scores):
    table = {}
    for score in scores:
        assert score.metric not in table.setdefault((score.task, score.item), {}), score
        table[score.task, score.item][score.metric] = score.value
    return table


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_equal_to_the_definition_whatever_the_batch_size(model, naive, texts, batch_size):
    found = values(PlantedTexts(batch_size=batch_size).run(model, EvalContext(texts=texts)))
    assert len(found) == len(texts)
    for text in texts:
        tokens = text.tokens.tolist()
        before, scored = (EOS, tokens[1:]) if tokens[0] == EOS else (model.start_token, tokens)
        nll, step = 0.0, model.context_length
        for start in range(0, len(scored), step):
            nll -= naive(model, [scored[start - 1] if start else before], scored[start : start + step])
        size = len(TEXTS[int(text.item[1:])].encode())
        assert found[text.insertion, text.item] == {
            "nll": pytest.approx(nll, abs=1e-4, rel=1e-6),
            "tokens": len(scored),
            "ce": pytest.approx(nll / len(scored), abs=1e-4, rel=1e-6),
            "bytes": size,
            "bits_per_byte": pytest.approx(nll / math.log(2) / size, abs=1e-4, rel=1e-6),
        }
    assert max(len(text.tokens) for text in texts) > 2 * model.context_length


def test_a_run_without_text_has_no_bits_per_byte_and_a_lone_eos_no_score(models):
    runs = {"marks": [5, EOS, EOS], "eos": [EOS], "twice": [EOS, EOS]}
    context = EvalContext(texts=[PlantedText("t", name, np.array(run, np.uint32)) for name, run in runs.items()])
    found = values(PlantedTexts().run(models["rotary"], context))
    assert {item: len(metrics) for (_, item), metrics in found.items()} == {"marks": 5, "twice": 4}
    assert found["t", "twice"]["bytes"] == 0
    assert context.notes == ["1 items are a single EOS, which nothing precedes, and have no score"]


def test_a_plan_without_texts_gives_no_scores_and_a_note(models, items):
    context = EvalContext(items=items)
    assert PlantedTexts().run(models["rotary"], context) == []
    assert context.notes == ["the plan holds no texts beside multiple-choice items: nothing to score"]


def test_the_fingerprint_is_of_the_planted_tokens(texts):
    def key(texts, **fields):
        return json.dumps(PlantedTexts(**fields).fingerprint(PlannedItems((), texts)), sort_keys=True)

    first, *rest = texts
    renamed = PlantedText("other", first.item, first.tokens)
    flipped = PlantedText(first.insertion, first.item, np.append(first.tokens[:-1], first.tokens[-1] ^ 1))
    assert key(texts) == key(texts[::-1]) == key(texts, batch_size=1)
    assert len({key(texts), key(rest), key([renamed, *rest]), key([flipped, *rest]), key([])}) == 5
    assert PlantedTexts().fingerprint([])["n"] == 0
