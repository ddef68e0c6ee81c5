"""Doses dealt to items: ids and the repetitions of a configuration in, a dose for each out; what is left is holdout.

    repetitions [0, 1, 4, 16]                 four groups of equal size; dose 0 is the holdout
    repetitions [1, 4, 16], fraction 0.5      half of the items in three equal groups, the other half holdout
    repetitions 16, fraction 0.1              a tenth of the items at dose 16, the rest holdout; without fraction, half

Groups are drawn by hash of (seed, insertion, id), so the order of the items is nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import InsertionContext, check_repetitions, ranked

_DEFAULT_SHARE = 0.5


def times(doses: float | Iterable[float]) -> str:
    """'once', '1 or 16 times': the doses above 0, in the words of a question."""
    read = sorted({dose for dose in ([doses] if isinstance(doses, int | float) else doses) if dose})
    return "once" if read == [1] else f"{' or '.join(f'{dose:g}' for dose in read) or '0'} times"


def levels(repetitions: float | Sequence[float], fraction: float | None) -> tuple[list[float], float]:
    """The doses to deal out, and the share of the items that gets them. UserError where they make no sense."""
    if fraction is not None and not 0 <= fraction <= 1:
        raise UserError("the fraction of items that is planted must lie in 0 to 1", key="fraction", value=fraction)
    if isinstance(repetitions, int | float):
        dose = check_repetitions(repetitions)
        share = _DEFAULT_SHARE if fraction is None else fraction
        return ([dose], share) if dose and share else ([], 0.0)
    doses = [check_repetitions(value) for value in repetitions]
    if not doses or len(set(doses)) < len(doses):
        problem = "repetitions must be distinct doses, at least one"
        raise UserError(problem, key="repetitions", value=list(repetitions), fix="write [0, 1, 4, 16, 64]")
    if fraction is None:
        return doses, 1.0
    doses = [dose for dose in doses if dose]
    return (doses, fraction) if doses else ([], 0.0)


def deal(
    ids: Sequence[str], repetitions: float | Sequence[float], fraction: float | None, context: InsertionContext
) -> list[float]:
    """The dose of each id. UserError where there are fewer items than doses."""
    doses, share = levels(repetitions, fraction)
    planted = round(share * len(ids))
    if planted < len(doses):
        raise UserError(
            f"{planted:,} of {len(ids):,} items are not enough for {len(doses)} doses",
            key="repetitions" if fraction is None else "fraction",
            value=doses if fraction is None else fraction,
            fix="use more items, a larger fraction or fewer doses",
        )
    out = [0.0] * len(ids)
    for rank, i in enumerate(ranked(ids, context, "dose")[:planted]):
        out[i] = doses[rank * len(doses) // planted]
    return out
