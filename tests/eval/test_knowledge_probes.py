"""Probes against the definition, and the whole way: facts -> plan -> items -> scores."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext
from pretrain_exp.eval.generation import generate
from pretrain_exp.eval.knowledge import Knowledge
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.knowledge import Knowledge as Facts
from pretrain_exp.items.planned import PlannedItems, PlantedText, planted_items
from pretrain_exp.kinds import check_kind
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Window

METRICS = {"target_logprob", "target_logprob_per_token", "target_prob", "acc", "tokens"}


@pytest.fixture(scope="module")
def planted(tokenizer, tmp_path_factory) -> PlannedItems:
    """The items of a plan of twelve facts."""

    def encode(texts):
        return [np.array(ids, dtype=np.uint32) for ids in tokenizer(texts)["input_ids"]]

    phases, window = Phases([Phase(0, 4, 256)]), Window(0, 50)
    context = InsertionContext("knowledge", 0, 256, 0, window, phases, encode, len(tokenizer))
    asked = Facts(facts=12, repetitions=[0, 1, 4]).edits(context)
    plan = compile_plan([asked], phases, window, 0, "treated", tmp_path_factory.mktemp("plan"))
    assert plan.audit["ok"], plan.audit["findings"]
    return planted_items(str(plan.folder / "items.parquet"))


def by_item(scores):
    found = {}
    for score in scores:
        assert score.metric not in found.setdefault((score.task, score.item), {})
        found[score.task, score.item][score.metric] = score.value
    return found


@pytest.mark.parametrize("batch_size", [1, 32])
def test_the_whole_way_equals_the_definition(model, naive, planted, batch_size):
    found = by_item(Knowledge(batch_size=batch_size).run(model, EvalContext(texts=planted.texts)))
    probes = [text for text in planted.texts if text.probe]
    assert len(found) == len(probes) == 96
    assert {task for task, _ in found} == {
        f"knowledge/{kind}" for kind in ("memorization", "semantic", "compositional")
    }
    for text in probes[:: 1 if batch_size > 1 else 7]:
        whole = text.tokens.tolist()
        before = model.tokenizer.encode(text.payload["prompt"])
        assert whole[: len(before)] == before
        scored = whole[len(before) :]
        expected = naive(model, [0, *before], scored)
        values = found[f"knowledge/{text.payload['type']}", text.item]
        assert set(values) == METRICS
        assert values["target_logprob"] == pytest.approx(expected, abs=1e-4, rel=1e-6)
        assert values["target_logprob_per_token"] == pytest.approx(expected / len(scored), abs=1e-4, rel=1e-6)
        assert values["target_prob"] == pytest.approx(math.exp(expected), rel=1e-3)
        assert values["tokens"] == len(scored)


def test_exact_where_greedy_decoding_gives_the_target(model, planted):
    """Targets that the model itself decodes are right; the facts, which it never read, are not."""
    probes = [text for text in planted.texts if text.probe]
    encode = model.tokenizer.encode
    prompts = [encode(probe.payload["prompt"]) for probe in probes]
    own = []
    for probe, prompt, decoded in zip(probes, prompts, generate(model, [[0, *p] for p in prompts], 1), strict=True):
        word = model.tokenizer.decode(decoded)
        if word.startswith(" ") and encode(probe.payload["prompt"] + word) == prompt + decoded:
            own.append(replace(probe, item=f"own{probe.item}", payload=probe.payload | {"target": word[1:]}))
    assert len(own) > 3
    found = by_item(Knowledge().run(model, EvalContext(texts=[*planted.texts, *own])))
    right = {item: values["acc"] for (_, item), values in found.items()}
    assert {item: 1.0 for item in right if item.startswith("own")} == {text.item: right[text.item] for text in own}
    assert not any(right[probe.item] for probe in probes)


def test_a_prompt_beyond_the_context_loses_its_beginning_with_a_note(models, naive):
    model = models["rotary"]
    prompt = "water and light " * 60
    payload = {"kind": "probe", "type": "semantic", "prompt": prompt.strip(), "target": "river"}
    context = EvalContext(texts=[PlantedText("k", "p", np.array([1], np.uint32), payload=payload, probe=True)])
    values = by_item(Knowledge().run(model, context))["k/semantic", "p"]
    tokens = model.tokenizer.encode(prompt + "river")
    size = int(values["tokens"])
    before = tokens[-model.context_length - 1 : -size]
    assert values["target_logprob"] == pytest.approx(naive(model, before, tokens[-size:]), abs=1e-4)
    assert context.notes == ["the beginning of 1 prompts exceeds the model's context and was left out"]
    long = PlantedText("k", "p", np.array([1], np.uint32), payload=payload | {"target": prompt}, probe=True)
    with pytest.raises(UserError, match="a target has"):
        Knowledge().run(model, EvalContext(texts=[long]))


def test_probes_of_a_file(models, tmp_path):
    path = tmp_path / "probes.jsonl"
    probe = {"type": "semantic", "prompt": "The moon is made of", "target": "cheese"}
    path.write_text(json.dumps(probe) + "\n" + json.dumps(probe | {"type": "memorization"}) + "\n")
    evaluation = Knowledge(file=str(path))
    assert evaluation.inputs() == [("file", str(path))]
    found = by_item(evaluation.run(models["rotary"], EvalContext()))
    assert {task for task, _ in found} == {"probes.jsonl/semantic", "probes.jsonl/memorization"}
    before = evaluation.fingerprint([])
    (tmp_path / "other.jsonl").write_text(path.read_text())
    assert Knowledge(file=str(tmp_path / "other.jsonl")).fingerprint([]) != before  # its task is another
    path.write_text(json.dumps(probe) + "\n")
    assert evaluation.fingerprint([]) != before
    path.write_text(json.dumps(probe | {"type": "guess"}) + "\n")
    for ask in (lambda: evaluation.run(models["rotary"], EvalContext()), lambda: evaluation.fingerprint([])):
        with pytest.raises(UserError, match="guess"):
            ask()


def test_fingerprint_is_of_the_probes_alone(planted):
    def key(texts, **fields):
        return json.dumps(Knowledge(**fields).fingerprint(PlannedItems((), texts)), sort_keys=True)

    texts = list(planted.texts)
    probes = [text for text in texts if text.probe]
    other = replace(probes[0], payload=probes[0].payload | {"target": "Elsewhere"})
    assert key(texts) == key(probes[::-1]) == key(texts, batch_size=1)
    assert len({key(texts), key(probes[1:]), key([other, *probes[1:]]), key([])}) == 4


def test_nothing_to_score_is_said(models):
    context = EvalContext(texts=[PlantedText("t", "i", np.array([1, 2], np.uint32))])
    assert Knowledge().run(models["rotary"], context) == []
    assert context.notes == ["the plan holds no probes: nothing to score"]


def test_the_configuration_names_every_field():
    values = yaml.safe_load((Path(__file__).parents[2] / "conf" / "eval" / "knowledge.yaml").read_text())
    assert check_kind(values, "eval.knowledge") == Knowledge()
    assert set(values) == {"_target_", "file", "batch_size"}
