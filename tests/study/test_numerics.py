"""States of another numerics class: said, or refused, as configured."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pretrain_exp import experiment
from pretrain_exp.errors import UserError
from pretrain_exp.store.states import commit, stage


def member(policy, here):
    framework = SimpleNamespace(warnings=lambda model, training: [], numerics=lambda training: here)
    config = SimpleNamespace(numerics=policy)
    composed = SimpleNamespace(kinds=SimpleNamespace(framework=framework))
    return SimpleNamespace(config=config, composed=composed, data=None)


@pytest.fixture(autouse=True)
def _plain_facts(monkeypatch):
    monkeypatch.setattr(experiment, "training_facts", lambda config: {})
    monkeypatch.setattr(experiment, "model_facts", lambda *_: {})
    monkeypatch.setattr(experiment, "code_version", lambda: "c0de")


@pytest.fixture
def store(tmp_path):
    commit(tmp_path, stage(tmp_path, "k"), "k", {"step": 1, "numerics": {"world": 2, "torch": "2.13", "code": "c0de"}})
    return tmp_path


def test_the_same_class_is_not_worth_a_word(store):
    assert experiment.remarks([member("refuse", {"world": 2, "torch": "2.13"})], ["k"], [], store) == []


def test_another_class_is_said(store):
    (remark,) = experiment.remarks([member("warn", {"world": 1, "torch": "2.13"})], ["k"], [], store)
    assert "world 2 there, 1 here" in remark
    assert "torch" not in remark


def test_another_class_is_refused_where_that_is_the_policy(store):
    with pytest.raises(UserError, match=r"torch 2\.13 there, 2\.14 here"):
        experiment.remarks([member("refuse", {"world": 2, "torch": "2.14"})], ["k"], [], store)


def test_states_that_a_job_of_another_study_will_make_count_too(store):
    """They will be of the class that is written in its job, not of that of who asks."""
    saves = [{"key": "z", "record": {"numerics": {"world": 8, "torch": "2.13", "code": "c0de"}}}]
    training, scoring = SimpleNamespace(payload={"save": saves}), SimpleNamespace(payload={"evaluations": []})
    (remark,) = experiment.remarks([member("warn", {"world": 2, "torch": "2.13"})], ["k"], [training, scoring], store)
    assert "world 8 there, 2 here" in remark
    with pytest.raises(UserError, match="such as z"):
        experiment.remarks([member("refuse", {"world": 2, "torch": "2.13"})], [], [training, scoring], store)
