"""The items of a plan, a batch at a time: edits, a table or items.parquet in, tables of the columns asked for out.

    items of the insertions --+
    items.parquet ------------+--> batches of about a million tokens --> audit, holdouts, fingerprint, items.parquet
    a table of them ----------+

Texts and tokens are the bulk of a plan. They are made into Arrow when they are read and only batch by batch, so that
nothing holds a second copy of them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pretrain_exp.plan.ledger import ITEMS_SCHEMA

_BATCH_ROWS = 1 << 16
_BATCH_TOKENS = 1 << 20  # 4 MB
_GROUP = 8  # batches in one group of rows of the file


@dataclass(frozen=True)
class Items:
    """Items in the order of items.parquet. read: the columns asked for, batch by batch, anew with every call."""

    num_rows: int
    read: Callable[[Sequence[str]], Iterator[pa.Table]]

    @classmethod
    def of(cls, table: pa.Table) -> Items:
        """table: in ITEMS_SCHEMA."""
        return cls(table.num_rows, lambda names: _cut(table.select(names)))

    @classmethod
    def stored(cls, path: Path) -> Items:
        """Those of a file, of which one group of rows is in memory at a time."""

        def read(names: Sequence[str]) -> Iterator[pa.Table]:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    yield from _cut(file.read_row_group(group, columns=list(names)).select(names))

        return cls(pq.read_metadata(path).num_rows, read)

    def batches(self, *names: str) -> Iterator[pa.Table]:
        """These columns in their order and schema, without names all of them; the items come in their order."""
        schema = pa.schema([ITEMS_SCHEMA.field(name) for name in names]) if names else ITEMS_SCHEMA
        for table in self.read(schema.names):
            yield table.cast(schema)

    def columns(self, *names: str) -> pa.Table:
        """These columns of all items: for what is small."""
        schema = pa.schema([ITEMS_SCHEMA.field(name) for name in names])
        return pa.concat_tables([schema.empty_table(), *self.batches(*names)])


def batch_bounds(lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and end of batches of items, whose tokens these are: a million tokens at most, or one item, in each."""
    edges = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    first = 0
    while first < len(lengths):
        full = int(np.searchsorted(edges, edges[first] + _BATCH_TOKENS, side="right")) - 1
        stop = min(max(full, first + 1), first + _BATCH_ROWS, len(lengths))
        yield first, stop
        first = stop


def _cut(table: pa.Table) -> Iterator[pa.Table]:
    """The table in batches; whole where it has no tokens."""
    if "tokens" not in table.column_names:
        yield table
        return
    for first, stop in batch_bounds(np.asarray(pc.list_value_length(table["tokens"]))):
        yield table.slice(first, stop - first)


def tokens_of(batch: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of a batch in a row, uint32, and where those of each item begin and end: (tokens, edges)."""
    lengths = np.asarray(pc.list_value_length(batch["tokens"]))
    flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in batch["tokens"].chunks]
    return np.concatenate([np.zeros(0, np.uint32), *flat]), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def runs_of(batch: pa.Table) -> list[np.ndarray]:
    """The tokens of each item of a batch, views of one array."""
    tokens, edges = tokens_of(batch)
    return [tokens[first:stop] for first, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)]


def write_items(items: Items, path: Path) -> None:
    """Writes items.parquet; the caller moves the folder into place."""
    with pq.ParquetWriter(path, ITEMS_SCHEMA, compression="zstd") as writer:
        batches = items.batches()
        while some := list(islice(batches, _GROUP)):
            writer.write_table(pa.concat_tables(some))
