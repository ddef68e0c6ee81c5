"""How often what a closed loop is asked about was read: the mean over what it planted, never the sum."""

import pyarrow as pa
import pytest
from tiny import PROOF, results, study

from pretrain_exp.analysis.analyse import analyse
from pretrain_exp.analysis.loops import loops_of, planted, told, with_mean_doses

CONTROL = [{"member": "", "seed": seed, "insertion": "loop", "step": 0} for seed in (0, 1)]


def ledger(copies: dict[str, int], insertion: str = "loop", seed: int = 0, status: str = "planted") -> pa.Table:
    rows = [(name, step) for name, number in copies.items() for step in range(number)]
    given = {"member": "", "seed": seed, "insertion": insertion, "dose": 1, "length": 5, "status": status}
    return pa.Table.from_pylist([{**given, "item": name, "step": step} for name, step in rows])


def items(dose: int, names: tuple[str, ...] = ("i0", "i1"), probe: bool = True, insertion: str = "loop") -> pa.Table:
    given = {"member": "", "seed": 0, "insertion": insertion, "group": "", "text": "t", "probe": probe, "dose": dose}
    return pa.Table.from_pylist([{**given, "item": name} for name in names])


SIX = {f"t{i}": 5 + (i < 2) for i in range(6)}


@pytest.mark.parametrize(
    ("of_plan", "read", "dose"),
    [
        (items(32), [ledger(SIX)], 5),
        (items(32), [ledger(SIX), ledger({"t0": 90}, seed=1), ledger({"t0": 90}, "other")], 5),
        (items(32), [ledger(SIX), ledger({"t9": 90}, status="skipped")], 5),
        (items(7), [ledger({"f0:text/0": 3, "f0:text/1": 4, "f1:text/0": 7})], 7),  # of a fact, in all its texts
        (items(1), [ledger({"t0": 1})], 1),
        (items(0), [ledger(SIX)], 0),  # a holdout of the loop
        (items(6, probe=False), [ledger(SIX)], 6),  # a text knows how often it was planted
        (items(9, insertion="other"), [ledger(SIX)], 9),
        (items(4), [ledger({}), ledger({"t0": 3}, "other")], 4),  # nothing planted yet
    ],
)
def test_a_probe_has_the_mean(of_plan: pa.Table, read: list[pa.Table], dose: int) -> None:
    table = pa.concat_tables([each for each in read if len(each)])
    assert set(with_mean_doses(of_plan, planted(table, loops_of(CONTROL)))["dose"].to_pylist()) == {dose}


def test_what_was_planted_is_told_by_loop() -> None:
    table = pa.concat_tables([ledger(SIX), ledger({"t0": 40}, seed=1)])
    (sentence,) = told(planted(table, loops_of(CONTROL)))
    assert "it planted 32 to 40 copies of 1 to 6 texts or facts in each of 2 runs" in sentence
    assert list(told({})) == []


@pytest.mark.parametrize(("control", "said"), [(CONTROL, "Reading an item about 5 times"), ([], "Reading an item 5 t")])
def test_the_answer_says_that_a_dose_is_a_mean(control: list[dict[str, object]], said: str) -> None:
    scores = results({("", "treated", 0): [3.0, 2.5, 4.0], ("", "control", 0): [1.0, 1.0, 1.2]}, metric="own")
    planned = with_mean_doses(items(32, ("i0", "i1", "i2")), planted(ledger(SIX), {"loop"}))
    analysis = analyse(study(scores, planned, control=control, proofs=[{**PROOF, "ok": True}]), resamples=0)
    assert analysis.answers[0].startswith(said)
