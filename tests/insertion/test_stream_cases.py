"""What single kinds that act on the data do: removal, hooks, no placebo; every wrong input with its message."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from stream_samples import (
    DOCUMENTS,
    KINDS,
    PHASES,
    SLOTS,
    WINDOW,
    Kind,
    Numbers,
    S,
    compiled,
    document_file,
    edits,
    id_file,
    numbers_of,
    others,
    rows,
)

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.add_tokens import AddTokens
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.batches import Batches
from pretrain_exp.insertion.gaussian_poisoning import GaussianPoisoning
from pretrain_exp.insertion.gradient_noise import GradientNoise
from pretrain_exp.insertion.iid_replacement import IidReplacement
from pretrain_exp.insertion.removal import Removal
from pretrain_exp.plan.placebo import placebo_plan
from pretrain_exp.plan.replay import export_table


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
        (lambda f: Batches(steps={"every": 10, "first": -50}), "these are no steps"),
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
        (lambda f: Removal(file=id_file(f, 30_000), prefix=2), "row 1 of .* holds token 30000, the vocabulary has"),
        (lambda f: Removal(file=id_file(f, True), prefix=2), "must be a text or token ids"),
    ],
)
def test_what_cannot_be(make: Kind, message: str, tmp_path: Path) -> None:
    context = InsertionContext("mine", 0, S, 999, WINDOW, PHASES, lambda texts: [], 20_000, Numbers())  # type: ignore
    with pytest.raises(UserError, match=message) as error:
        make(tmp_path).edits(context)
    assert not (error.value.key or "").startswith("insertion.mine.insertion")


def test_a_run_over_two_epochs_has_no_unseen_sequences(tmp_path: Path) -> None:
    order = Numbers()
    order.num_sequences = 1000
    context = InsertionContext("mine", 0, S, 999, WINDOW, PHASES, lambda texts: [], None, order)  # type: ignore
    with pytest.raises(UserError, match="lie in 2 epochs of 1,000 sequences"):
        Batches(steps=[20]).edits(context)


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
