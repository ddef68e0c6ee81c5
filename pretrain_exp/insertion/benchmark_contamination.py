"""benchmark_contamination: items of a benchmark with their right answer, at doses dealt to seeded groups (doses.py).

In: a benchmark of items/. Out: edits whose items are formatted as the evaluation formats them, holdouts included.
"""

from __future__ import annotations

from dataclasses import dataclass

from pretrain_exp.insertion.base import Entry, InsertionContext, Planting, build_edits, keyed
from pretrain_exp.insertion.doses import deal, levels, times
from pretrain_exp.plan.edits import Edits


@dataclass(frozen=True, kw_only=True)
class BenchmarkContamination(Planting):
    """Plants the gold answers of a benchmark; see conf/insertion/benchmark_contamination.yaml."""

    benchmark: str
    repetitions: float | list[float]
    fraction: float | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse("mode", ["explicit"], "items of a benchmark have no positions", "random or range")
        cut = "an item in pieces, or without its end, is not the item that is scored"
        self.refuse("too_long", ["split", "truncate"], cut, "set too_long: skip, or leave it at error")
        levels(self.repetitions, self.fraction)

    def files(self) -> list[tuple[str, str]]:
        """(field, path) of the files that must exist."""
        return [("benchmark", self.benchmark)] if self.benchmark.endswith((".jsonl", ".jsonl.gz")) else []

    def describe(self) -> str:
        """What is read, for the question of a report."""
        return f"an item of {self.benchmark.partition(':')[2] or self.benchmark} {times(self.repetitions)}"

    @keyed
    def edits(self, context: InsertionContext) -> Edits:
        """The edits of all items. UserErrors carry the full key, insertion.<name>.<field>."""
        from pretrain_exp.items.benchmarks import load_benchmark

        benchmark = load_benchmark(self.benchmark, self.limit)  # the same for every seed: arms and seeds are paired
        items = list(benchmark)
        doses = deal([item.id for item in items], self.repetitions, self.fraction, context)
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
