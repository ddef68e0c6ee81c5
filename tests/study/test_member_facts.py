"""What enters a key and what does not, and plans that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from pretrain_exp.errors import Problems
from pretrain_exp.plan.folder import refuse_failed_audit
from pretrain_exp.study.facts import init_matters, schedule_facts
from pretrain_exp.study.records import model_name, seeds_that_matter
from pretrain_exp.study.results import _varies

SCHEDULE = {"name": "cosine", "warmup_steps": 5, "total_steps": 100, "decay_steps": 10, "min_lr_ratio": 0.1}

NO_EFFECT = [
    ("constant", "total_steps", 200),
    ("constant", "decay_steps", 20),
    ("constant", "min_lr_ratio", 0.5),
    ("cosine", "decay_steps", 20),
    ("linear", "decay_steps", 20),
]
EFFECT = [
    ("constant", "warmup_steps", 6),
    ("cosine", "total_steps", 200),
    ("linear", "min_lr_ratio", 0.5),
    ("wsd", "decay_steps", 20),
    ("wsd", "total_steps", 200),
]


@pytest.mark.parametrize(("name", "field", "value"), NO_EFFECT)
def test_a_field_that_the_schedule_does_not_read_is_in_no_key(name, field, value):
    assert schedule_facts({**SCHEDULE, "name": name}) == schedule_facts({**SCHEDULE, "name": name, field: value})


@pytest.mark.parametrize(("name", "field", "value"), EFFECT)
def test_a_field_that_it_reads_is(name, field, value):
    assert schedule_facts({**SCHEDULE, "name": name}) != schedule_facts({**SCHEDULE, "name": name, field: value})


@pytest.mark.parametrize(
    ("config", "matters"),
    [({"attention_dropout": 0.0}, False), ({"resid_pdrop": 0.1}, True), ({"hidden_dropout": 0.1}, True), ({}, False)],
)
def test_the_init_seed_of_a_checkpoint_matters_where_there_is_dropout(config, matters, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config, indent="\t"))  # which is no YAML
    assert init_matters({"kind": "hf", "checkpoint": str(tmp_path)}) is matters


@pytest.mark.parametrize(("residual", "matters"), [(0.0, False), (0.1, True)])
def test_the_same_of_a_trainers_own_checkpoint(residual, matters, tmp_path):
    (tmp_path / "config.yaml").write_text(f"model:\n  residual_dropout: {residual}\n  drop_last: true\n")
    assert init_matters({"kind": "hf", "checkpoint": str(tmp_path)}) is matters


@pytest.mark.parametrize(
    ("name", "checkpoint", "said"),
    [
        ("hf", "EleutherAI/pythia-70m", "pythia-70m"),
        ("hf", "/runs/mine/", "mine"),
        ("hf", "outputs/store/states/3f2a/checkpoint", "3f2a"),
        ("hf", None, "hf"),
        ("tiny", None, "tiny"),
        ("olmo2_1b", "/runs/mine", "olmo2_1b"),
    ],
)
def test_how_titles_name_a_model(name, checkpoint, said):
    assert model_name(SimpleNamespace(name=name, checkpoint=checkpoint)) == said


def test_a_seed_that_matters_to_some_members_varies_by_what_these_have():
    """A model from scratch beside one from a checkpoint without dropout, whose record names no seed.init."""
    members = [{"seeds": {"order": 0, "init": 3}}, {"seeds": {"order": 1}}]
    assert _varies(members) == {"order": [0, 1], "init": [3]}


def test_the_init_seed_matters_from_scratch():
    assert init_matters({"kind": "scratch"})


@pytest.mark.parametrize(
    ("data_seed", "permute", "matter"),
    [(None, False, True), (None, True, True), (6198, False, False), (6198, True, True), (0, False, False)],
)
def test_the_order_seed_of_an_official_order_matters_where_its_window_is_permuted(data_seed, permute, matter):
    config = SimpleNamespace(
        model=SimpleNamespace(data_seed=data_seed), training=SimpleNamespace(permute_window=permute)
    )
    seeds = {"placement": 1, "order": 1, "init": 1}
    member = SimpleNamespace(config=config, seeds=seeds, initial={"kind": "scratch"})
    assert seeds_that_matter(member) == {name: 1 for name in seeds if name != "order" or matter}


def test_a_plan_that_failed_its_audit_is_never_trained():
    finding = {"level": "error", "check": "dose", "message": "item x was planted 3 times, not 4"}
    plan = SimpleNamespace(audit={"ok": False, "findings": [finding]}, folder=Path("plans/x"))
    with pytest.raises(Problems, match="planted 3 times"):
        refuse_failed_audit(plan)
    refuse_failed_audit(SimpleNamespace(audit={"ok": True, "findings": [finding]}, folder=Path("plans/x")))
