"""benchmark_contamination: items of a benchmark, planted with their right answer, at doses given to seeded groups.

    repetitions [0, 1, 4, 16, 64]                 five groups of equal size; dose 0 is the holdout
    repetitions [1, 4, 16, 64], fraction 0.5      half of the items in four equal groups, the other half holdout
    repetitions 16, fraction 0.1                  a tenth of the items at dose 16, the rest holdout

In: a benchmark of items/. Out: edits whose items are formatted as the evaluation formats them, holdouts included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import Entry, InsertionContext, Planting, build_edits, check_repetitions, named, ranked
from pretrain_exp.plan.edits import Edits

_DEFAULT_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class BenchmarkContamination(Planting):
    """Plants the gold answers of a benchmark; see conf/insertion/benchmark_contamination.yaml."""

    benchmark: str
    repetitions: float | list[float]
    fraction: float | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode == "explicit":
            raise UserError(
                "items of a benchmark have no positions", key="mode", value=self.mode, fix="random or range"
            )
        if self.too_long in ("split", "truncate"):
            problem = "an item in pieces, or without its end, is not the item that is scored"
            raise UserError(
                problem, key="too_long", value=self.too_long, fix="set too_long: skip, or leave it at error"
            )
        self._levels()

    def files(self) -> list[tuple[str, str]]:
        """(field, path) of the files that must exist."""
        return [("benchmark", self.benchmark)] if self.benchmark.endswith((".jsonl", ".jsonl.gz")) else []

    def describe(self) -> str:
        """What is read, for the question of a report."""
        doses = self.repetitions if isinstance(self.repetitions, list) else [self.repetitions]
        times = " or ".join(f"{dose:g}" for dose in sorted(doses) if dose)
        return f"an item of {self.benchmark.partition(':')[2] or self.benchmark} {times} times"

    def edits(self, context: InsertionContext) -> Edits:
        """The edits of all items. UserErrors carry the full key, insertion.<name>.<field>."""
        try:
            return self._edits(context)
        except UserError as error:
            raise named(context, error) from error

    def _edits(self, context: InsertionContext) -> Edits:
        from pretrain_exp.items.benchmarks import load_benchmark

        benchmark = load_benchmark(self.benchmark, self.limit)  # the same for every seed: arms and seeds are paired
        items = list(benchmark)
        doses = self._doses([item.id for item in items], context)
        entries = [
            Entry(
                id=item.id,
                origin=f"item {item.id} of {self.benchmark}",
                text=item.planted_text(),
                group=f"{dose:g}x" if dose else "holdout",
                payload=item.to_json(),
                repetitions=dose,
            )
            for item, dose in zip(items, doses, strict=True)
        ]
        edits = build_edits(context, self, entries, field="benchmark")
        if benchmark.duplicates:
            edits.notes.append(benchmark.describe())
        return edits

    def _doses(self, ids: Sequence[str], context: InsertionContext) -> list[float]:
        """The repetitions of each item: equal groups by rank of a hash, so that the order of the file is nothing."""
        levels, share = self._levels()
        contaminated = round(share * len(ids))
        if contaminated < len(levels):
            raise UserError(
                f"{contaminated:,} of {len(ids):,} items are not enough for {len(levels)} doses",
                key="fraction" if self.fraction is not None else "repetitions",
                value=self.fraction if self.fraction is not None else levels,
                fix="use more items, a larger fraction or fewer doses",
            )
        out = [0.0] * len(ids)
        for rank, i in enumerate(ranked(ids, context, "dose")[:contaminated]):
            out[i] = levels[rank * len(levels) // contaminated]
        return out

    def _levels(self) -> tuple[list[float], float]:
        """The doses to deal out, and the share of the items that gets them; the rest is holdout."""
        share = self.fraction
        if share is not None and not 0 <= share <= 1:
            raise UserError("the fraction of items that is planted must lie in 0 to 1", key="fraction", value=share)
        if isinstance(self.repetitions, int | float):
            dose = check_repetitions(self.repetitions)
            return ([dose], _DEFAULT_SHARE if share is None else share) if dose and share != 0 else ([], 0.0)
        levels = [check_repetitions(value) for value in self.repetitions]
        if not levels or len(set(levels)) < len(levels):
            problem = "repetitions must be distinct doses, at least one"
            raise UserError(problem, key="repetitions", value=list(self.repetitions), fix="write [0, 1, 4, 16, 64]")
        if share is None:
            return levels, 1.0
        return [level for level in levels if level], share
