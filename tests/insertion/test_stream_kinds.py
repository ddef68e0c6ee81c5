"""Every kind that looks at the data, or leaves it as it is, x every promise."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.errors import UserError
from pretrain_exp.insertion.add_tokens import AddTokens
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.batches import Batches
from pretrain_exp.insertion.gaussian_poisoning import GaussianPoisoning
from pretrain_exp.insertion.gradient_noise import GradientNoise
from pretrain_exp.insertion.iid_replacement import IidReplacement
from pretrain_exp.insertion.removal import Removal
from pretrain_exp.items.planned import planted_items
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Edits, Window
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.placebo import placebo_plan
from pretrain_exp.plan.replay import export_table

S, BATCH, SLOTS = 8, 4, 2000
PHASES, WINDOW = Phases([Phase(0, BATCH, S)]), Window(10, 310)  # slots 40 to 1,240 of 2,000
SPAN = (WINDOW.first_step * BATCH * S, WINDOW.last_step * BATCH * S)
DOCUMENTS = [100, 101, 555, 1100, 1500, 40]  # slots whose columns 1 to 6 are documents; 1,500 is not in the run
Kind = Callable[[Path], Any]


class Numbers:
    """A stream in which token c of slot s is 8 s + c, but slot 1,300 holds the document of slot 100 once more."""

    sequence_length, num_sequences = S, SLOTS

    def __init__(self) -> None:
        self.reads = 0

    def read(self, slot: int) -> np.ndarray:
        self.reads += 1
        row = np.arange(slot * S, slot * S + S, dtype=np.uint32)
        if slot == 1300:
            row[1:7] = np.arange(801, 807)
        return row

    def fingerprint(self) -> str:
        return "numbers"


def document_file(folder: Path) -> str:
    path = folder / "documents.jsonl"
    path.write_text("".join(json.dumps({"tokens": list(range(8 * s + 1, 8 * s + 7))}) + "\n" for s in DOCUMENTS))
    return str(path)


KINDS: dict[str, Kind] = {
    "removal": lambda folder: Removal(file=document_file(folder), prefix=3, keep=0.34),
    "batches": lambda _: Batches(steps=[20, 100, 305], score=2, holdout=3),
    "iid_replacement": lambda _: IidReplacement(sequences=15, windows=10, score=2, holdout=3),
    "gaussian_poisoning": lambda _: GaussianPoisoning(sequences=120, score=5),
    "noisy_batches": lambda _: GaussianPoisoning(steps=[30, 200], sigma=0.5, score=1),
    "noisy_spans": lambda _: GaussianPoisoning(sequences=120, length=3),
    "gradient_noise": lambda _: GradientNoise(steps=[12, 40, 300], sigma=0.01),
}
DATA = [kind for kind in KINDS if kind != "gradient_noise"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def edits(kind: str, folder: Path, name: str | None = None, seed: int = 0, cache: Path | None = None) -> Edits:
    context = InsertionContext(name or kind, seed, S, 999, WINDOW, PHASES, lambda texts: [], None, Numbers(), cache)  # type: ignore[arg-type]
    return KINDS[kind](folder).edits(context)


def others(folder: Path, repetitions: int = 300) -> Edits:
    """Short runs all over, 300 of 5 tokens in 9,600."""
    path = folder / "others.jsonl"
    path.write_text(json.dumps({"tokens": [10**6 + i for i in range(5)]}) + "\n")
    context = InsertionContext("others", 0, S, 999, WINDOW, PHASES, lambda texts: [])
    return AddTokens(file=str(path), repetitions=repetitions, eos="none").edits(context)


def compiled(folder: Path, *asked: Edits, seed: int = 0) -> Plan:
    return compile_plan(asked, PHASES, WINDOW, seed, "treated", folder / "plans", order=Numbers())  # type: ignore


def rows(plan: Plan, name: str | None = None) -> list[dict]:
    return [row for row in plan.ledger().to_pylist() if name in (None, row["insertion"])]


def test_doses_are_exact_and_nothing_overlaps_within_or_between_kinds(tmp_path: Path) -> None:
    asked = [edits(kind, tmp_path) for kind in KINDS]
    plan = compiled(tmp_path, *asked, others(tmp_path))
    assert plan.audit["ok"], plan.audit["findings"]
    doses = {(item["insertion"], item["item"]): item["dose"] for item in plan.items().to_pylist() if not item["probe"]}
    ledger = rows(plan)
    counts = Counter((row["insertion"], row["item"]) for row in ledger)
    assert {name: counts[name] for name in doses} == doses
    assert counts.keys() <= doses.keys()
    taken = [p for row in ledger for p in range(row["position"], row["position"] + row["length"])]
    assert len(taken) == len(set(taken))
    assert SPAN[0] <= min(taken)
    assert max(taken) < SPAN[1]
    sources = [row["source_slot"] for row in ledger if row["kind"] == "base"]
    held = [item for item in plan.items().to_pylist() if item["group"] == "holdout"]
    sources += [item["tokens"][0] // S for item in held]
    assert len(sources) == len(set(sources)) == 4 + 12 + 150 + 6, "an unseen sequence stands for one item"
    assert all(WINDOW.last_step * BATCH <= source < SLOTS for source in sources)
    assert 1300 not in sources, "it holds a document that was removed"


@pytest.mark.parametrize("kind", DATA)
def test_nothing_else_changes(kind: str, tmp_path: Path) -> None:
    plan, order = compiled(tmp_path, edits(kind, tmp_path)), Numbers()
    changed = {}
    for row in rows(plan):
        slot = int(PHASES.first_slot(row["step"])) + row["row"]
        if row["kind"] == "base":
            changed[slot] = order.read(row["source_slot"])
        assert plan.overlay.touches(slot)
    for slot in range(WINDOW.first_step * BATCH - 5, WINDOW.last_step * BATCH + 5):
        read = plan.overlay.apply(slot, order.read(slot), order.read)  # type: ignore[arg-type]
        assert read.tolist() == changed.get(slot, order.read(slot)).tolist()
    noise = {(row["step"] * BATCH + row["row"], row["column"], row["length"]): row["sigma"] for row in rows(plan)}
    found = {(s, c, n): sigma for s in range(SLOTS) for c, n, sigma in plan.overlay.noise(s)}
    assert found == (noise if "nois" in kind or "gauss" in kind else {})


def test_the_same_seed_in_another_process_gives_the_same_plans(tmp_path: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import test_stream_kinds as t
print(*t.fingerprints(Path({str(tmp_path)!r})))
"""
    there = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    here = fingerprints(tmp_path / "here")
    assert there == here
    assert len(set(here)) == len(KINDS)


def fingerprints(folder: Path) -> list[str]:
    """Of a plan of each kind beside another."""
    folder.mkdir(exist_ok=True)
    return [compiled(folder, edits(kind, folder), others(folder)).fingerprint for kind in KINDS]


def test_another_seed_another_plan(kind: str, tmp_path: Path) -> None:
    one, two = (compiled(tmp_path, edits(kind, tmp_path, seed=seed), seed=seed) for seed in (0, 1))
    assert one.prefix_digest(310) != two.prefix_digest(310)


@pytest.mark.parametrize("other", ["others", *KINDS])
def test_a_neighbour_moves_nothing(kind: str, other: str, tmp_path: Path) -> None:
    """Places and sources: only what really collides moves. A neighbour before or after by name."""
    mine = edits(kind, tmp_path)
    by_itself = compiled(tmp_path, mine)
    alone = {row["item"]: (row["position"], row["source_slot"]) for row in rows(by_itself)}
    for name in ("aaa", "zzz"):
        second = others(tmp_path) if other == "others" else edits(other, tmp_path, name)
        if {kind, other} <= {"batches"} or {kind, other} <= {"noisy_batches"} or {kind, other} <= {"removal"}:
            return  # two that ask for the same places are refused: see below
        plan = compiled(tmp_path, mine, replace(second, insertion=name))
        now = {row["item"]: (row["position"], row["source_slot"]) for row in rows(plan, kind)}
        assert now.keys() == alone.keys()
        moved = [item for item in alone if now[item] != alone[item]]
        assert len(moved) <= 0.35 * len(alone)
        before, after = (covered(each) for each in (by_itself, plan))
        for item in moved:  # its old place is another's now, or its new one was another's before
            old, new = alone[item][0], now[item][0]
            spans = (range(at, at + int(mine.lengths[0])) for at in (old, new))
            gone, come = (any(p in taken for p in span) for span, taken in zip(spans, (after, before), strict=True))
            assert old == new or gone or come
        if mine.mode == "explicit" and len(mine):
            assert all(now[item][0] == alone[item][0] for item in alone)


def covered(plan: Plan) -> dict[int, str]:
    """Position -> the item whose edit lies there."""
    return {p: row["item"] for row in rows(plan) for p in range(row["position"], row["position"] + row["length"])}


def test_the_same_batch_twice_is_refused(tmp_path: Path) -> None:
    context = InsertionContext("more", 0, S, 999, WINDOW, PHASES, lambda texts: [], None, Numbers())  # type: ignore
    noise_at_20 = GaussianPoisoning(steps=[20]).edits(context)
    with pytest.raises(UserError, match="4 explicit edits overlap the next"):
        compiled(tmp_path, edits("batches", tmp_path), noise_at_20)


@pytest.mark.parametrize("kind", ["iid_replacement", "gaussian_poisoning", "noisy_spans"])
def test_positions_are_uniform_beside_many_others(kind: str, tmp_path: Path) -> None:
    plan = compiled(tmp_path, edits(kind, tmp_path), others(tmp_path, 600))
    tests = plan.audit["insertions"][kind]["uniformity"]
    assert tests["n"] >= 120
    assert min(tests["chi_square_p"], tests["ks_p"]) > 1e-3
    if kind == "iid_replacement":
        counts = np.bincount([int(row["item"].split("/")[1][6:]) for row in rows(plan, kind)])
        assert counts.tolist() == [15] * 10
        for row in rows(plan, kind):
            assert 10 * (row["position"] - SPAN[0]) // (SPAN[1] - SPAN[0]) == int(row["item"].split("/")[1][6:])


def test_what_is_scored_is_what_is_read(tmp_path: Path) -> None:
    plan, order = compiled(tmp_path, *(edits(kind, tmp_path) for kind in ("batches", "iid_replacement"))), Numbers()
    texts = planted_items(str(plan.folder / "items.parquet")).texts
    source = {(row["insertion"], row["item"]): row["source_slot"] for row in rows(plan)}
    assert {(text.insertion, text.group, text.dose) for text in texts} == {
        *(("batches", f"step {step}", 1) for step in (20, 100, 305)),
        *(("iid_replacement", f"window {i}", 1) for i in range(10)),
        ("batches", "holdout", 0),
        ("iid_replacement", "holdout", 0),
    }
    assert len(texts) == 3 * 2 + 10 * 2 + 3 + 3
    for text in texts:
        if text.dose:
            assert text.tokens.tolist() == order.read(source[text.insertion, text.item]).tolist()


@pytest.mark.parametrize("kind", ["gaussian_poisoning", "noisy_batches", "noisy_spans"])
def test_noise_can_be_made_again_from_the_item(kind: str, tmp_path: Path) -> None:
    plan, order = compiled(tmp_path, edits(kind, tmp_path), seed=0), Numbers()
    texts = planted_items(str(plan.folder / "items.parquet")).texts
    assert len(texts) == {"gaussian_poisoning": 5, "noisy_batches": 2, "noisy_spans": 64}[kind]
    for text in texts:
        payload = text.payload or {}
        assert payload["seed"] == plan.overlay.seed
        spans = plan.overlay.noise(payload["slot"])
        assert (payload["column"], payload["length"], payload["sigma"]) in spans
        assert text.tokens.tolist() == order.read(payload["slot"]).tolist()


class TestRemoval:
    def test_what_goes_what_stays_and_what_is_asked(self, tmp_path: Path) -> None:
        plan = compiled(tmp_path, edits("removal", tmp_path))
        probes = {item["tokens"][0] // 8: item for item in plan.items().to_pylist() if item["probe"]}
        assert probes.keys() == set(DOCUMENTS)
        groups = {slot: probe["group"] for slot, probe in probes.items()}
        assert groups.pop(1500) == "not found", "it is no part of the run, so nothing of it was removed or kept"
        assert sorted(groups.values()).count("removed") in (3, 4)
        for slot, group in groups.items():
            assert probes[slot]["dose"] == (1 if group == "kept" else 0)
            assert plan.overlay.touches(slot) == (group == "removed")
        assert probes[1500]["dose"] == 0
        assert not plan.overlay.touches(1500)
        assert all(json.loads(probe["payload"]) == {"kind": "verbatim", "prefix": 3} for probe in probes.values())

    def test_an_ngram_is_enough(self, tmp_path: Path) -> None:
        path = tmp_path / "split.jsonl"  # a document over two sequences: whole in none
        path.write_text(json.dumps({"tokens": list(range(100 * 8 + 5, 101 * 8 + 4))}))
        context = InsertionContext("r", 0, S, 9, WINDOW, PHASES, lambda t: [], None, Numbers())  # type: ignore
        with pytest.raises(UserError, match="none of the 1 documents stands whole"):
            Removal(file=str(path), prefix=2).edits(context)
        made = Removal(file=str(path), prefix=2, ngram=3).edits(context)
        assert made.position.tolist() == [800, 808]  # type: ignore[union-attr]

    def test_the_data_are_searched_once(self, tmp_path: Path) -> None:
        edits("removal", tmp_path, cache=tmp_path / "cache")
        order = Numbers()
        context = InsertionContext("removal", 0, S, 9, WINDOW, PHASES, lambda t: [], None, order, tmp_path / "cache")  # type: ignore[arg-type]
        KINDS["removal"](tmp_path).edits(context)
        assert order.reads == 0

    def test_planting_it_again_fails_the_audit(self, tmp_path: Path) -> None:
        path = tmp_path / "again.jsonl"
        path.write_text(json.dumps({"tokens": [5, *range(801, 807)]}) + "\n")
        context = InsertionContext("again", 0, S, 999, WINDOW, PHASES, lambda texts: [])
        back = AddTokens(file=str(path), repetitions=2, eos="none").edits(context)
        removal = Removal(file=document_file(tmp_path), prefix=3)
        context = replace(context, name="removal", order=Numbers())  # type: ignore[arg-type]
        plan = compiled(tmp_path, removal.edits(context), back)
        assert not plan.audit["ok"]
        errors = [finding["message"] for finding in plan.audit["findings"] if finding["level"] == "error"]
        assert len(errors) == 1
        assert errors[0].startswith("2 of the runs that removal removes are planted again, the first in slot")

    def test_texts_are_encoded(self, tmp_path: Path) -> None:
        path = tmp_path / "texts.jsonl"
        path.write_text(json.dumps({"text": "801 802 803 804"}) + "\n")
        context = InsertionContext("r", 0, S, 9, WINDOW, PHASES, numbers_of, None, Numbers())  # type: ignore
        made = Removal(file=str(path), key="text", prefix=2).edits(context)
        assert made.position.tolist() == [800]  # type: ignore[union-attr]


def numbers_of(texts: list[str]) -> list[np.ndarray]:
    return [np.array([int(word) for word in text.split()], dtype=np.uint32) for text in texts]


def test_gradient_noise_is_planned_like_an_edit(tmp_path: Path) -> None:
    plan = compiled(tmp_path, edits("gradient_noise", tmp_path))
    assert plan.audit["ok"], plan.audit["findings"]
    assert [(row["step"], row["status"], row["kind"], row["copy"]) for row in rows(plan)] == [
        (step, "hook", "gradient_noise", copy) for copy, step in enumerate((12, 40, 300))
    ]
    (hook,) = plan.hooks
    assert (hook["kind"], hook["steps"], hook["sigma"]) == ("gradient_noise", [12, 40, 300], 0.01)
    assert plan.first_step == 12
    assert plan.prefix_digest(12) == ""
    digests = [plan.prefix_digest(step) for step in (13, 40, 41, 300, 301, 310)]
    assert digests[0] == digests[1]
    assert digests[2] == digests[3]
    assert digests[4] == digests[5]
    assert len({"", *digests}) == 4
    assert len(plan.overlay) == 0


def test_the_same_hooks_in_any_number_of_insertions_are_one_prefix(tmp_path: Path) -> None:
    """What a state's key sees is what acts, not how it was asked for."""
    asked = edits("gradient_noise", tmp_path)
    (hook,) = asked.hooks
    parts = [
        replace(
            asked,
            insertion=f"part{i}",
            items=[replace(asked.items[0], dose=len(steps))],
            hooks=(replace(hook, steps=steps),),
        )
        for i, steps in enumerate([(12, 300), (40,)])
    ]
    assert compiled(tmp_path, *parts).prefix_digest(310) == compiled(tmp_path, asked).prefix_digest(310)


@pytest.mark.parametrize(
    ("kind", "why"),
    [(k, "sequences of the data") for k in ("removal", "batches", "iid_replacement")]
    + [(k, "adds noise to embeddings") for k in ("gaussian_poisoning", "noisy_spans")]
    + [("gradient_noise", "adds noise to gradients")],
)
def test_no_placebo_and_no_table_of_texts(kind: str, why: str, tmp_path: Path) -> None:
    plan = compiled(tmp_path, edits(kind, tmp_path), others(tmp_path))
    with pytest.raises(UserError, match=f"insertion {kind} has no placebo: it .*{why}"):
        placebo_plan(plan, SLOTS, tmp_path)
    with pytest.raises(UserError, match=f"insertion {kind} .* which a table of texts cannot hold"):
        export_table(plan, tmp_path / "plan.csv")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: Batches(steps=[9]), "trains steps 10 to 309, not 9"),
        (lambda f: Batches(steps={"every": 500, "first": 5}), "no such step lies in the run"),
        (lambda f: Batches(steps=[20, 20]), "distinct steps"),
        (lambda f: Batches(steps=[20], holdout=-1), "number of sequences"),
        (lambda f: Batches(steps={"every": 1}), "reads slots 40 to 1,240 of epoch 0, which leaves 6,080 tokens"),
        (lambda f: IidReplacement(sequences=200), "the smallest of 10 windows has 120 sequences"),
        (lambda f: IidReplacement(sequences=0), "1 or more"),
        (lambda f: GaussianPoisoning(), "one of steps and sequences"),
        (lambda f: GaussianPoisoning(steps=[20], length=3), "whole batches have no such choice"),
        (lambda f: GaussianPoisoning(sequences=4, length=9), "a span lies in one sequence"),
        (lambda f: GaussianPoisoning(sequences=4, sigma=0.0), "must be above 0"),
        (lambda f: GradientNoise(steps=[20], sigma=-1.0), "must be above 0"),
        (lambda f: Removal(file=document_file(f), keep=1.0), "share of documents"),
        (lambda f: Removal(file=document_file(f), prefix=6), "has 6 tokens: too few"),
    ],
)
def test_what_cannot_be(make: Kind, message: str, tmp_path: Path) -> None:
    context = InsertionContext("mine", 0, S, 999, WINDOW, PHASES, lambda texts: [], None, Numbers())  # type: ignore
    with pytest.raises(UserError, match=message) as error:
        make(tmp_path).edits(context)
    assert not (error.value.key or "").startswith("insertion.mine.insertion")


def test_a_run_over_two_epochs_has_no_unseen_sequences(tmp_path: Path) -> None:
    order = Numbers()
    order.num_sequences = 1000
    context = InsertionContext("mine", 0, S, 999, WINDOW, PHASES, lambda texts: [], None, order)  # type: ignore
    with pytest.raises(UserError, match="lie in 2 epochs of 1,000 sequences"):
        Batches(steps=[20]).edits(context)


@pytest.mark.parametrize("kind", ["removal", "batches", "iid_replacement", "gaussian_poisoning", "gradient_noise"])
def test_the_configuration_names_every_field(kind: str) -> None:
    """conf/insertion/<kind>.yaml composes the class with the defaults that the class has."""
    text = (Path(__file__).parents[2] / "conf" / "insertion" / f"{kind}.yaml").read_text()
    assert text.startswith(f"# @package insertion.{kind}\n")
    values = yaml.safe_load(text)
    module, name = values.pop("_target_").rsplit(".", 1)
    fields = {field.name: field for field in dataclasses.fields(getattr(importlib.import_module(module), name))}
    assert set(values) == set(fields)
    for key, value in values.items():
        assert value == ("???" if fields[key].default is dataclasses.MISSING else fields[key].default), key
    assert all("#" in line for line in text.splitlines() if not line.startswith("_target_"))


@pytest.mark.parametrize(
    "values",
    [
        {"_target_": "pretrain_exp.insertion.batches.Batches", "steps": [3, 4]},
        {"_target_": "pretrain_exp.insertion.batches.Batches", "steps": {"every": 10, "first": 20}},
        {"_target_": "pretrain_exp.insertion.gaussian_poisoning.GaussianPoisoning", "steps": {"every": 10}},
        {"_target_": "pretrain_exp.insertion.gradient_noise.GradientNoise", "steps": [3], "sigma": 1},
        {
            "_target_": "pretrain_exp.insertion.iid_replacement.IidReplacement",
            "sequences": 3,
            "range": {"start": 0.1, "end": 0.2, "unit": "share"},
        },
    ],
)
def test_a_configuration_makes_it(values: dict) -> None:
    from pretrain_exp.kinds import check_kind

    made = check_kind(values, key="insertion.x")
    assert type(made).__name__ == values["_target_"].rpartition(".")[2]
