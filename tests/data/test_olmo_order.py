"""The orders of ai2-olmo and OLMo-core: held against the index files and the datasets of the packages themselves."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain_exp.data import olmo_order
from pretrain_exp.data.olmo_order import OlmoCoreOrder, OlmoOrder
from pretrain_exp.data.order import DataOrder, Source, order_from_json
from pretrain_exp.data.token_files import TokenFiles
from pretrain_exp.errors import UserError

Stream = Callable[..., TokenFiles]
LENGTHS = [13, 0, 3, 30, 8]  # S = 4: 3, 0, 0, 7 and 2 instances; chunks of 2: 1, 0, 0, 3 and 1
REPOSITORY = Path(__file__).parents[2]
ASK_OLMO2 = """
import json, sys
from olmo.data.iterable_dataset import IterableDataset
from olmo.data.memmap_dataset import MemMapDataset
import numpy as np
ask = json.load(sys.stdin)
data = MemMapDataset(*ask["paths"], chunk_size=ask["S"], memmap_dtype=np.uint32, include_instance_metadata=False)
rows = []
for epoch in range(3):
    ordered = IterableDataset(data, ask["G"], seed=ask["seed"], epoch=epoch, shuffle=True, drop_last=True,
                              world_size=ask["world"], rank=0, fs_local_rank=0, work_dir=f"{ask['work']}/{epoch}")
    index = np.memmap(ordered.global_indices_file, dtype=np.uint32, mode="r")
    rows += [data[int(i)]["input_ids"].tolist() for i in index[: len(index) // ask["G"] * ask["G"]]]
print(json.dumps(rows))
"""
ASK_OLMO_CORE = """
import json, sys
from olmo_core.data import NumpyFSLDatasetConfig, NumpyDataLoaderConfig, NumpyDatasetDType, TokenizerConfig
from olmo_core.data.collator import DataCollator
from olmo_core.data.data_loader import NumpyDataLoaderBase
ask = json.load(sys.stdin)
data = NumpyFSLDatasetConfig(paths=ask["paths"], sequence_length=ask["S"], max_target_sequence_length=ask["longest"],
    tokenizer=TokenizerConfig(vocab_size=2048, eos_token_id=1000, pad_token_id=0), dtype=NumpyDatasetDType.uint32,
    work_dir=ask["work"], include_instance_metadata=False).build()
loader = NumpyDataLoaderBase.wrap_numpy_dataset(data, global_batch_size=ask["G"] * ask["S"], work_dir=ask["work"],
    collator=DataCollator(pad_token_id=0), seed=ask["seed"])
rows = []
for epoch in (1, 2, 3):
    loader.reshuffle(epoch)
    rows += [row for batch in loader for row in batch["input_ids"].tolist()]
    loader.reset()
print(json.dumps(rows))
"""
ORDERS = [
    pytest.param(lambda files, **more: OlmoOrder(files, 4, 5, 7, **more), id="olmo2"),
    pytest.param(lambda files, **more: OlmoCoreOrder(files, 4, 5, 7, **more), id="olmo_core"),
    pytest.param(
        lambda files, **more: OlmoCoreOrder(files, 4, 4, 7, max_target_sequence_length=8, **more), id="chunks"
    ),
]


def ask(environment: str, script: str, question: dict[str, Any]) -> list[list[int]]:
    """What the framework's own package reads; a skip where its environment is absent."""
    python = REPOSITORY / environment / "bin" / "python"
    if not python.is_file():
        assert not os.environ.get("PRETRAIN_EXP_FRAMEWORKS"), f"no {environment}"
        pytest.skip(f"no {environment}")
    command, text = [str(python), "-c", script], json.dumps(question)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def read(order: DataOrder, slots: int) -> list[list[int]]:
    return [order.read(slot).tolist() for slot in range(slots)]


@pytest.fixture
def files(stream: Stream) -> TokenFiles:
    return stream(LENGTHS, header_items=0)


@pytest.mark.olmo2
@pytest.mark.parametrize("world", [1, 2])
def test_as_ai2_olmo_reads(stream: Stream, tmp_path: Path, world: int) -> None:
    """Three epochs through its own index files, on 1 and 2 ranks (which cut its index differently)."""
    files = stream([131, 0, 3, 300, 80], header_items=0)
    order = OlmoOrder(files, 4, 6, 11)
    paths = [file.path for file in files.files]
    question = {"paths": paths, "S": 4, "G": 6, "seed": 11, "world": world, "work": str(tmp_path)}
    rows = ask(".venv-olmo2", ASK_OLMO2, question)
    assert (order.num_instances, order.num_sequences, len(rows)) == (127, 126, 378)
    assert read(order, 378) == rows


@pytest.mark.olmo3
@pytest.mark.parametrize("longest", [None, 4, 16])
def test_as_olmo_core_reads(stream: Stream, tmp_path: Path, longest: int | None) -> None:
    files = stream([131, 300, 83], header_items=0)
    order = OlmoCoreOrder(files, 4, 6, 11, max_target_sequence_length=longest)
    paths = [file.path for file in files.files]
    question = {"paths": paths, "S": 4, "G": 6, "seed": 11, "longest": longest, "work": str(tmp_path)}
    rows = ask(".venv-olmo3", ASK_OLMO_CORE, question)
    assert len(rows) == 3 * order.num_sequences
    assert order.num_instances == (124 if longest == 16 else 127)
    assert read(order, len(rows)) == rows


@pytest.mark.parametrize("make", ORDERS)
def test_an_epoch_reads_whole_batches_of_the_instances_once(files: TokenFiles, make: Any) -> None:
    order = make(files)
    chunk = 4 * order.chunk
    starts = [0, 13, 13, 16, 46]
    instances = [
        list(range(start + i, start + i + 4))
        for start, length in zip(starts, LENGTHS, strict=True)
        for i in range(0, length // chunk * chunk, 4)
    ]
    assert order.num_instances == len(instances) == (10 if order.chunk == 2 else 12)
    assert order.num_sequences == order.num_instances // order.batch_size * order.batch_size
    epochs = [read(order, 4 * order.num_sequences)[i * order.num_sequences :][: order.num_sequences] for i in range(4)]
    for epoch in epochs:
        assert all(row in instances for row in epoch)
        assert len({tuple(row) for row in epoch}) == order.num_sequences
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("make", ORDERS)
def test_many_slots_as_one_by_one(files: TokenFiles, make: Any) -> None:
    order = make(files)
    slots = np.random.default_rng(0).integers(0, 50, 100)
    assert order.sequences(slots).tolist() == [order.sequence(slot) for slot in slots.tolist()]


@pytest.mark.parametrize("make", ORDERS)
def test_positions_of_is_what_reading_finds(files: TokenFiles, make: Any) -> None:
    """All spans of the stream over windows of several epochs, against reading every slot."""
    order = make(files)
    rows = read(order, 35)
    for start in range(54):
        for stop in range(start, 55, 3):
            for first, last in [(0, 25), (9, 35), (3, 4), (4, 4)]:
                wanted = {
                    (slot, column, token)
                    for slot in range(first, last)
                    for column, token in enumerate(rows[slot])
                    if start <= token < stop
                }
                spans = order.positions_of(start, stop, first, last)
                covered = [(slot, column + i, rows[slot][column + i]) for slot, column, n in spans for i in range(n)]
                assert len(covered) == len(wanted)
                assert set(covered) == wanted
                assert spans == sorted(spans)


@pytest.mark.parametrize("make", ORDERS)
def test_source_of_a_token(files: TokenFiles, make: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "documents.npy", np.array([0, 9, 20]))
    plain, known = make(files), make(replace(files, documents=str(tmp_path / "documents.npy")))
    starts = {"file 0": 0, "file 3": 16, "file 4": 46}
    for slot in range(plain.num_sequences):
        for column, token in enumerate(plain.read(slot).tolist()):
            assert plain.stream_offset(slot, column) == token
            found = plain.source(slot, column)
            assert starts[found.file_name] + found.offset_in_file == token
            assert found.document_index is None
            document = sum(token >= start for start in (9, 20))
            assert known.source(slot, column) == Source(
                found.file_name, found.offset_in_file, document, token - [0, 9, 20][document]
            )


@pytest.mark.parametrize("make", ORDERS)
def test_through_json_and_pickle(files: TokenFiles, make: Any) -> None:
    order = make(files)
    for other in (order_from_json(json.loads(json.dumps(order.to_json()))), pickle.loads(pickle.dumps(order))):
        assert other.fingerprint() == order.fingerprint()
        assert read(other, 30) == read(order, 30)


def test_fingerprint_knows_what_decides_the_reading(files: TokenFiles, stream: Stream, tmp_path: Path) -> None:
    orders = [
        OlmoOrder(files, 4, 5, 7), OlmoOrder(files, 4, 5, 8), OlmoOrder(files, 4, 6, 7), OlmoOrder(files, 3, 5, 7),
        OlmoCoreOrder(files, 4, 5, 7), OlmoCoreOrder(files, 4, 5, 7, max_target_sequence_length=8),
        OlmoOrder(stream([54], header_items=0), 4, 5, 7),
    ]  # fmt: skip
    assert len({order.fingerprint() for order in orders}) == len(orders)
    assert OlmoOrder(files, 4, 5, 7, tmp_path).fingerprint() == orders[0].fingerprint()
    assert OlmoCoreOrder(files, 4, 5, 7, None, 4).fingerprint() == orders[4].fingerprint()


def test_a_large_index_is_kept_and_mapped(files: TokenFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = read(OlmoOrder(files, 4, 5, 7), 30)
    monkeypatch.setattr(olmo_order, "LARGE", 1)
    order = OlmoOrder(files, 4, 5, 7, tmp_path / "orders")
    order.prepare(9, 11)
    assert sorted(path.name for path in (tmp_path / "orders").iterdir()) == ["pcg64-12-7.u32", "pcg64-12-8.u32"]
    assert read(order, 30) == reference
    olmo_order._shuffled.cache_clear()
    (tmp_path / "orders" / "pcg64-12-7.u32").write_bytes(b"cut")  # what no writer leaves is made again
    assert read(order, 30) == reference


def test_an_instance_never_spans_two_files(stream: Stream) -> None:
    order = OlmoOrder(stream([7, 9], header_items=0), 4, 3, 0)
    assert sorted(order.read(slot).tolist() for slot in range(3)) == [[0, 1, 2, 3], [7, 8, 9, 10], [11, 12, 13, 14]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: OlmoOrder(f, 4, 13, 0), "12 whole sequences of 4 tokens .*less than one batch of 13"),
        (lambda f: OlmoOrder(f, 0, 1, 0), "at least 1"),
        (lambda f: OlmoOrder(f, 4, 1, -1), "at least 0"),
        (lambda f: OlmoCoreOrder(f, 4, 5, 0, max_target_sequence_length=6), "multiple of the sequence length, 4"),
    ],
)
def test_wrong_orders(files: TokenFiles, call: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(files)


@pytest.mark.parametrize(
    "call",
    [
        lambda o: o.read(-1),
        lambda o: o.sequences(np.array([-1])),
        lambda o: o.source(0, 4),
        lambda o: o.positions_of(0, 55, 0, 5),
    ],
)
def test_outside(files: TokenFiles, call: Any) -> None:
    with pytest.raises(IndexError):
        call(OlmoOrder(files, 4, 5, 0))
