"""Replay: a plan out to a table of `position, text, experiment`, and such a table back in as explicit edits.

The three columns are those of published plans. What this package writes has more:

    item, group   as the plan names them
    tokens        as planted: a text alone does not say where an EOS was put, or where it was cut
    tokenizer     fingerprint of the tokenizer that they are ids of
    payload       the scored item, so that a replay scores what the plan scored
    probe_dose    of a probe, how many copies of what it asks about are planted; null for all others

Items of dose 0 (holdouts) and probes follow at the end, with position -1: scored and not planted. Copies that were
skipped are no part of the table. Under another tokenizer the texts are encoded anew as they stand, as those of a table
without tokens are: whole, and no EOS added. Files: .parquet, .jsonl, .csv (tokens separated by spaces there).
"""

from __future__ import annotations

import csv
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
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
from pretrain_exp.plan.rows import Row, field, position_of, read_rows

Encode = Callable[[list[str]], list[np.ndarray]]
COLUMNS = ("position", "text", "experiment", "item", "group", "tokens", "tokenizer", "payload", "probe_dose")
_KINDS = {"position": pa.int64(), "tokens": pa.list_(pa.uint32()), "probe_dose": pa.int32()}
_SCHEMA = pa.schema([(name, _KINDS.get(name, pa.string())) for name in COLUMNS])
_BATCH = 8192  # rows in memory at once, each with its tokens
_HELD_OUT = -1  # the position of an item that is scored and not planted


def export_table(plan: Plan, path: Path | str, tokenizer_fingerprint: str = "") -> int:
    """Writes every planted edit of a plan, by position, then its holdouts; returns the number of edits.

    tokenizer_fingerprint: of the tokenizer that made the plan's tokens. Written elsewhere, then moved. UserError for a
    plan that does what such a table cannot say (other text of the data, noise, training hooks), and for a suffix
    that is not known.
    """
    path = Path(path)
    writers = {".parquet": _write_parquet, ".jsonl": _write_jsonl, ".csv": _write_csv}
    if path.suffix not in writers:
        raise UserError("this kind of table cannot be written", value=str(path), fix=f"end it in {', '.join(writers)}")
    ledger = planted(plan.ledger())
    _refuse_what_is_no_text(plan)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        writers[path.suffix](_batches(ledger, plan.items(), tokenizer_fingerprint), temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return ledger.num_rows


def _refuse_what_is_no_text(plan: Plan) -> None:
    ledger = plan.ledger()
    reasons = {"base": "puts other text of the data in its place", "noise": "adds noise to embeddings"}
    kinds, names = ledger["kind"].to_pylist(), ledger["insertion"].to_pylist()
    other = sorted({(name, kind) for name, kind in zip(names, kinds, strict=True) if kind != "tokens"})
    if other:
        name, kind = other[0]
        problem = f"insertion {name} {reasons.get(kind, 'changes the update')}, which a table of texts cannot hold"
        raise UserError(problem, value=plan.arm, fix="export a plan without it")


def load_table(
    path: Path | str, encode: Encode | None = None, fingerprint: str = "", vocab_size: int | None = None
) -> list[Edits]:
    """The edits of a table, all explicit: one Edits for each value of `experiment`, by name.

    encode, fingerprint, vocab_size: of the tokenizer in use. Token ids count where their `tokenizer` is this
    fingerprint ("" is none on either side); else the text is encoded. UserError, with the row, where a field is missing
    or wrong, an id is not below vocab_size, or a row cannot be encoded: no text, or only a piece of its text.
    """
    path = str(path)
    rows = list(read_rows(path, ""))
    if not rows:
        raise UserError("the table has no rows", value=path)
    tokens, encoded = _tokens(rows, path, encode, fingerprint)
    found: dict[str, dict[str, tuple[EditItem, list[int]]]] = {}
    anew: Counter[str] = Counter()
    for row, run, was_encoded in zip(rows, tokens, encoded, strict=True):
        fields = row[1]
        if vocab_size is not None and int(run.max()) >= vocab_size:
            problem = f"row {row[0]} of {path} holds token {int(run.max())}, the vocabulary has {vocab_size}"
            raise UserError(problem, value=path, fix="replay it with the tokenizer that it was exported with")
        text, group, payload = (str(fields.get(name) or "") for name in ("text", "group", "payload"))
        name = str(fields.get("item") or content_id(text, row_digest(run).hex()))
        experiment = str(field(row, "experiment", path, ""))
        items = found.setdefault(experiment, {})
        probe = fields.get("probe_dose")
        is_probe = probe not in (None, "")
        dose = position_of(row, "probe_dose", path, "") if is_probe else 0
        item, positions = items.setdefault(name, (EditItem(name, run, text, group, dose, payload, is_probe), []))
        if not np.array_equal(item.tokens, run):
            raise UserError(f"row {row[0]} of {path}: item {name} has other tokens than before", value=path)
        positions.append(position_of(row, "position", path, "", lowest=_HELD_OUT))
        if len(positions) > 1 and _HELD_OUT in positions:
            problem = f"row {row[0]} of {path}: item {name} is planted and held out, or held out twice"
            raise UserError(problem, value=path, fix=f"keep the rows with a position, or the one with {_HELD_OUT}")
        anew[experiment] += was_encoded and fields.get("tokens") is not None
    return [_explicit(name, items, anew[name]) for name, items in sorted(found.items())]


def _explicit(name: str, items: dict[str, tuple[EditItem, list[int]]], anew: int) -> Edits:
    places = [[each for each in positions if each != _HELD_OUT] for _, positions in items.values()]
    counts = [len(each) for each in places]
    note = f"{anew:,} rows hold ids of another tokenizer: their texts were encoded anew, and no EOS was added"
    return Edits(
        insertion=name,
        items=[
            item if item.probe else replace(item, dose=count)
            for (item, _), count in zip(items.values(), counts, strict=True)
        ],
        item=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        copy=np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        mode="explicit",
        position=np.concatenate([np.sort(np.array(each, dtype=np.int64)) for each in places]),
        notes=[note] if anew else [],
    )


def _tokens(rows: list[Row], path: str, encode: Encode | None, fingerprint: str) -> tuple[list[np.ndarray], list[bool]]:
    """The tokens of each row, and whether they are its text encoded rather than its ids."""
    ids = [None if row[1].get("tokens") is None else _listed(row, path) for row in rows]
    foreign = [
        run is None or str(row[1].get("tokenizer") or "") != fingerprint for row, run in zip(rows, ids, strict=True)
    ]
    texts: dict[str, np.ndarray | None] = {}
    pieces: dict[tuple[str, str], np.ndarray] = {}
    for row, run, other in zip(rows, ids, foreign, strict=True):
        if not other:
            continue
        if run is not None and not row[1].get("text"):
            problem = f"row {row[0]} of {path} holds ids of another tokenizer, and no text to encode"
            raise UserError(problem, value=path, fix="replay it with the tokenizer that it was exported with")
        text = str(field(row, "text", path, ""))
        texts[text] = None
        of = str(row[1].get("experiment")), text
        if run is not None and not np.array_equal(pieces.setdefault(of, run), run):
            problem = f"row {row[0]} of {path} holds a piece of its text, with ids of another tokenizer"
            raise UserError(problem, value=path, fix="replay it with the tokenizer that it was exported with")
    if texts and encode is None:
        raise UserError("the table has to be encoded", value=path, fix="give the tokenizer of the model")
    if encode is not None and texts:
        texts |= zip(texts, (np.asarray(run, np.uint32) for run in encode(list(texts))), strict=True)
    out = []
    for row, run, other in zip(rows, ids, foreign, strict=True):
        found = texts[str(row[1]["text"])] if other else run
        if found is None or not len(found):
            raise UserError(f"row {row[0]} of {path} has no tokens", value=path, fix="remove it")
        out.append(found)
    return out, foreign


def _listed(row: Row, path: str) -> np.ndarray:
    value = field(row, "tokens", path, "")
    try:
        run = [int(token) for token in (value.split() if isinstance(value, str) else value)]
    except (TypeError, ValueError):
        run = [-1]
    if not run or min(run) < 0 or max(run) >= 1 << 32:
        raise UserError(f"row {row[0]} of {path}: tokens must be token ids, at least one", value=value)
    return np.array(run, dtype=np.uint32)


def _batches(ledger: pa.Table, items: pa.Table, fingerprint: str) -> Iterator[list[dict[str, Any]]]:
    names = zip(items["insertion"].to_pylist(), items["item"].to_pylist(), strict=True)
    index = {name: i for i, name in enumerate(names)}
    held_out = items.filter(pc.or_(items["probe"], pc.equal(items["dose"], 0))).select(["insertion", "item"])
    held_out = held_out.append_column("position", pa.array([_HELD_OUT] * len(held_out), pa.int64()))
    rows = pa.concat_tables([ledger.select(held_out.column_names), held_out])
    for batch in rows.to_batches(max_chunksize=_BATCH):
        which = [index[row["insertion"], row["item"]] for row in batch.to_pylist()]
        held = items.take(pa.array(which, pa.int64())).to_pylist()
        yield [
            {"position": position, "experiment": item["insertion"], "tokenizer": fingerprint}
            | {name: item[name] for name in ("text", "item", "group", "tokens", "payload")}
            | {"probe_dose": item["dose"] if item["probe"] else None}
            for position, item in zip(batch["position"].to_pylist(), held, strict=True)
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
