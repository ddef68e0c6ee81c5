"""Two arms held against each other: rows that differ where nothing is planted, or agree where something is.

In: the rows that two runs logged and the ledger of what one of them, or both, planted. Out: the rows that speak against
the plan. Needs no data: it compares what was read with what was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pretrain_exp.data.phases import Phases
from pretrain_exp.plan.digest import READS_DTYPE
from pretrain_exp.plan.ledger import planted


@dataclass(frozen=True)
class ArmsComparison:
    """(step, row): differ without an edit; agree although planted; are read in one arm only (one_sided)."""

    rows_compared: int
    rows_planned: int
    differ: list[tuple[int, int]]
    agree: list[tuple[int, int]]
    one_sided: list[tuple[int, int]]

    @property
    def ok(self) -> bool:
        """The arms read the same rows and differ exactly where the ledger says."""
        return not (self.differ or self.agree or self.one_sided)

    def describe(self) -> str:
        """One line for a report, with the numbers."""
        line = (
            f"{self.rows_compared:,} rows compared, {self.rows_planned:,} of them planned to differ: "
            f"{len(self.differ):,} differ without an edit, {len(self.agree):,} agree although planted, "
            f"{len(self.one_sided):,} in one arm only"
        )
        found = [*self.differ, *self.agree, *self.one_sided]
        return line + (f"; the first at step {found[0][0]}, row {found[0][1]}" if found else "")


def compare_arms(
    reads_a: Sequence[np.ndarray], reads_b: Sequence[np.ndarray], ledger: pa.Table, phases: Phases
) -> ArmsComparison:
    """Compares what two arms read, row by row, over the steps that both logged.

    reads_a, reads_b: READS_DTYPE arrays on the way to each arm's last state; a prefix that both share is in both.
    ledger: of the plan by which they differ, the treated one's or the placebo's, whose spans are the same.
    """
    a, b = _by_address(reads_a), _by_address(reads_b)
    low, high = (
        pick(int(step[0]) if end == 0 else int(step[-1]) for step in (a["step"], b["step"]))
        for end, pick in ((0, max), (-1, min))
    ) if len(a) and len(b) else (0, -1)  # fmt: skip
    a, b = (log[(log["step"] >= low) & (log["step"] <= high)] for log in (a, b))
    keys_a, keys_b = (log["step"].astype(np.int64) << 32 | log["row"] for log in (a, b))
    _, in_a, in_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
    lonely = np.setxor1d(keys_a, keys_b, assume_unique=True)
    both_a, both_b = a[in_a], b[in_b]
    different = (both_a["digest"] != both_b["digest"]) | (both_a["slot"] != both_b["slot"])
    is_planned = np.isin(both_a["slot"], _touched(ledger, phases))

    def addresses(rows: np.ndarray) -> list[tuple[int, int]]:
        return list(zip(rows["step"].tolist(), rows["row"].tolist(), strict=True))

    return ArmsComparison(
        rows_compared=len(both_a),
        rows_planned=int(is_planned.sum()),
        differ=addresses(both_a[different & ~is_planned]),
        agree=addresses(both_a[~different & is_planned]),
        one_sided=[(key >> 32, key & 0xFFFFFFFF) for key in lonely.tolist()],
    )


def _by_address(reads: Sequence[np.ndarray]) -> np.ndarray:
    log = np.concatenate([np.zeros(0, READS_DTYPE), *reads])
    return log[np.unique(log["step"].astype(np.int64) << 32 | log["row"], return_index=True)[1]]


def _touched(ledger: pa.Table, phases: Phases) -> np.ndarray:
    """The slots in which an edit of the tokens lies; noise leaves them as they are."""
    rows = planted(ledger)
    rows = rows.filter(pc.not_equal(rows["kind"], "noise"))
    start, length = rows["position"].to_numpy(), rows["length"].to_numpy()
    first, last = phases.locate(start)[0], phases.locate(start + length - 1)[0]
    count = last - first + 1
    return np.repeat(first, count) + np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
