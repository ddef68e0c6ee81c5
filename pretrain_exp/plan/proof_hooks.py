"""The proof of training hooks: what a run logged of them in, every step at which they acted otherwise than planned out.

A worker logs the root mean square of the noise that it added to the gradient, at the steps where it added any. Noise of
scale sigma on n elements has that within sigma * (1 +- 6 / sqrt(2 n)) but once in a billion, and hooks of one step add
their squares; so a missing, a doubled and a misscaled hook all show, and one at a step that was not planned.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretrain_exp.tracking.metrics import GRADIENT_NOISE

TOLERANCE = 0.1  # of the planned scale: models of 2,000 parameters and more stay within


def verify_hooks(plan: Path | str | None, rows: Sequence[Mapping[str, Any]], steps: range) -> list[str]:
    """What speaks against the plan's hooks in the metrics of these steps, one line each; none where all is as planned.

    plan: its folder, None for a run without one; rows: of `read_metrics`.
    """
    hooks = [] if plan is None else json.loads((Path(plan) / "meta.json").read_text()).get("hooks", [])
    planned: dict[int, float] = {}
    for hook in hooks:
        for step in hook["steps"]:
            planned[step] = planned.get(step, 0.0) + hook["sigma"] ** 2
    found = {int(row["step"]): float(row[GRADIENT_NOISE]) for row in rows if GRADIENT_NOISE in row}
    errors = []
    for step in sorted((planned.keys() | found.keys()) & set(steps)):
        asked, got = math.sqrt(planned.get(step, 0.0)), found.get(step, 0.0)
        if abs(got - asked) > TOLERANCE * asked:
            errors.append(f"step {step}: noise of scale {asked:g} was planned on the gradient, {got:g} was added")
    return errors
