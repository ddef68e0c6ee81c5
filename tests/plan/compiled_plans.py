"""A plan of two random insertions and an explicit one, compiled, and its rows."""

from __future__ import annotations

from pathlib import Path

from plan_samples import PHASES, SPAN, WINDOW, S, edits

from pretrain_exp.data.phases import Phases
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Edits
from pretrain_exp.plan.folder import Plan


def requests() -> list[Edits]:
    """Two random insertions with holdouts, one explicit whose last edit lies in three sequences."""
    return [
        edits("a", [5, 9, 12, 4], [3, 1, 0, 20]),
        edits("b", [S, 1], [2, 5], (SPAN[0] + 500, SPAN[0] + 2003)),
        edits("c", [6, 2 * S + 5], 1, positions=[SPAN[0], SPAN[0] + 30 * S + 20]),
    ]


def compiled(root: Path, asked: list[Edits] | None = None, seed: int = 0, phases: Phases = PHASES) -> Plan:
    asked = requests() if asked is None else asked
    return compile_plan(asked, phases, WINDOW, seed, "treated", root)


def rows(plan: Plan) -> list[dict]:
    return plan.ledger().to_pylist()
