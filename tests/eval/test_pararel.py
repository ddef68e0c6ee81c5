"""ParaRel, over a copy of three relations in its published format: ranks, consistency, and copies that are wrong."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext, LoadedModel
from pretrain_exp.eval.pararel import ParaRel
from pretrain_exp.items.pararel import article_fits, filled, load_pararel

PATTERNS = {
    "P1": [
        "[X]'s main town is [Y].",
        "[Y] is the main town of [X].",
        "The main town of [X] is called [Y]",
        "In [Y], of [X],",
    ],
    "P2": ["[X] is a [Y].", "[X] is an [Y].", "[X] belongs to the [Y]s."],
    "P3": ["[X] speaks [Y]."],
}
FACTS = {
    "P1": [("Land A", "Plant"), ("Land B", "Light"), ("Land C", "Pond"), ("Land C", "Green"), ("Land D", "Plant")],
    "P2": [("Rose", "plant"), ("Alga", "organism"), ("Fox", "animal")],
    "P3": [("Ann", "Danish"), ("Bob", "Finnish")],
}


@pytest.fixture
def copy(tmp_path: Path) -> dict[str, str]:
    """Folders as published: files of JSON lines, with the fields that are not used here."""
    for folder in ("graphs_json", "trex_lms_vocab"):
        (tmp_path / folder).mkdir()
    for name in PATTERNS:
        said = [{"pattern": each, "lemma": "be", "extended_lemma": "be", "tense": "present"} for each in PATTERNS[name]]
        facts = [{"sub_label": x, "obj_label": y, "uuid": f"{i}"} for i, (x, y) in enumerate(FACTS[name])]
        (tmp_path / "graphs_json" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
        (tmp_path / "trex_lms_vocab" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in facts))
    (tmp_path / "graphs_json" / "P9.jsonl").write_text('{"pattern": "[X] is [Y]"}\n')  # a relation without facts
    return {"patterns": str(tmp_path / "graphs_json"), "facts": str(tmp_path / "trex_lms_vocab")}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("[X] is in [Y].", ("A is in", "A is in B.")),
        ("[Y] holds [X]", ("", "B holds A")),
        ("Near [X] ([Y]) and [X]", ("Near A (", "Near A (B) and A")),
    ],
)
def test_a_pattern_is_filled(pattern: str, expected: tuple[str, str]) -> None:
    assert filled(pattern, "A", "B") == expected


@pytest.mark.parametrize(
    ("pattern", "object", "fits"),
    [("[X] is a [Y].", "plant", True), ("[X] is a [Y].", "Animal", False), ("[X] is an [Y]", "animal", True),
     ("[X] is an [Y]", "plant", False), ("[Y] is [X]", "animal", True), ("[X] is the [Y]", "animal", True)],
)  # fmt: skip
def test_articles(pattern: str, object: str, fits: bool) -> None:
    assert article_fits(pattern, object) is fits


def table(scores: Any) -> dict[tuple[str, str], dict[str, float]]:
    found: dict[tuple[str, str], dict[str, float]] = {}
    for score in scores:
        found.setdefault((score.task, score.item), {})[score.metric] = score.value
    return found


def test_ranks_are_those_of_the_definition(model: LoadedModel, naive: Any, copy: dict[str, str]) -> None:
    found = table(ParaRel(**copy, batch_size=5).run(model, EvalContext()))
    (relation, *_) = load_pararel(copy["patterns"], copy["facts"], ["P1"])
    start = [model.start_token]
    for fact in relation.facts:
        wrong = {y for x, y in FACTS["P1"] if (fact.subject, y) not in FACTS["P1"]}
        first, right = [], []
        for pattern in PATTERNS["P1"]:
            values = {}
            for each in (fact.object, *wrong):
                beginning, text = filled(pattern, fact.subject, each)
                before = model.tokenizer.encode(beginning) if beginning else []
                tokens = model.tokenizer.encode(text)
                assert tokens[: len(before)] == before
                values[each] = naive(model, start + before, tokens[len(before) :])
            first.append(max(values, key=lambda each: values[each]))
            right.append(first[-1] == fact.object)
            best = max(value for each, value in values.items() if each != fact.object)
            row = found["P1/patterns", _pattern_id(fact.id, pattern)]
            assert row["acc"] == float(right[-1])
            assert row["gold_nll"] == pytest.approx(-values[fact.object], abs=1e-3)
            assert row["margin"] == pytest.approx(values[fact.object] - best, abs=2e-3)
        row = found["P1", fact.id]
        assert row["acc"] == sum(right) / 4
        assert row["consistent_acc"] == float(all(right))
        assert row["consistency"] == sum(a == b for a, b in combinations(first, 2)) / 6


def _pattern_id(fact: str, pattern: str) -> str:
    from pretrain_exp.items.content import content_id

    return content_id("pattern", fact, pattern)


def test_what_does_not_fit_is_left_out_and_said(models: Any, copy: dict[str, str]) -> None:
    context = EvalContext()
    found = table(ParaRel(**copy).run(models["rotary"], context))
    tasks = [task for task, _ in found]
    assert {name: tasks.count(name) for name in set(tasks)} == {
        "P1": 5, "P1/patterns": 20, "P2": 3, "P2/patterns": 6, "P3": 2, "P3/patterns": 2,
    }  # fmt: skip
    assert "consistency" not in next(row for (task, _), row in found.items() if task == "P3")  # one pattern
    assert context.notes == ["3 pairs of fact and pattern were left out: the article does not fit the object"]


def test_a_fact_for_which_every_object_is_right_is_left_out_and_said(models: Any, copy: dict[str, str]) -> None:
    path = Path(copy["facts"]) / "P3.jsonl"
    path.write_text(path.read_text() + json.dumps({"sub_label": "Ann", "obj_label": "Finnish"}) + "\n")
    context = EvalContext()
    found = table(ParaRel(**copy, relations=["P3"]).run(models["rotary"], context))
    assert [task for task, _ in found] == ["P3/patterns", "P3"]  # Bob's
    assert context.notes == ["2 facts were left out: every object of their relation is right for them"]


def test_a_text_beyond_the_context_loses_its_beginning_with_a_note(models: Any, copy: dict[str, str]) -> None:
    path = Path(copy["patterns"]) / "P3.jsonl"
    path.write_text(json.dumps({"pattern": "water and light " * 60 + "[X] speaks [Y]."}) + "\n")
    context = EvalContext()
    assert ParaRel(**copy, relations=["P3"]).run(models["rotary"], context)
    assert context.notes == ["the beginning of 4 texts exceeds the model's context and was left out"]


@pytest.mark.parametrize(
    ("fields", "tasks"),
    [
        ({"relations": ["P3"]}, {"P3": 2, "P3/patterns": 2}),
        ({"relations": ["P1"], "templates": 2}, {"P1": 5, "P1/patterns": 10}),
        ({"relations": ["P1"], "limit": 3, "templates": 1}, {"P1": 3, "P1/patterns": 3}),
    ],
)
def test_less_can_be_asked(models: Any, copy: dict[str, str], fields: Any, tasks: dict[str, int]) -> None:
    found = [task for task, _ in table(ParaRel(**copy, **fields).run(models["rotary"], EvalContext()))]
    assert {name: found.count(name) for name in set(found)} == tasks
    assert ParaRel(**copy, **fields).fingerprint([]) != ParaRel(**copy).fingerprint([])


def test_candidates_are_drawn_and_never_right_for_the_same_subject(copy: dict[str, str]) -> None:
    (relation,) = load_pararel(**copy, relations=["P1"])
    for fact in relation.facts:
        every = relation.candidates(fact)
        assert every[0] == fact.object
        assert set(every[1:]) == {"Plant", "Light", "Pond", "Green"} - {y for x, y in FACTS["P1"] if x == fact.subject}
        two = relation.candidates(fact, 2)
        assert (len(two), two[0], set(two) <= set(every)) == (2, fact.object, True)


@pytest.mark.parametrize(
    ("damage", "key", "words"),
    [
        (lambda folder: {"facts": str(folder / "no")}, "facts", "no such folder"),
        (lambda folder: {"facts": str(folder)}, "facts", "in both folders"),
        (lambda folder: {"relations": ["P36"]}, "relations", "no such relation"),
        (
            lambda folder: (folder / "graphs_json/P1.jsonl").write_text('{"pattern": "[X] is"}\n') and {},
            "patterns",
            "once",
        ),
        (lambda folder: (folder / "graphs_json/P1.jsonl").write_text("{oh\n") and {}, "patterns", "cannot be read"),
        (
            lambda folder: (folder / "trex_lms_vocab/P1.jsonl").write_text('{"sub_label": "a"}\n') and {},
            "facts",
            "obj_label",
        ),
        (
            lambda folder: (
                (folder / "trex_lms_vocab/P1.jsonl").write_text('{"sub_label": "a", "obj_label": "b"}\n') and {}
            ),
            "relations",
            "1 objects",
        ),
    ],
)
def test_a_copy_that_is_not_as_published(
    tmp_path: Path, copy: dict[str, str], damage: Any, key: str, words: str
) -> None:
    with pytest.raises(UserError, match=words) as error:
        load_pararel(**{**copy, **damage(tmp_path)})
    assert error.value.key == key


def test_the_configuration_names_every_field() -> None:
    values = yaml.safe_load((Path(__file__).parents[2] / "conf" / "eval" / "pararel.yaml").read_text())
    fields = set(ParaRel.__dataclass_fields__) - {"divisible"}
    assert set(values) - {"_target_"} == fields
    assert values["_target_"] == "pretrain_exp.eval.pararel.ParaRel"
