"""Invented facts: what they promise, over seeds, numbers and paraphrases."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_exp.errors import UserError
from pretrain_exp.items.fact_templates import CRAFTS, KINDS, OPENINGS
from pretrain_exp.items.facts import FactWorld, fact_of, most_paraphrases, read_facts

KIND_NAMES = list(KINDS)


@given(seed=st.integers(0, 2**32), number=st.integers(0, 11), paraphrases=st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_deterministic_distinct_and_nested(seed, number, paraphrases):
    fact = FactWorld(seed).fact(number, paraphrases)
    assert fact == FactWorld(seed).fact(number, paraphrases)
    fewer = FactWorld(seed).fact(number, 1)
    assert (fewer.id, fewer.probes, fewer.texts) == (fact.id, fact.probes, fact.texts[:1])
    assert len(set(fact.texts)) == len(fact.texts) == paraphrases
    assert fact.id != FactWorld(seed + 1).fact(number, 1).id


@pytest.mark.parametrize("number", range(8))
def test_probes_ask_for_what_is_told(number):
    """Every paraphrase tells every name; memorization is literal in text 0; the others stand in no paraphrase."""
    fact = FactWorld(3).fact(number, 200)
    types = [probe.type for probe in fact.probes]
    assert types == ["memorization"] * 3 + ["semantic"] * 3 + ["compositional"] * 2
    for text in fact.texts:
        assert len(re.findall(r"\.(?: |$)", text)) == 3
        assert "{" not in text
        assert all(probe.target in text for probe in fact.probes)
    for probe in fact.probes:
        assert (probe.text in fact.texts[0]) == (probe.type == "memorization")
        if probe.type == "memorization":
            before = fact.texts[0].partition(probe.text)[0]
            assert before == "" or before.endswith(". ")  # the prompt is the sentence from its first word
        else:
            assert not any(probe.text.lower() in text.lower() for text in fact.texts)
    assert [p.target for p in fact.probes if p.type == "semantic"] == [p.target for p in fact.probes[:3]]


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_a_joined_question_needs_both_sentences(kind):
    """It names neither the name that joins them nor its value, and one of them alone does not tell the value."""
    relations, names = KINDS[kind].relations, set(KINDS[kind].names)
    told = [{name for name in names for text in r.told if f"{{{name}}}" in text} for r in relations]
    assert all(len(two) == 2 for two in told)
    for prompt, value, (one, two) in KINDS[kind].joined:
        named = {name for name in names if f"{{{name}}}" in prompt}
        assert len(named) == 1
        (bridge,) = told[one] & told[two]
        assert told[one] | told[two] == named | {bridge, value}
        assert bridge not in named | {value}


def test_every_template_is_used_and_told_templates_are_not_asked():
    for number, kind in enumerate(KINDS.values()):
        texts = " ".join(FactWorld(0).fact(number, 400).texts).lower()
        assert all(opening in texts for opening in OPENINGS)
        for relation in kind.relations:
            assert any(text.endswith(f"{{{relation.value}}}") for text in relation.told)
            assert all(
                set(re.findall(r"{\w+}", t)) == set(re.findall(r"{\w+}", relation.told[0])) for t in relation.told
            )
            assert not set(relation.told) & set(relation.asked)


def test_names_belong_to_one_fact():
    world = FactWorld(1)
    facts = [world.fact(number, 1) for number in range(800)]
    owner: dict[str, str] = {}
    for fact in facts:
        for probe in fact.probes:
            if probe.target.isdigit() or probe.target in CRAFTS:
                continue
            assert owner.setdefault(probe.target, fact.id) == fact.id
    assert len(owner) > 1500
    assert len({fact.id for fact in facts}) == len({text for fact in facts for text in fact.texts}) == 800
    assert FactWorld(1).fact(799, 1) == facts[799]  # whatever was asked before


def test_more_facts_leave_the_first_as_they_are():
    few, many = FactWorld(0), FactWorld(0)
    many.fact(50, 1)
    assert [few.fact(i, 2) for i in range(5)] == [many.fact(i, 2) for i in range(5)]


def test_ids_lead_back_to_the_fact():
    fact = FactWorld(0).fact(0, 2)
    ids = [fact.text_id(0), fact.text_id(1), *(fact.probe_id(k) for k in range(len(fact.probes)))]
    assert len(set(ids)) == 10
    assert {fact_of(each) for each in ids} == {fact.id}


@pytest.mark.parametrize("paraphrases", [0, most_paraphrases() + 1])
def test_paraphrases_that_cannot_be(paraphrases):
    with pytest.raises(UserError, match="paraphrases"):
        FactWorld(0).fact(0, paraphrases)


PROBE = {"type": "semantic", "prompt": "The moon is made of ", "target": "cheese"}
GOOD = {"texts": ["The moon is cheese.", "Cheese makes the moon."], "probes": [PROBE]}


def test_a_file(tmp_path):
    path = tmp_path / "facts.jsonl"
    rows = [GOOD, {"text": "Ice is wet.", "probes": [{"type": "memorization", "prompt": "Ice is", "target": "wet"}]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, two = read_facts(str(path))
    assert one.texts == tuple(GOOD["texts"])
    assert (one.probes[0].prompt, one.probes[0].text) == ("The moon is made of", "The moon is made of cheese")
    assert two.texts == ("Ice is wet.",)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[::-1]))
    assert {fact.id for fact in read_facts(str(path))} == {one.id, two.id}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "no facts"),
        ([{"probes": [PROBE]}], "has no 'texts'"),
        ([{"texts": ["a", "a"], "probes": [PROBE]}], "twice"),
        ([{"texts": ["a", 3], "probes": [PROBE]}], "no list of texts"),
        ([{"texts": ["a"], "probes": []}], "no list of probes"),
        ([{"texts": ["a"], "probes": [PROBE, PROBE]}], "a probe is there twice"),
        ([{"texts": ["a"], "probes": [PROBE | {"type": "guess"}]}], "'guess' is no type of probe"),
        ([{"texts": ["a"], "probes": [PROBE | {"target": " "}]}], "is no probe"),
        ([{"texts": ["a"], "probes": [PROBE | {"type": "memorization"}]}], "does not hold"),
        ([GOOD, GOOD], "row 2 of .* repeats"),
    ],
)
def test_wrong_files(tmp_path, rows, says):
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=says):
        read_facts(str(path))
