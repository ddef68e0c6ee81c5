"""An insertion that nothing asks about is named before anything is trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pretrain_exp.paths import conf_dir, group_choices
from pretrain_exp.study.measured import MEASURED_BY, unmeasured


def config(insertions: list[str], evaluations: list[str]) -> Any:
    return SimpleNamespace(
        insertion={name: {"_target_": f"pretrain_exp.insertion.{name}.Kind"} for name in insertions},
        eval={name: {"_target_": f"pretrain_exp.eval.{name}.Kind"} for name in evaluations},
    )


@pytest.mark.parametrize(
    ("insertions", "evaluations", "named"),
    [
        (["knowledge"], ["multiple_choice"], ["knowledge"]),
        (["knowledge"], ["knowledge"], []),
        (["knowledge", "canaries"], ["exposure"], ["knowledge"]),
        (["canaries"], ["script"], []),
        (["my_own"], [], []),
        (["dynamic_control"], ["multiple_choice"], ["dynamic_control"]),
        (["dynamic_control"], ["knowledge"], []),
        (["add_texts"], ["knowledge"], ["add_texts"]),
        (["add_texts"], ["perplexity"], []),
    ],
)
def test_what_nothing_measures_is_named(insertions: list[str], evaluations: list[str], named: list[str]) -> None:
    found = unmeasured(config(insertions, evaluations))
    assert [sentence.split()[0] for sentence in found] == [f"insertion.{name}" for name in named]


def test_the_table_names_kinds_that_there_are() -> None:
    choices = group_choices(conf_dir())
    assert set(MEASURED_BY) <= set(choices["insertion"])
    assert {each for ways in MEASURED_BY.values() for each in ways} <= set(choices["eval"])
