"""Learning-rate schedules against their closed forms and against the schedulers of torch and transformers."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pretrain_exp.framework.huggingface.schedule import NAMES, Schedule


def factors_of(scheduler: torch.optim.lr_scheduler.LRScheduler, updates: int) -> list[float]:
    """The factor of torch's scheduler after 1, 2, ... updates; ours counts the update itself."""
    found = []
    for _ in range(updates):
        scheduler.optimizer.step()
        scheduler.step()
        found.append(scheduler.get_last_lr()[0])
    return found


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd"])
def test_equals_transformers(name: str) -> None:
    from transformers import optimization

    theirs = {
        "cosine": lambda o: optimization.get_cosine_schedule_with_warmup(o, 10, 100),
        "linear": lambda o: optimization.get_linear_schedule_with_warmup(o, 10, 100),
        "wsd": lambda o: optimization.get_wsd_schedule(o, 10, 30, num_stable_steps=60, decay_type="linear"),
    }[name](optimizer())
    ours = Schedule(name, 100, warmup_steps=10, decay_steps=30)
    assert [ours.factor(step) for step in range(100)] == pytest.approx(factors_of(theirs, 100), abs=1e-12)


def test_equals_torch_cosine_annealing() -> None:
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer(), T_max=50, eta_min=0.1)
    ours = Schedule("cosine", 50, min_lr_ratio=0.1)
    assert [ours.factor(step) for step in range(50)] == pytest.approx(factors_of(theirs, 50), abs=1e-9)


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        (Schedule("constant", 10, warmup_steps=4), 0, 0.25),
        (Schedule("constant", 10, warmup_steps=4), 3, 1.0),
        (Schedule("constant", 10), 500, 1.0),
        (Schedule("linear", 10), 0, 0.9),
        (Schedule("linear", 10, min_lr_ratio=0.5), 9, 0.5),
        (Schedule("linear", 10, min_lr_ratio=0.5), 50, 0.5),
        (Schedule("cosine", 10, min_lr_ratio=0.2), 4, 0.6),
        (Schedule("wsd", 10, decay_steps=4), 5, 1.0),
        (Schedule("wsd", 10, decay_steps=4), 6, 0.75),
        (Schedule("wsd", 10, decay_steps=4), 9, 0.0),
    ],
)
def test_closed_forms(schedule: Schedule, step: int, factor: float) -> None:
    assert schedule.factor(step) == pytest.approx(factor, abs=1e-12)


@given(st.sampled_from(NAMES), st.integers(1, 500), st.data())
def test_bounded_and_rises_only_in_the_warm_up(name: str, total: int, data: st.DataObject) -> None:
    warmup = data.draw(st.integers(0, total))
    minimum = data.draw(st.floats(0, 1))
    schedule = Schedule(name, total, warmup, max(1, (total - warmup) // 2), minimum)
    factors = [schedule.factor(step) for step in range(total + 5)]
    assert all(0.0 < factor <= 1.0 + 1e-12 for factor in factors[: max(0, total - 1)])
    after = factors[max(0, warmup - 1) :]
    assert all(late <= early + 1e-12 for early, late in pairwise(after))
    assert min(after) >= minimum - 1e-12
