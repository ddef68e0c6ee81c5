"""Arms that read one insertion alone: the same edits at the same places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import EditItem, Edits, Hook, Window
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.overlay import noise_values
from pretrain_exp.plan.restrict import acting_insertions, restricted_plan

S = 16


PHASES, WINDOW = Phases([Phase(0, 4, S)]), Window(2, 22)
SPAN = (PHASES.position_of_step(2), PHASES.position_of_step(22))


def texts(name: str, lengths: list[int], copies: int) -> Edits:
    tokens = [np.arange(1000 * (i + 1), 1000 * (i + 1) + n, dtype=np.uint32) + len(name) for i, n in enumerate(lengths)]
    items = [EditItem(f"{name}{i}", run, f"text {i}", dose=copies) for i, run in enumerate(tokens)]
    item = np.repeat(np.arange(len(items), dtype=np.int32), copies)
    return Edits(name, items, item, np.tile(np.arange(copies, dtype=np.int32), len(items)), span=SPAN)


def compiled(folder: Path, lengths: list[int], copies: int, seed: int) -> Plan:
    """Texts of two insertions, one edit over two sequences, noise, an unseen sequence, and a hook."""
    none, one = np.zeros(0, np.int32), np.zeros(1, np.int32)
    empty = np.zeros(0, np.uint32)
    wide = EditItem("w", np.arange(S + 3, dtype=np.uint32), dose=1)
    requests = [
        texts("a", lengths, copies),
        texts("bb", lengths[::-1], copies + 1),
        Edits("wide", [wide], one, one, "explicit", position=np.array([PHASES.position_of_step(3) + 5])),
        Edits(
            "noise", [EditItem("n", empty, dose=1)], one, one, span=SPAN, kind="noise",
            length=np.array([7]), sigma=np.array([0.5], np.float32),
        ),
        Edits(
            "swap", [EditItem("s", empty, dose=1)], one, one, span=SPAN, kind="base",
            length=np.array([S]), unseen=(SPAN[1], SPAN[1] + 8 * S),
        ),
        Edits(
            "hook", [EditItem("h", empty, dose=2)], none, none, "explicit", position=none.astype(np.int64),
            hooks=(Hook("h", "gradient_noise", (4, 9), 0.1, 77),),
        ),
    ]  # fmt: skip
    return compile_plan(requests, PHASES, WINDOW, seed, "treated", folder)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, S), min_size=1, max_size=4), st.integers(1, 3), st.integers(0, 9))
def test_a_restricted_plan_is_the_same_edits_at_the_same_places(
    tmp_path: Path, lengths: list[int], copies: int, seed: int
) -> None:
    plan = compiled(tmp_path, lengths, copies, seed)
    whole = plan.ledger().drop_columns(["arm"])
    names = acting_insertions(plan)
    assert names == ["a", "bb", "hook", "noise", "swap", "wide"]
    alone = {name: restricted_plan(plan, [name], tmp_path, f"only_{name}") for name in names}
    assert len({one.fingerprint for one in [plan, *alone.values()]}) == 7
    for name, one in alone.items():
        assert one.audit["ok"]
        assert one.arm == f"only_{name}"
        assert one.ledger().drop_columns(["arm"]).equals(whole.filter(pc.equal(whole["insertion"], name)))
    assert sum(len(one.overlay) for one in alone.values()) == len(plan.overlay)
    assert alone["hook"].hooks == plan.hooks
    assert not any(alone[name].hooks for name in names if name != "hook")
    read = np.arange(10_000, 10_000 + 1000 * S, dtype=np.uint32).reshape(1000, S).__getitem__
    for slot in range(PHASES.first_slot(2), PHASES.first_slot(22)):
        together, changed = plan.overlay.apply(slot, read(slot), read), np.zeros(S, bool)
        for one in alone.values():
            edited = one.overlay.apply(slot, read(slot), read)
            here = edited != read(slot)
            assert (edited[here] == together[here]).all()
            assert not (here & changed).any()
            changed |= here
        assert ((together != read(slot)) == changed).all()
        assert alone["noise"].overlay.noise(slot) == plan.overlay.noise(slot)
    assert alone["noise"].overlay.seed == plan.overlay.seed  # so the very same noise
    assert noise_values(plan.overlay.seed, 1, 0, 2, 3).shape == (2, 3)


def test_all_insertions_together_are_the_plan(tmp_path: Path) -> None:
    plan = compiled(tmp_path, [3, 9], 2, 0)
    same = restricted_plan(plan, acting_insertions(plan), tmp_path, "treated")
    assert same.fingerprint == plan.fingerprint
    other = restricted_plan(plan, acting_insertions(plan), tmp_path, "other")
    assert other.fingerprint != plan.fingerprint
    assert other.prefix_digest(22) == plan.prefix_digest(22)  # so its states are the treated arm's
    with pytest.raises(ValueError, match="no insertion x"):
        restricted_plan(plan, ["x"], tmp_path, "only_x")
