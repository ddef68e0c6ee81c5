"""What a study asks to be scored: each once, whoever of its members asks."""

from __future__ import annotations

from pathlib import Path

from pretrain_exp.study.coming import Coming
from pretrain_exp.study.jobs import EvaluationRequest, EvaluationSpec
from pretrain_exp.study.planning import unshared


def request(state: str, *names: str) -> EvaluationRequest:
    specs = tuple(EvaluationSpec(name, f"kinds.{name}", {}, fingerprint=name, identity="") for name in names)
    return EvaluationRequest(state, state, specs, framework={}, inputs={}, settings={}, retries=0)


def test_members_that_share_a_state_score_what_they_share_once(tmp_path: Path) -> None:
    """Losses on held-out documents are the same for all; the items of each member's plan are its own."""
    asked = [request("s", "loss", "items1"), request("s", "loss", "items2"), request("t", "loss"), request("s", "loss")]
    left = unshared(asked, tmp_path, Coming())
    names = [(one.state, [spec.name for spec in one.evaluations]) for one in left]
    assert names == [("s", ["loss", "items1"]), ("s", ["items2"]), ("t", ["loss"]), ("s", [])]
