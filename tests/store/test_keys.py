"""Keys depend on what led to a state and on nothing else."""

from __future__ import annotations

import pytest

from pretrain_exp.store.keys import base_key, canonical, state_key


def test_the_order_of_facts_and_the_spelling_of_numbers_do_not_matter():
    assert base_key({"a": 0.10, "b": 1}) == base_key({"b": 1, "a": 1e-1})


@pytest.mark.parametrize("other", [("b2", 5, "p"), ("b", 6, "p"), ("b", 5, "q")])
def test_each_part_matters(other):
    assert state_key("b", 5, "p") != state_key(*other)


def test_known_keys_stay_the_same():
    assert base_key({"a": 1}) == "435ca6a290118e4aabb9"
    assert state_key("b", 5, "p") == "e3dd00e3356fd12d1eca"


def test_nan_is_refused():
    with pytest.raises(ValueError):
        canonical({"lr": float("nan")})
