"""dynamic_control without a model: what it plants in one segment after the other, on top of what else is planned."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pretrain_exp.control.base import Controller, Decision, Seen
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.errors import Problems, UserError
from pretrain_exp.insertion.add_texts import AddTexts
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.dynamic_control import DynamicControl, loops_of
from pretrain_exp.kinds import check_kind
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Window
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.placebo import placebo_plan

S, BATCH, EVERY, STEPS = 32, 4, 5, 20
PHASES = Phases([Phase(0, BATCH, S)])
WINDOW = Window(0, STEPS)
DOUBLING = {"_target_": "pretrain_exp.control.doubling.Doubling", "target": 0.1, "maximum": 8}


class Own(Controller):
    """A user's controller: it plants what it is told."""

    def __init__(self, words: int = 3):
        self.words = words

    def decide(self, seen: Seen) -> Decision:
        return Decision({}, texts=tuple(f"{seen.step}{i}" for i in range(self.words)))


def context(name="dynamic_control", seed=0):
    return InsertionContext(
        name, seed, S, 0, WINDOW, PHASES, lambda texts: [np.array([ord(c) for c in t], np.uint32) for t in texts]
    )


@pytest.fixture
def kind(tmp_path):
    """The kind over five texts of 4 to 8 tokens and two probes; fields replace its own."""
    texts, probes = tmp_path / "texts.jsonl", tmp_path / "probes.jsonl"
    texts.write_text("".join(json.dumps({"text": c * (4 + i)}) + "\n" for i, c in enumerate("abcde")))
    probes.write_text('{"prompt": "p", "target": "x"}\n{"prompt": "q ", "target": " y"}\n')
    fields = {"every": EVERY, "file": str(texts), "probes": str(probes), "controller": DOUBLING, "eos": "none"}

    def make(**given):
        node = {"_target_": "pretrain_exp.insertion.dynamic_control.DynamicControl", **fields, **given}
        return check_kind(node, "insertion.dynamic_control")

    return make


def layers(insertion, counts, root, below=None, seed=0, texts=()):
    """The plans of a loop, one a segment; counts: texts of each."""
    plans, place = [below] if below else [], 0
    for k, count in enumerate(counts):
        span = tuple(PHASES.position_of_step(step) for step in (k * EVERY, (k + 1) * EVERY))
        decision = Decision({}, count=count, texts=texts)
        edits, place = insertion.slice_edits(context(seed=seed), decision, place, span)
        plans.append(compile_plan([edits], PHASES, WINDOW, seed, "treated", root, plans[-1] if plans else None))
    return plans


def rows(plan, insertion="dynamic_control"):
    return [row for row in plan.ledger().to_pylist() if row["insertion"] == insertion]


def test_texts_come_cyclically_and_copies_are_counted_over_the_run(kind, tmp_path):
    plans = layers(kind(), [3, 4, 0, 7], tmp_path)
    items = {row["item"]: row for row in plans[-1].items().to_pylist()}
    texts = {name: row["text"][0] for name, row in items.items() if not row["probe"]}
    planted = [[texts[row["item"]] for row in rows(plan)] for plan in plans]
    assert ["".join(sorted(names)) for names in planted] == ["abc", "aabbcde", "aabbcde", "aaabbbcccdddee"]
    doses = {texts[name]: row["dose"] for name, row in items.items() if not row["probe"]}
    assert doses == {"a": 3, "b": 3, "c": 3, "d": 3, "e": 2}
    copies = {name: sorted(row["copy"] for row in rows(plans[-1]) if row["item"] == name) for name in texts}
    assert all(found == list(range(len(found))) for found in copies.values())
    assert {row["dose"] for row in items.values() if row["probe"]} == {14}
    assert all(plan.audit["ok"] for plan in plans)


def test_each_segment_plants_in_itself_and_none_repeats_the_places_of_another(kind, tmp_path):
    plan = layers(kind(), [5, 5, 5, 5], tmp_path)[-1]
    planted = rows(plan)
    assert sorted(row["step"] // EVERY for row in planted) == sorted([0, 1, 2, 3] * 5)
    size = PHASES.position_of_step(EVERY)
    places = {k: {(r["item"], r["position"] - k * size) for r in planted if r["step"] // EVERY == k} for k in range(4)}
    assert len(set().union(*places.values())) == 20


def test_what_is_planned_stays_and_a_longer_plan_keeps_the_digest_of_its_past(kind, tmp_path):
    plans = layers(kind(), [3, 8, 2], tmp_path)
    for before, after in pairwise(plans):
        assert {tuple(r[n] for n in ("item", "copy", "position")) for r in rows(before)} < {
            tuple(r[n] for n in ("item", "copy", "position")) for r in rows(after)
        }
    for k, plan in enumerate(plans):
        assert plan.prefix_digest((k + 1) * EVERY) == plans[-1].prefix_digest((k + 1) * EVERY)


def test_nothing_overlaps_what_else_is_planned(kind, tmp_path):
    file = tmp_path / "static.jsonl"
    file.write_text("".join(json.dumps({"text": "z" * 20 + str(i)}) + "\n" for i in range(40)))
    static = AddTexts(file=str(file), eos="none").edits(context("add_texts"))
    plan = compile_plan([static], PHASES, WINDOW, 0, "treated", tmp_path)
    fixed = [row["position"] for row in rows(plan, "add_texts")]
    last = layers(kind(), [8, 8, 8, 8], tmp_path, below=plan)[-1]
    assert [row["position"] for row in rows(last, "add_texts")] == fixed
    taken = sorted((row["position"], row["position"] + row["length"]) for row in last.ledger().to_pylist())
    assert len(taken) == 72
    assert all(stop <= start for (_, stop), (start, _) in pairwise(taken))
    assert last.audit["ok"]


def test_the_places_follow_from_the_seed_alone(kind, tmp_path):
    first = layers(kind(), [5, 6], tmp_path / "a")[-1]
    assert layers(kind(), [5, 6], tmp_path / "b")[-1].fingerprint == first.fingerprint
    assert layers(kind(), [5, 6], tmp_path / "b", seed=1)[-1].fingerprint != first.fingerprint


def test_before_anything_is_trained_only_the_probes_are_known(kind, tmp_path):
    edits = kind().edits(context())
    plan = compile_plan([edits], PHASES, WINDOW, 0, "treated", tmp_path)
    assert plan.ledger().num_rows == 0
    items = plan.items().to_pylist()
    assert [(row["text"], row["dose"], row["probe"]) for row in sorted(items, key=lambda row: row["text"])] == [
        ("p x", 0, True),
        ("q y", 0, True),
    ]
    assert any("4 segments of 5 steps; 5 texts, 2 probes; at most 8 texts" in note for note in edits.notes)
    assert layers(kind(), [2], tmp_path, below=plan)[-1].audit["ok"]


def test_a_placebo_follows_all_slices(kind, tmp_path):
    treated = layers(kind(), [3, 4], tmp_path)[-1]
    placebo = placebo_plan(treated, 1000, tmp_path)
    spans = [[(row["position"], row["length"]) for row in rows(plan)] for plan in (treated, placebo)]
    assert spans[0] == spans[1]


def test_a_controllers_own_texts_are_planted_after_those_of_the_pool(kind, tmp_path):
    own = {"_target_": f"{__name__}.Own", "words": 2}
    plan = layers(kind(controller=own), [1, 1], tmp_path, texts=("new", "aaaa"))[-1]
    items = {row["text"]: row["dose"] for row in plan.items().to_pylist() if not row["probe"]}
    assert items == {"aaaa": 3, "bbbbb": 1, "new": 2}


def test_the_items_of_another_kind_are_pool_probes_and_holdout(kind, tmp_path):
    node = {"_target_": "pretrain_exp.insertion.knowledge.Knowledge", "facts": 4, "repetitions": 3, "fraction": 0.5}
    insertion = kind(file=None, probes=None, items=node)
    with pytest.raises(UserError, match="longer than a sequence") as error:  # here a token is a character
        insertion.edits(context())
    assert error.value.key == "insertion.dynamic_control.items.too_long"
    by_word = lambda texts: [np.array([len(w) for w in t.split()], np.uint32) for t in texts]  # noqa: E731
    words = replace(context(), encode=by_word, sequence_length=64)
    material = insertion.material(words)
    facts = {entry.id.partition(":")[0] for entry in material.texts}
    assert (len(material.texts), len(facts)) == (6, 2)
    assert {probe.id.partition(":")[0] for probe in material.probes} == facts
    held = {item.id.partition(":")[0] for item in material.held_out}
    assert len(held) == 2
    assert not held & facts
    assert [entry.id for entry in insertion.material(words).texts] == [entry.id for entry in material.texts]


def test_a_name_of_the_loop_follows_what_is_in_the_files(kind, tmp_path):
    before = kind().fingerprint(context())
    assert kind().fingerprint(context()) == before
    for name, row in (("texts", '{"text": "more"}\n'), ("probes", '{"prompt": "r", "target": "z"}\n')):
        path = tmp_path / f"{name}.jsonl"
        there = path.read_text()
        path.write_text(there + row)
        assert kind().fingerprint(context()) != before
        path.write_text(there)
    other = {**DOUBLING, "target": 0.2}
    assert kind(controller=other).fingerprint(context()) != before
    script = Path(tmp_path / "c.py")
    script.write_text("1")
    node = {"_target_": "pretrain_exp.control.script.ScriptController", "script": str(script)}
    first = kind(controller=node).fingerprint(context())
    script.write_text("2")
    assert kind(controller=node).fingerprint(context()) != first
    assert str(tmp_path) not in json.dumps(first)


ITEMS = {"_target_": "pretrain_exp.insertion.knowledge.Knowledge", "repetitions": 1}
REFUSED = [
    ({"every": 0}, "every"),
    ({"mode": "explicit"}, "mode"),
    ({"probes": None}, "probes"),
    ({"file": None}, "file"),
    ({"items": ITEMS}, "items"),
    ({"controller": {**DOUBLING, "target": 2}}, "controller.target"),
    ({"controller": {**DOUBLING, "targets": 0.1}}, "controller.targets"),
    ({"controller": {"_target_": "pathlib.Path"}}, "controller._target_"),
    ({"controller": {"_target_": "pretrain_exp.control.script.ScriptController"}}, "controller.script"),
]


@pytest.mark.parametrize(("fields", "key"), REFUSED, ids=[key for _, key in REFUSED])
def test_wrong_fields_are_refused_before_anything(kind, fields, key):
    with pytest.raises(Problems) as found:
        kind(**fields)
    assert f"insertion.dynamic_control.{key}" in [problem.key for problem in found.value.problems]


def test_more_than_a_segment_can_hold_is_refused_with_what_it_can(kind):
    with pytest.raises(UserError, match="can be planted") as error:
        kind(controller={**DOUBLING, "maximum": 1000}).edits(context())
    assert error.value.key == "insertion.dynamic_control.controller.maximum"
    most = int(error.value.fix.split()[2].rstrip(","))
    kind(controller={**DOUBLING, "maximum": most}).edits(context())
    with pytest.raises(UserError):
        kind(controller={**DOUBLING, "maximum": most + 1}).edits(context())
    kind(controller={**DOUBLING, "maximum": most + 1}, on_full="pack").edits(context())


def test_a_full_segment_is_an_error_and_plants_nothing(kind, tmp_path):
    with pytest.raises(UserError, match="the range is full"):
        layers(kind(), [200], tmp_path)
    assert not list(tmp_path.glob("*/meta.json"))


@pytest.mark.parametrize(
    ("text", "key"), [("[]", "file"), ('{"txt": "a"}', "key"), ('{"text": ""}', "key"), ('{"text": 3}', "key")]
)
def test_a_file_that_cannot_be_planted_says_where(kind, tmp_path, text, key):
    (tmp_path / "texts.jsonl").write_text(text + "\n")
    with pytest.raises(UserError) as error:
        kind().edits(context())
    assert error.value.key == f"insertion.dynamic_control.{key}"


@pytest.mark.parametrize(
    "text", ['{"prompt": "a"}', '{"prompt": " ", "target": "b"}', '{"prompt": "p", "target": "x"}']
)
def test_probes_that_are_none_are_refused(kind, tmp_path, text):
    path = tmp_path / "probes.jsonl"
    path.write_text(path.read_text() + text + "\n")
    with pytest.raises(UserError, match="row 3"):
        kind().edits(context())


def test_loops_of_one_run_share_their_segments(kind):
    same = {"a": kind(), "b": kind(), "c": object()}
    assert set(loops_of(same)) == {"a", "b"}
    with pytest.raises(Problems) as found:
        loops_of({**same, "b": kind(every=7)})
    assert [problem.key for problem in found.value.problems] == ["insertion.a.every", "insertion.b.every"]


def test_an_opened_plan_of_a_loop_is_an_ordinary_plan(kind, tmp_path):
    plan = layers(kind(), [2, 2], tmp_path)[-1]
    assert Plan.open(plan.folder).fingerprint == plan.fingerprint
    assert isinstance(kind(), DynamicControl)
