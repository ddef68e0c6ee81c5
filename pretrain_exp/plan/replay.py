"""Replay: a plan out to a table of `position, text, experiment`, and such a table back in as explicit edits.

The three columns are those of published plans. What this package writes has more: item and group, and the exact tokens,
since a text alone does not say where an EOS was put. A table without `tokens` is encoded as it stands, no EOS added.
Files: .parquet, .jsonl, .csv (tokens separated by spaces there).
"""

from __future__ import annotations

import csv
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pretrain_exp.errors import UserError
from pretrain_exp.items.content import content_id
from pretrain_exp.plan.digest import row_digest
from pretrain_exp.plan.edits import EditItem, Edits
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.ledger import planted
from pretrain_exp.plan.rows import Row, field, read_rows

Encode = Callable[[list[str]], list[np.ndarray]]
COLUMNS = ("position", "text", "experiment", "item", "group", "tokens")
_SCHEMA = pa.schema(
    [("position", pa.int64())] + [(name, pa.string()) for name in COLUMNS[1:-1]] + [("tokens", pa.list_(pa.uint32()))]
)
_BATCH = 8192  # rows in memory at once, each with its tokens


def export_table(plan: Plan, path: Path | str) -> int:
    """Writes every planted edit of a plan, by position; returns how many. Written elsewhere, then moved.

    UserError for a plan that refers to other text of the stream (a placebo), and for a suffix that is not known.
    """
    path = Path(path)
    writers = {".parquet": _write_parquet, ".jsonl": _write_jsonl, ".csv": _write_csv}
    if path.suffix not in writers:
        raise UserError("this kind of table cannot be written", value=str(path), fix=f"end it in {', '.join(writers)}")
    ledger = planted(plan.ledger())
    if pc.any(pc.greater_equal(ledger["source_slot"], 0)).as_py():
        raise UserError("a plan that refers to text of the data has no texts of its own to export", value=plan.arm)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        writers[path.suffix](_batches(ledger, plan.items()), temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return ledger.num_rows


def load_table(path: Path | str, encode: Encode | None = None) -> list[Edits]:
    """The edits of a table, all explicit: one Edits for each value of `experiment`, by name.

    encode: needed where the table has no tokens. UserError, with the row, where a field is missing or wrong.
    """
    path = str(path)
    rows = list(read_rows(path))
    if not rows:
        raise UserError("the table has no rows", key="file", value=path)
    tokens = _tokens(rows, path, encode)
    found: dict[str, dict[str, tuple[EditItem, list[int]]]] = {}
    for row, run in zip(rows, tokens, strict=True):
        fields = row[1]
        text = str(fields.get("text") or "")
        name = str(fields.get("item") or content_id(text, row_digest(run).hex()))
        experiment = found.setdefault(str(field(row, "experiment", path, "file")), {})
        item, positions = experiment.setdefault(name, (EditItem(name, run, text, str(fields.get("group") or "")), []))
        if not np.array_equal(item.tokens, run):
            raise UserError(f"row {row[0]} of {path}: item {name} has other tokens than before", key="file", value=path)
        positions.append(_position(row, path))
    return [_explicit(name, experiment) for name, experiment in sorted(found.items())]


def _explicit(name: str, items: dict[str, tuple[EditItem, list[int]]]) -> Edits:
    planted_items = [
        EditItem(item.id, item.tokens, item.text, item.group, len(positions)) for item, positions in items.values()
    ]
    counts = [len(positions) for _, positions in items.values()]
    return Edits(
        insertion=name,
        items=planted_items,
        item=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        copy=np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        mode="explicit",
        position=np.concatenate([np.sort(np.array(positions, dtype=np.int64)) for _, positions in items.values()]),
    )


def _position(row: Row, path: str) -> int:
    value = field(row, "position", path, "file")
    try:
        position = int(value)
    except (TypeError, ValueError):
        position = -1
    if position < 0 or isinstance(value, bool) or (isinstance(value, float) and value != position):
        raise UserError(f"row {row[0]} of {path} has no position of 0 or more", key="file", value=value)
    return position


def _tokens(rows: list[Row], path: str, encode: Encode | None) -> list[np.ndarray]:
    if any(fields.get("tokens") is not None for _, fields in rows):
        return [_listed(row, path) for row in rows]
    if encode is None:
        raise UserError("the table has texts only", key="file", value=path, fix="give the tokenizer of the model")
    texts = [str(field(row, "text", path, "file")) for row in rows]
    distinct = list(dict.fromkeys(texts))
    known = dict(zip(distinct, (np.asarray(run, np.uint32) for run in encode(distinct)), strict=True))
    empty = next((row[0] for row, text in zip(rows, texts, strict=True) if not len(known[text])), None)
    if empty is not None:
        raise UserError(f"row {empty} of {path} has no tokens", key="file", value=path, fix="remove it")
    return [known[text] for text in texts]


def _listed(row: Row, path: str) -> np.ndarray:
    value = field(row, "tokens", path, "file")
    try:
        run = [int(token) for token in (value.split() if isinstance(value, str) else value)]
    except (TypeError, ValueError):
        run = [-1]
    if not run or min(run) < 0 or max(run) >= 1 << 32:
        raise UserError(f"row {row[0]} of {path}: tokens must be token ids, at least one", key="file", value=value)
    return np.array(run, dtype=np.uint32)


def _batches(ledger: pa.Table, items: pa.Table) -> Iterator[list[dict[str, Any]]]:
    names = zip(items["insertion"].to_pylist(), items["item"].to_pylist(), strict=True)
    index = {name: i for i, name in enumerate(names)}
    for batch in ledger.select(["insertion", "item", "group", "position"]).to_batches(max_chunksize=_BATCH):
        rows = batch.to_pylist()
        held = items.take(pa.array([index[row["insertion"], row["item"]] for row in rows], pa.int64()))
        yield [
            {"position": row["position"], "text": text, "experiment": row["insertion"]}
            | {"item": row["item"], "group": row["group"], "tokens": run}
            for row, text, run in zip(rows, held["text"].to_pylist(), held["tokens"].to_pylist(), strict=True)
        ]


def _write_parquet(batches: Iterator[list[dict[str, Any]]], path: Path) -> None:
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        for rows in batches:
            writer.write_table(pa.Table.from_pylist(rows, _SCHEMA))


def _write_jsonl(batches: Iterator[list[dict[str, Any]]], path: Path) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for rows in batches:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_csv(batches: Iterator[list[dict[str, Any]]], path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for rows in batches:
            writer.writerows(row | {"tokens": " ".join(map(str, row["tokens"]))} for row in rows)
