"""The ledger and the items of a plan as tables: what was planted where, and what could have been.

    ledger.parquet   one row a copy of an item: who asked, where it lies, what it does; edits first, by position
    items.parquet    one row an item, holdouts (dose 0) and probes included: its text, its tokens, what is scored on it

    status     kind              digest (32 hex digits) of
    planted    tokens            the tokens (digest.row_digest)
               base              the reference: source_slot and source_column, else -1
               noise             seed, place and sigma, the scale of the noise; else 0
    hook       gradient_noise    seed, step and sigma; position is that of the step's first token, row and column are -1
    skipped    as was asked      nothing: a copy that a declared policy left out; position, step, row and column are -1

An edit that crosses sequences is one row: step, row and column say where it begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

LEDGER_SCHEMA = pa.schema(
    [
        ("insertion", pa.string()),
        ("arm", pa.string()),
        ("item", pa.string()),
        ("group", pa.string()),
        ("copy", pa.int32()),
        ("dose", pa.int32()),
        ("position", pa.int64()),
        ("step", pa.int32()),
        ("row", pa.int32()),
        ("column", pa.int32()),
        ("length", pa.int32()),
        ("digest", pa.string()),
        ("status", pa.string()),
        ("source_slot", pa.int64()),
        ("source_column", pa.int32()),
        ("kind", pa.string()),
        ("sigma", pa.float32()),
    ]
)
ITEMS_SCHEMA = pa.schema(
    [
        ("insertion", pa.string()),
        ("item", pa.string()),
        ("group", pa.string()),
        ("dose", pa.int32()),
        ("text", pa.string()),
        ("tokens", pa.list_(pa.uint32())),
        ("payload", pa.string()),
        ("probe", pa.bool_()),
    ]
)
_ROW_GROUP = 1 << 18


def strings(values: Sequence[str] | pa.StringArray, codes: np.ndarray) -> pa.Array:
    """The string column `values[codes]`, made without a Python object for each row."""
    distinct = values if isinstance(values, pa.StringArray) else pa.array(values, pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), distinct).cast(pa.string())


def codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """A string column as integers and the distinct values that they number, in order of first appearance."""
    encoded = column.dictionary_encode().combine_chunks()
    return encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist()


def items_of_rows(ledger: pa.Table, items: pa.Table) -> np.ndarray:
    """The item of each row of the ledger, int64; -1 where the table of items has none of its insertion and id."""
    names, ids = items["insertion"].unique(), items["item"].unique()

    def numbers(table: pa.Table) -> np.ndarray:
        one, other = (
            pc.fill_null(pc.index_in(table[column], value_set=values), -1).to_numpy().astype(np.int64)
            for column, values in (("insertion", names), ("item", ids))
        )
        return np.where((one < 0) | (other < 0), -1, one * len(ids) + other)

    known, wanted = numbers(items), numbers(ledger)
    if not len(known):
        return np.full(len(wanted), -1, dtype=np.int64)
    order = np.argsort(known)
    found = order[np.minimum(np.searchsorted(known[order], wanted), len(order) - 1)]
    return np.where(known[found] == wanted, found, -1)


def base_digest(slot: int, column: int) -> str:
    """What the ledger holds in place of a digest of tokens where an edit refers to other tokens of the stream."""
    reference = np.array([slot, column], dtype="<i8").tobytes()
    return blake2b(b"base" + reference, digest_size=16).hexdigest()


def noise_digest(seed: int, where: tuple[int, ...], sigma: float) -> str:
    """The same for noise. where: slot, column and length of a span, or the step of a hook."""
    values = np.array([seed, *where], dtype="<i8").tobytes() + np.float32(sigma).tobytes()
    return blake2b(b"noise" + values, digest_size=16).hexdigest()


def write_table(table: pa.Table, path: Path) -> None:
    """Writes Parquet; the caller moves the folder into place."""
    pq.write_table(table, path, compression="zstd", row_group_size=_ROW_GROUP)


def read_ledger(path: Path | str) -> pa.Table:
    """The ledger in its schema; a file with other columns is an error of Arrow's."""
    return pq.read_table(path).select(LEDGER_SCHEMA.names).cast(LEDGER_SCHEMA)


def read_items(path: Path | str) -> pa.Table:
    """The items in their schema."""
    return pq.read_table(path).select(ITEMS_SCHEMA.names).cast(ITEMS_SCHEMA)


def planted(ledger: pa.Table) -> pa.Table:
    """The rows that changed the data."""
    return ledger.filter(pc.equal(ledger["status"], "planted"))
