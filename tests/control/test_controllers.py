"""Controllers: what they decide, against the algorithm written out by hand and a model that can be computed."""

from __future__ import annotations

import math

import pytest

from pretrain_exp.control.base import Decision, Seen
from pretrain_exp.control.doubling import Doubling
from pretrain_exp.control.pid import PID
from pretrain_exp.errors import UserError


def seen(step, value, state=None, total=100):
    return Seen(step, total, value, (), state or {}, model=None, pool=10, seed=0)


# step of 100, value, texts before -> texts, with target 0.08 at the end: p(50) = 0.04, its band 0.038 to 0.042
ALGORITHM = [
    (0, 0.00, 16, 16),  # nothing to react to yet
    (0, 0.90, 16, 16),
    (50, 0.040, 16, 16),
    (50, 0.042, 16, 16),
    (50, 0.0421, 16, 8),
    (50, 0.0421, 17, 8),  # whole texts
    (50, 0.038, 16, 16),
    (50, 0.0379, 16, 32),
    (50, 0.0379, 300, 556),  # at most 256 more
    (50, 0.9, 1000, 744),  # at most 256 less
    (50, 0.9, 1, 1),  # never less than one
    (50, 0.0, 8000, 8192),  # never more than the maximum
]


@pytest.mark.parametrize(("step", "value", "before", "texts"), ALGORITHM)
def test_doubling_is_algorithm_1(step, value, before, texts):
    controller = Doubling(target=0.08, start=16)
    decision = controller.decide(seen(step, value, {"count": before}))
    assert decision.count == texts
    assert decision.state == {"count": texts}
    assert decision.target == pytest.approx(0.08 * step / 100)


def test_the_first_segment_gets_the_start_value():
    assert Doubling(target=0.08, start=7).decide(seen(0, 0.5)).count == 7


@pytest.mark.parametrize(("step", "texts"), [(0, 1000), (9, 2000), (10, 1256), (59, 1064)])
def test_the_largest_change_may_depend_on_the_step(step, texts):
    controller = Doubling(target=0.08, max_change={10: 256, 59: 64})
    assert controller.decide(seen(step, 0.0, {"count": 1000})).count == texts


def follow(controller, rate=1e-4, decay=0.9, segments=60):
    """A model whose probability grows with every text and decays between: v <- decay (v + rate * texts)."""
    value, state, path = 0.0, {}, []
    for k in range(segments):
        decision = controller.decide(seen(k, value, state, total=segments))
        state = decision.state
        value = decay * (value + rate * decision.count)
        path.append((decision, value))
    return path


@pytest.mark.parametrize(
    "controller",
    [Doubling(target=0.08, start=1), PID(target=0.08, kp=200.0, ki=100.0), PID(target=0.08, ki=100.0, kd=50.0)],
    ids=["doubling", "pi", "pid"],
)
@pytest.mark.parametrize("rate", [1e-4, 2e-4])
def test_a_model_that_can_be_computed_is_led_to_the_target(controller, rate):
    path = follow(controller, rate)
    # the last quarter, on a rising target: within a third of it for steps of a factor two, within a tenth for PID
    slack = 0.35 if isinstance(controller, Doubling) else 0.1
    for k, (_, value) in list(enumerate(path, 1))[-15:]:
        target = 0.08 * k / len(path)
        assert abs(value - target) < slack * target, (k, value, target)


def test_pid_by_hand():
    controller = PID(target=0.1, rise="constant", start=10, kp=100.0, ki=10.0, kd=5.0)
    first = controller.decide(seen(0, 0.05))  # e = 0.5, its sum 0.5, no change yet
    assert first.count == 10 + 50 + 5
    second = controller.decide(seen(10, 0.08, first.state))  # e = 0.2, its sum 0.7, change -0.3
    assert second.count == round(10 + 20 + 7 - 1.5)
    assert second.state == pytest.approx({"error": 0.2, "sum": 0.7})


def test_pid_does_not_wind_up_at_its_bound():
    controller = PID(target=0.1, rise="constant", kp=100.0, ki=100.0, maximum=60)
    state = {}
    for step in range(50):  # the error stays, the bound holds
        decision = controller.decide(seen(step, 0.0, state))
        state = decision.state
        assert decision.count == 60
    # 10 % above the target: a sum of 50 errors would hold the bound for hundreds of segments more
    assert controller.decide(seen(60, 0.11, state)).count == 0


@pytest.mark.parametrize(
    ("kind", "fields", "key"),
    [
        (Doubling, {"target": 0.0}, "target"),
        (Doubling, {"target": 1.5}, "target"),
        (Doubling, {"target": 0.1, "start": 0}, "start"),
        (Doubling, {"target": 0.1, "start": 9000}, "start"),
        (Doubling, {"target": 0.1, "lower": 1.2}, "lower"),
        (Doubling, {"target": 0.1, "max_change": 0}, "max_change"),
        (PID, {"target": 0.1, "minimum": 5, "start": 1}, "start"),
    ],
)
def test_wrong_fields_are_refused(kind, fields, key):
    with pytest.raises(UserError) as error:
        kind(**fields)
    assert error.value.key == key


def test_decisions_are_json():
    import json

    for controller in (Doubling(target=0.1), PID(target=0.1)):
        decision = controller.decide(seen(50, 0.01))
        assert isinstance(decision, Decision)
        again = controller.decide(seen(60, 0.01, json.loads(json.dumps(dict(decision.state)))))
        assert again == controller.decide(seen(60, 0.01, decision.state))
        assert math.isfinite(again.target)
