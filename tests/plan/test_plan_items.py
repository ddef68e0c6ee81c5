"""Items in batches and the pool of runs: the same however they are cut, and never a second copy of all tokens."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_samples import PHASES, SPAN, WINDOW, S, edits

from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.plan import items as batching
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import EditItem, Edits, Window
from pretrain_exp.plan.folder import Plan, fingerprint
from pretrain_exp.plan.item_table import ItemTable, canonical
from pretrain_exp.plan.items import Items, write_items
from pretrain_exp.plan.ledger import ITEMS_SCHEMA
from pretrain_exp.plan.pool import Pool, write_pool


def requests() -> list[Edits]:
    """Holdouts, an insertion without items, items without tokens, texts of more than ASCII."""
    none = np.zeros(0, dtype=np.int32)
    empty = [EditItem(f"e{i}", np.zeros(0, np.uint32), "kürzer" * i, payload='{"kind": "x"}', dose=0) for i in range(3)]
    return [edits("b", [5, 9, S, 4], [3, 1, 0, 20]), Edits("none", [], none, none), Edits("e", empty, none, none)]


def compiled(root: Path, below: Plan | None = None) -> Plan:
    return compile_plan(requests() if below is None else [edits("c", [7], 5)], PHASES, WINDOW, 0, "t", root, below)


@pytest.fixture(params=[(1, 1), (13, 2), (1 << 20, 1 << 16)], ids=["one item", "13 tokens", "as shipped"])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_BATCH_TOKENS", request.param[0])
    monkeypatch.setattr(batching, "_BATCH_ROWS", request.param[1])


@pytest.mark.usefixtures("cut")
def test_items_are_the_same_from_edits_table_and_file(tmp_path: Path) -> None:
    ordered = canonical(requests())
    expected = [
        {"insertion": request.insertion, "item": item.id, "group": item.group, "dose": item.dose, "text": item.text}
        | {"tokens": item.tokens.tolist(), "payload": item.payload, "probe": item.probe}
        for request in ordered
        for item in request.items
    ]
    made = ItemTable.of(ordered).to_items()
    write_items(made, tmp_path / "items.parquet")
    for items in (made, Items.of(pa.concat_tables(made.batches())), Items.stored(tmp_path / "items.parquet")):
        assert items.num_rows == len(expected)
        assert all(batch.schema == ITEMS_SCHEMA for batch in items.batches())
        assert [row for batch in items.batches() for row in batch.to_pylist()] == expected
        names = ("tokens", "dose")
        few = [row for batch in items.batches(*names) for row in batch.to_pylist()]
        assert few == [{name: row[name] for name in names} for row in expected]
        assert items.columns("item").to_pydict() == {"item": [row["item"] for row in expected]}


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("layered", [False, True])
def test_the_fingerprint_is_that_of_whole_columns(tmp_path: Path, layered: bool) -> None:
    plan = compiled(tmp_path)
    plan = compiled(tmp_path, plan) if layered else plan
    header = {name: value for name, value in plan.meta.items() if name != "fingerprint"}
    digest = blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16)
    for table in (plan.items(), plan.ledger()):
        for field in table.schema:
            values = table[field.name].to_pylist()
            digest.update(f"|{field.name}:{len(values)}|".encode())
            if field.type == pa.string():
                texts = [value.encode() for value in values]
                digest.update(np.array([len(text) for text in texts], "<i8").tobytes() + b"".join(texts))
            elif pa.types.is_list(field.type):
                digest.update(np.array([len(value) for value in values], "<i8").tobytes())
                digest.update(np.array([token for value in values for token in value], "<u4").tobytes())
            else:
                digest.update(np.array(values, field.type.to_pandas_dtype()).tobytes())
    assert plan.fingerprint == digest.hexdigest() == fingerprint(header, plan.stored_items(), plan.ledger())


def test_nothing_on_disk_depends_on_the_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = compiled(tmp_path / "one")
    monkeypatch.setattr(batching, "_BATCH_TOKENS", 3)
    other = compiled(tmp_path / "other")
    assert other.items().equals(one.items())
    for path in one.folder.rglob("*"):
        if path.is_file() and path.name != "items.parquet":  # its groups of rows differ
            assert (other.folder / path.relative_to(one.folder)).read_bytes() == path.read_bytes(), path.name


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=6), st.integers(0, 40), st.integers(0, 40))
def test_slices_of_a_pool_are_those_of_its_runs_in_a_row(lengths: list[int], start: int, stop: int) -> None:
    edges = np.cumsum([0, *lengths])
    whole = np.arange(edges[-1], dtype=np.uint32)
    pool = Pool([whole[a:b] for a, b in pairwise(edges.tolist())])
    assert len(pool) == len(whole)
    assert pool[start:stop].tolist() == whole[start:stop].tolist()


def test_a_pool_copies_no_run_and_writes_what_numpy_writes(tmp_path: Path) -> None:
    runs = [np.arange(5, dtype=np.uint32), np.arange(7, dtype=np.uint32)]
    pool = Pool(runs)
    assert np.shares_memory(pool[6:9], runs[1])
    write_pool(pool, tmp_path / "pool.npy")
    np.save(tmp_path / "numpy.npy", np.concatenate(runs))
    assert (tmp_path / "pool.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()


def test_equal_runs_are_pooled_once_in_their_order(tmp_path: Path) -> None:
    def items(*runs: list[int]) -> Edits:
        n = np.arange(len(runs), dtype=np.int32)
        entries = [EditItem(f"i{i}", np.array(run, np.uint32), dose=1) for i, run in enumerate(runs)]
        return Edits("a", entries, n, np.zeros_like(n), span=SPAN)

    table = ItemTable.of([items([8, 9], [5], [8, 9], [7, 7], [5])])
    assert table.pool[0 : len(table.pool)].tolist() == [8, 9, 5, 7, 7]
    assert table.offset.tolist() == [0, 2, 0, 3, 2]
    first = compile_plan([items([8, 9], [5])], PHASES, WINDOW, 0, "t", tmp_path)
    both = compile_plan([items([8, 9], [5], [4], [5])], PHASES, WINDOW, 0, "t", tmp_path, first)
    assert both.overlay.arrays["pool"].tolist() == [8, 9, 5, 4]


@pytest.fixture
def arrow_memory() -> Iterator[pa.MemoryPool]:
    before = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(before)
    pa.set_memory_pool(counted)
    yield counted
    pa.set_memory_pool(before)


def test_planning_holds_no_second_copy_of_all_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrow_memory: pa.MemoryPool
) -> None:
    """2,000 texts of 2,000 tokens, 16 MB: NumPy's and Arrow's peaks together stay below three quarters of that."""
    monkeypatch.setattr(batching, "_BATCH_TOKENS", 1 << 16)
    phases, window, n = Phases([Phase(0, 512, 4096)]), Window(0, 100), 2000
    tokens = np.arange(n * 2000, dtype=np.uint32).reshape(n, 2000)
    counts = np.where(np.arange(n) % 50, 1, 0)  # one in 50 is held out
    entries = [EditItem(f"i{i:04}", run, dose=int(counts[i])) for i, run in enumerate(tokens)]
    item = np.flatnonzero(counts).astype(np.int32)
    asked = Edits("a", entries, item, np.zeros_like(item), span=(0, phases.position_of_step(100)))
    compile_plan([edits("small", [5], 200)], PHASES, WINDOW, 0, "t", tmp_path)  # imports are not the plan's cost
    tracemalloc.start()
    try:
        plan = compile_plan([asked], phases, window, 0, "t", tmp_path)
        peak = tracemalloc.get_traced_memory()[1] + arrow_memory.max_memory()
    finally:
        tracemalloc.stop()
    assert len(plan.overlay) == n - n // 50
    assert peak < 0.75 * tokens.nbytes, f"{peak / 2**20:.1f} MB beside {tokens.nbytes / 2**20:.1f} MB of tokens"
