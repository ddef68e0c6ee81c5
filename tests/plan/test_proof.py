"""The proof: silent on a sound run, and every fault in what was read is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from plan_samples import S, edits, stream, train

from pretrain_exp.data.order import ShuffledOrder
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.errors import UserError
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.edits import Window
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.placebo import placebo_plan
from pretrain_exp.plan.proof import verify_reads
from pretrain_exp.plan.proof_arms import compare_arms
from pretrain_exp.plan.proof_order import PlainOrder, PlainSteps, permuted

PHASES = Phases([Phase(0, 4, S), Phase(15, 8, S)])
STEPS = range(5, 25)
Logs = list[np.ndarray]


@pytest.fixture
def order(tmp_path: Path) -> ShuffledOrder:
    return ShuffledOrder(stream(tmp_path, 300 * S + 11, parts=3), S, seed=3)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    window = Window(STEPS.start, STEPS.stop)
    span = (PHASES.position_of_step(STEPS.start), PHASES.position_of_step(STEPS.stop))
    asked = [
        edits("a", [5, 9, 4], [6, 2, 0], span),
        edits("c", [6, 2 * S + 5], 1, positions=[span[0], span[0] + 30 * S + 20]),  # one crosses three sequences
    ]
    return compile_plan(asked, PHASES, window, 0, "treated", tmp_path / "plans")


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_sound_run_passes(order: ShuffledOrder, plan: Plan, ranks: int) -> None:
    reads = train(order, plan, PHASES, STEPS, ranks)
    result = verify_reads(order.to_json(), plan.folder, reads, PHASES, STEPS)
    assert result.ok, result.describe()
    assert result.rows_checked == result.rows_expected == 10 * 4 + 10 * 8
    assert result.rows_planned == len(set(plan.overlay.arrays["slot"].tolist()))
    assert "0 differ from the plan, 0 missing, 0 twice" in result.describe()


def test_positions_are_counted_by_the_proof_itself(
    order: ShuffledOrder, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in Phases that plan and workers share is one that the proof does not."""
    reads = train(order, plan, PHASES, STEPS)
    right = Phases.locate
    monkeypatch.setattr(Phases, "locate", lambda self, positions: right(self, positions + 1))
    for name in ("first_slot", "step_row", "position", "batch_size", "position_of_step"):
        monkeypatch.setattr(Phases, name, lambda *_, name=name: pytest.fail(f"{name} was asked"))
    result = verify_reads(order.to_json(), plan.folder, reads, PHASES, STEPS)
    assert result.ok, result.describe()


def test_steps_counted_one_by_one_are_the_phases() -> None:
    phases = Phases([Phase(0, 4, 8), Phase(3, 5, 16), Phase(4, 2, 4)])
    plain = PlainSteps(phases.to_json(), 9)
    positions = np.arange(phases.position_of_step(9))
    slots, columns = phases.locate(positions)
    steps, rows = phases.step_row(slots)
    for mine, theirs in zip(plain.locate(positions), (steps, rows, columns), strict=True):
        assert mine.tolist() == theirs.tolist()
    first = phases.position(np.unique(slots), np.zeros_like(np.unique(slots)))
    assert [plain.start(int(slot)) for slot in np.unique(slots)] == first.tolist()
    assert plain.size.tolist() == [phases.batch_size(step) for step in range(9)]


@pytest.mark.parametrize("seed", [None, 0, 2**63])
def test_control_placebo_and_later_epochs_pass(tmp_path: Path, plan: Plan, seed: int | None) -> None:
    order = ShuffledOrder(stream(tmp_path, 300 * S), S, seed)
    assert verify_reads(order.to_json(), None, train(order, None, PHASES, STEPS), PHASES).ok
    placebo = placebo_plan(plan, order.num_sequences, tmp_path / "plans")
    result = verify_reads(order.to_json(), placebo.folder, train(order, placebo, PHASES, STEPS), PHASES)
    assert result.ok, result.describe()
    assert result.rows_planned == len(set(plan.overlay.arrays["slot"].tolist()))
    late = range(95, 105)  # slots 700 and more: the third epoch
    assert verify_reads(order.to_json(), None, train(order, None, PHASES, late), PHASES, late).ok


def _planted_row(plan: Plan) -> int:
    return int(plan.overlay.arrays["slot"][3]) - PHASES.first_slot(STEPS.start)


def _flip(logs: Logs, plan: Plan, order: ShuffledOrder, index: int) -> None:
    """One token of one row was read with its lowest bit turned."""
    slot = int(logs[0]["slot"][index])
    tokens = plan.overlay.apply(slot, order.read(slot)).copy()
    tokens[S - 1] ^= 1
    logs[0]["digest"][index] = np.void(row_digest(tokens))


def _shift(logs: Logs, plan: Plan, order: ShuffledOrder) -> None:
    """Step 9 read the batch of step 10, and logged it as its own."""
    log = logs[0]
    nine, ten = log["step"] == 9, log["step"] == 10
    log["digest"][nine] = log["digest"][ten]


def _shift_slots(logs: Logs, plan: Plan, order: ShuffledOrder) -> None:
    _shift(logs, plan, order)
    log = logs[0]
    log["slot"][log["step"] == 9] += 4


def _miss(logs: Logs, plan: Plan, order: ShuffledOrder) -> None:
    """One planted row was read as the data have it."""
    i = _planted_row(plan)
    logs[0]["digest"][i] = np.void(row_digest(order.read(int(logs[0]["slot"][i]))))


@pytest.mark.parametrize(
    ("damage", "count", "planned", "reason"),
    [
        (lambda logs, plan, order: _flip(logs, plan, order, _planted_row(plan)), 1, True, "differ from the planned"),
        (lambda logs, plan, order: _flip(logs, plan, order, 119), 1, False, "no edit is planned"),
        (_shift, 4, None, "holds the tokens of slot 40"),
        (_shift_slots, 4, None, "slot 40 was read, this row is slot 36"),
        (_miss, 1, True, "the edit was not applied"),
        (
            lambda logs, plan, order: logs[0]["slot"].__setitem__(7, 99),
            1,
            None,
            "slot 99 was read, this row is slot 27",
        ),
    ],
)
def test_wrong_rows_are_found(
    order: ShuffledOrder, plan: Plan, damage: Callable, count: int, planned: bool | None, reason: str
) -> None:
    reads = train(order, plan, PHASES, STEPS)
    assert not plan.overlay.touches(PHASES.first_slot(STEPS.stop) - 1)
    damage(reads, plan, order)
    result = verify_reads(order.to_json(), plan.folder, reads, PHASES, STEPS)
    assert not result.ok
    assert (result.num_mismatches, result.num_missing, result.num_duplicate) == (count, 0, 0)
    first = result.mismatches[0]
    assert reason in first.reason
    assert first.slot == PHASES.first_slot(first.step) + first.row
    if planned is not None:
        assert first.planned == planned


def test_a_log_that_ends_before_the_plan(order: ShuffledOrder, plan: Plan) -> None:
    result = verify_reads(order.to_json(), plan.folder, train(order, plan, PHASES, range(5, 12)), PHASES)
    assert result.ok, result.describe()
    assert verify_reads(order.to_json(), plan.folder, [], PHASES).rows_expected == 0


@pytest.mark.parametrize(
    ("damage", "missing", "duplicate"),
    [
        (lambda logs: [np.delete(logs[0], 17), logs[1]], 1, 0),
        (lambda logs: [np.append(logs[0], logs[0][17:18]), logs[1]], 0, 1),
        (lambda logs: logs[:1], 60, 0),
        (lambda logs: [log[log["step"] < 24] for log in logs], 8, 0),
        (lambda logs: [logs[0], logs[0], logs[1]], 0, 60),
        (lambda logs: [], 120, 0),
    ],
    ids=["a row", "a row twice", "a rank's log", "the last step", "a log twice", "all"],
)
def test_missing_and_repeated_rows_are_found(
    order: ShuffledOrder, plan: Plan, damage: Callable[[Logs], Logs], missing: int, duplicate: int
) -> None:
    reads = damage(train(order, plan, PHASES, STEPS, ranks=2))
    result = verify_reads(order.to_json(), plan.folder, reads, PHASES, STEPS)
    assert not result.ok
    assert (result.num_missing, result.num_duplicate, result.num_mismatches) == (missing, duplicate, 0)
    assert len(result.missing) == min(missing, 100)
    if missing == 1:
        assert result.missing == [(13, 2)]


def test_rows_of_no_step_are_found(order: ShuffledOrder, plan: Plan) -> None:
    reads = train(order, plan, PHASES, range(5, 26))
    result = verify_reads(order.to_json(), plan.folder, reads, PHASES, STEPS)
    assert "8 logged rows belong to no step of 5 to 25" in result.describe()
    assert not result.ok


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("digest", "00" * 16, "a digest or length"),
        ("row", 99, "another step, row"),
        ("length", 3, "a digest or length"),
    ],
)
def test_a_damaged_ledger_is_found(order: ShuffledOrder, plan: Plan, column: str, value: object, said: str) -> None:
    reads = train(order, plan, PHASES, STEPS)
    rows = plan.ledger().to_pylist()
    rows[1][column] = value
    pq.write_table(plan.ledger().from_pylist(rows, plan.ledger().schema), plan.folder / "ledger.parquet")
    result = verify_reads(order.to_json(), plan.folder, reads, PHASES, STEPS)
    assert said in " ".join(result.ledger_errors)
    assert not result.ok


def test_data_changed_after_the_run_is_found(order: ShuffledOrder, plan: Plan) -> None:
    reads = train(order, plan, PHASES, STEPS)
    file = order.files.files[2]
    Path(file.path).write_bytes(b"\0" * Path(file.path).stat().st_size)
    assert verify_reads(order.to_json(), plan.folder, reads, PHASES, STEPS).num_mismatches > 10


@pytest.mark.parametrize("n", [1, 2, 3, 5, 1000, 1023, 1024, 5000])
@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (7, 3), (2**64 - 1, 1)])
def test_the_order_is_evaluated_as_defined(n: int, seed: int, epoch: int) -> None:
    from pretrain_exp.data.permutation import Permutation

    images = permuted(np.arange(n), n, seed, epoch)
    assert sorted(images.tolist()) == list(range(n))
    assert images.tolist() == [Permutation(n, seed, epoch)(i) for i in range(n)]


def test_rows_cross_files(tmp_path: Path) -> None:
    order = ShuffledOrder(stream(tmp_path, 20 * S + 3, parts=7), S, seed=None)
    slots = np.arange(25)
    assert PlainOrder(order.to_json()).rows(slots).tolist() == [order.read(int(slot)).tolist() for slot in slots]


def test_an_unknown_order_is_named() -> None:
    with pytest.raises(UserError, match="cannot evaluate this kind"):
        PlainOrder({"kind": "magic"})


class TestArms:
    def test_arms_differ_where_planned(self, order: ShuffledOrder, plan: Plan) -> None:
        treated, control = train(order, plan, PHASES, STEPS, 2), train(order, None, PHASES, STEPS, 3)
        found = compare_arms(treated, control, plan.ledger(), PHASES)
        assert found.ok
        assert found.rows_compared == 120
        assert found.rows_planned == len(set(plan.overlay.arrays["slot"].tolist()))

    def test_what_differs_or_agrees_wrongly_is_found(self, order: ShuffledOrder, plan: Plan) -> None:
        treated, control = train(order, plan, PHASES, STEPS), train(order, None, PHASES, STEPS)
        _miss(treated, plan, order)
        control[0]["digest"][119] = np.void(b"x" * 16)
        found = compare_arms(treated, [np.delete(control[0], 118)], plan.ledger(), PHASES)
        i = _planted_row(plan)
        assert found.agree == [(int(treated[0]["step"][i]), int(treated[0]["row"][i]))]
        assert found.differ == [(24, 7)]
        assert found.one_sided == [(24, 6)]
        assert "1 differ without an edit, 1 agree although planted, 1 in one arm only" in found.describe()
        assert "the first at step 24, row 7" in found.describe()

    def test_arms_that_share_a_prefix(self, order: ShuffledOrder, plan: Plan) -> None:
        """The treated run starts from a state of the control, so both come with the same log of the steps before."""
        span = (PHASES.position_of_step(9), PHASES.position_of_step(STEPS.stop))
        asked = [edits("a", [5, 9, 4], [6, 2, 0], span)]
        plan = compile_plan(asked, PHASES, plan.window, 0, "treated", plan.folder.parent)
        first = plan.first_step or 0
        assert first >= 9
        shared = train(order, None, PHASES, range(STEPS.start, first), 2)
        rest = range(first, STEPS.stop)
        treated, control = train(order, plan, PHASES, rest, 3), train(order, None, PHASES, rest)
        found = compare_arms([*shared, *treated], [*shared, *control], plan.ledger(), PHASES)
        assert found.ok
        assert (found.rows_compared, found.rows_planned) == (120, len(set(plan.overlay.arrays["slot"].tolist())))
        placebo = placebo_plan(plan, order.num_sequences, plan.folder.parent)
        found = compare_arms([*shared, *train(order, placebo, PHASES, rest)], control, plan.ledger(), PHASES)
        assert found.ok

    def test_only_shared_steps_count(self, order: ShuffledOrder, plan: Plan) -> None:
        found = compare_arms(
            train(order, plan, PHASES, STEPS), train(order, None, PHASES, range(20)), plan.ledger(), PHASES
        )
        assert found.ok
        assert found.rows_compared == 10 * 4 + 5 * 8
        assert replace(found, one_sided=[(1, 1)]).ok is False
