"""What is removed stays away from what a closed loop plants: its pool, searched before the run, and every slice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pretrain_exp.control.base import Decision
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.dynamic_control import DynamicControl
from pretrain_exp.plan.absence import Absent
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import EditItem, Edits, Window
from pretrain_exp.plan.folder import Plan

S, BATCH, EVERY, STEPS = 32, 4, 5, 20
PHASES, WINDOW = Phases([Phase(0, BATCH, S)]), Window(0, STEPS)
GONE = "forbidden words"
RUNS = [GONE, "ab"]  # of other lengths: one stands in the pool's texts, and over the edge of two of them


class Zeros:
    """A data order of zeros."""

    sequence_length = S

    def read(self, slot: int) -> np.ndarray:
        return np.zeros(S, np.uint32)


def tokens(text: str) -> np.ndarray:
    return np.array([ord(c) for c in text], np.uint32)


def context(name: str) -> InsertionContext:
    return InsertionContext(name, 0, S, 0, WINDOW, PHASES, lambda texts: [tokens(text) for text in texts])


def loop(folder: Path, *texts: str) -> DynamicControl:
    """A loop with a pool of these texts."""
    file, probes = folder / "texts.jsonl", folder / "probes.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    probes.write_text('{"prompt": "p", "target": "x"}\n')
    controller = {"_target_": "pretrain_exp.control.doubling.Doubling", "target": 0.1, "maximum": 4}
    return DynamicControl(every=EVERY, controller=controller, file=str(file), probes=str(probes), eos="none")


def removing(*runs: str) -> Edits:
    """What a removal asks for; what it replaces is no matter here."""
    none = np.zeros(0, np.int32)
    item = EditItem("document", tokens(GONE), probe=True)
    return Edits("removal", [item], none, none, absent=[tokens(run) for run in runs])


def planned(folder: Path, *edits: Edits, below: Plan | None = None) -> Plan:
    return compile_plan(edits, PHASES, WINDOW, 0, "treated", folder / "plans", below=below, order=Zeros())  # type: ignore[arg-type]


def sliced(
    kind: DynamicControl, k: int, below: Plan, folder: Path, count: int = 0, texts: tuple[str, ...] = ()
) -> Plan:
    """The plan with slice k, of texts of the pool and of the controller, on top of another."""
    span = (PHASES.position_of_step(k * EVERY), PHASES.position_of_step((k + 1) * EVERY))
    edits, _ = kind.slice_edits(context("loop"), Decision({}, count, texts), 0, span)
    return planned(folder, edits, below=below)


def said(plan: Plan, level: str) -> list[str]:
    return [f["message"] for f in plan.audit["findings"] if (f["check"], f["level"]) == ("absence", level)]


@pytest.mark.parametrize(
    ("pool", "held"),
    [(["aa", "bb"], 0), (["aa", f"the {GONE}"], 1), ([GONE, "b", f"{GONE} {GONE}"], 3), (["a", "b", "forbidden"], 0)],
    ids=["none", "one", "thrice", "in pieces of two texts"],
)
def test_the_pool_is_searched_before_the_run(tmp_path: Path, pool: list[str], held: int) -> None:
    plan = planned(tmp_path, loop(tmp_path, *pool).edits(context("loop")), removing(*RUNS))
    assert plan.audit["ok"] == (not held)
    if held:
        (found,) = said(plan, "error")
        assert found.startswith(
            f"{held} of the runs that removal removes stand in texts that loop may plant later; item"
        )
        assert found.endswith("of insertion.loop holds it: take it out there, or out of what insertion.removal removes")
    else:
        (found,) = said(plan, "note")
        assert found.endswith(f"changed here, nor in any of the {len(pool)} texts that may be planted later")


def test_a_plan_refused_for_its_pool_is_planned_when_the_pool_is_mended(tmp_path: Path) -> None:
    for pool, ok in (([GONE], False), (["aa"], True), ([GONE], False)):
        plan = planned(tmp_path, loop(tmp_path, *pool).edits(context("loop")), removing(*RUNS))
        assert plan.audit["ok"] == ok


def test_every_slice_is_searched_and_only_that(tmp_path: Path) -> None:
    kind = loop(tmp_path, "aa", "cc")
    static = planned(tmp_path, kind.edits(context("loop")), removing(*RUNS))
    first = sliced(kind, 0, static, tmp_path, count=2)
    assert "any of the 2 sequences that are changed here" in said(first, "note")[0]
    second = sliced(kind, 1, first, tmp_path, texts=("new",))
    assert (second.audit["ok"], [run.tolist() for run in Absent.stored(second.folder).runs]) == (
        True, [tokens(run).tolist() for run in RUNS]
    )  # fmt: skip
    again = sliced(kind, 2, second, tmp_path, texts=("fine", f"a program's {GONE}"))
    assert not again.audit["ok"]
    (found,) = said(again, "error")
    assert found.startswith("1 of the runs that removal removes are planted again, the first in slot")
    assert "of insertion.loop holds it" in found


def test_the_plan_is_the_same_to_what_is_trained_with_and_without(tmp_path: Path) -> None:
    kind = loop(tmp_path, "aa")
    plain, asked = (planned(tmp_path, kind.edits(context("loop")), removing(*runs)) for runs in ((), RUNS))
    assert plain.fingerprint != asked.fingerprint
    assert not (plain.folder / "absent.parquet").exists()
    slices = [sliced(kind, 0, plan, tmp_path, count=1) for plan in (plain, asked)]
    assert len({plan.prefix_digest(STEPS) for plan in slices}) == 1
