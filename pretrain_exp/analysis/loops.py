"""Closed loops: how often what they were asked about was read, which no plan knew before the run.

    ledger of a loop    32 copies of 6 texts    -->    dose of each of its probes: 5, the mean, rounded

A probe of a loop is asked about all that the loop plants, so in the plan its dose is the sum of it. No text is read
that often: results and report take the mean over the texts (over the facts, where texts tell of such).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pretrain_exp.items.facts import fact_of

Planted = dict[tuple[str, int, str], tuple[int, int]]  # (member, seed, insertion) -> copies, texts or facts


def planted(ledger: pa.Table, loops: Collection[str]) -> Planted:
    """What the loops planted. ledger: as in StudyData; loops: names of insertions."""
    mine = pc.is_in(ledger["insertion"], pa.array(sorted(loops), pa.string()))
    rows = ledger.filter(pc.and_(mine, pc.equal(ledger["status"], "planted")))
    columns = [rows[name].to_pylist() for name in ("member", "seed", "insertion", "item")]
    copies = Counter((*where, fact_of(item)) for *where, item in zip(*columns, strict=True))
    found: Planted = {}
    for (member, seed, insertion, _), number in copies.items():
        before = found.get((member, seed, insertion), (0, 0))
        found[member, seed, insertion] = before[0] + number, before[1] + 1
    return found


def with_mean_doses(items: pa.Table, of: Planted) -> pa.Table:
    """The items of plans, `probe` among their columns; probes of loops have the mean dose, 1 at least, for their sum.

    A probe of dose 0, which asks about a holdout, stays one.
    """
    if not of:
        return items
    columns = [items[name].to_pylist() for name in ("member", "seed", "insertion", "probe", "dose")]
    doses = []
    for *where, probe, dose in zip(*columns, strict=True):
        copies, texts = of.get(tuple(where), (0, 0))
        doses.append(max(1, round(copies / texts)) if probe and dose and texts else dose)
    at = items.column_names.index("dose")
    return items.set_column(at, "dose", pa.array(doses, items.schema.field("dose").type))


def told(of: Planted) -> Iterator[str]:
    """A sentence for each loop."""
    by: dict[str, list[tuple[int, int]]] = {}
    for (_, _, insertion), numbers in of.items():
        by.setdefault(insertion, []).append(numbers)
    for insertion, found in by.items():
        copies, texts = (_span([pair[i] for pair in found]) for i in (0, 1))
        runs = f" in each of {len(found)} runs" if len(found) > 1 else ""
        yield (
            f"{insertion} is a closed loop: it planted {copies} copies of {texts} texts or facts{runs}; how often "
            "what it is asked about was read is the mean, rounded"
        )


def _span(numbers: list[int]) -> str:
    return " to ".join(dict.fromkeys((f"{min(numbers):,}", f"{max(numbers):,}")))


def loops_of(control: Collection[Mapping[str, object]]) -> frozenset[str]:
    """The names of the insertions that are closed loops, by the rows of StudyData.control."""
    return frozenset(str(row["insertion"]) for row in control)
