"""Documents: found by their end-of-text id, and mapped to slots and back by looking at every token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pretrain_exp.data import documents
from pretrain_exp.data.documents import Documents, index_documents
from pretrain_exp.data.order import ShuffledOrder
from pretrain_exp.data.token_files import TokenFile, TokenFiles
from pretrain_exp.errors import UserError

E = 99
FILES = {
    "plain": ([[1, 2, E, 3, E]], [0, 3]),
    "open end": ([[1, 2, E, 3, 4]], [0, 3]),
    "two files": ([[1, E, 2], [3, 4, E, 5, E]], [0, 2, 3, 6]),
    "empty documents": ([[E, E, 1, E]], [0, 1, 2]),
    "an empty file": ([[1, E], [], [2, E]], [0, 2]),
    "no end at all": ([[1, 2, 3]], [0]),
    "one by one": ([[E], [E]], [0, 1]),
}


def write(folder: Path, files: list[list[int]]) -> TokenFiles:
    rows = []
    for i, ids in enumerate(files):
        (folder / f"{i}.bin").write_bytes(np.array(ids, dtype="uint16").tobytes())
        rows.append(TokenFile(str(folder / f"{i}.bin"), "uint16", 0, len(ids), str(ids), f"{i}"))
    return TokenFiles(tuple(rows), eos_token_id=E)


@pytest.mark.parametrize("chunk", [1, 2, 3, 1 << 22])
@pytest.mark.parametrize(("files", "starts"), FILES.values(), ids=FILES.keys())
def test_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[list[int]], starts: list[int], chunk: int
) -> None:
    monkeypatch.setattr(documents, "_CHUNK_TOKENS", chunk)
    indexed = index_documents(write(tmp_path, files), tmp_path / "cache", progress=False)
    found = Documents(indexed)
    assert found.starts.tolist() == starts
    assert [found.span(i) for i in range(len(found))] == list(
        zip(starts, starts[1:] + [sum(map(len, files))], strict=True)
    )
    assert sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()) == ["documents.npy"]


def test_indexed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write(tmp_path, [[1, E, 2, E]])
    first = index_documents(files, tmp_path / "cache", progress=False)
    monkeypatch.setattr(TokenFiles, "array", lambda *_: pytest.fail("the stream was read again"))
    assert index_documents(files, tmp_path / "cache", progress=False) == first
    assert index_documents(first, tmp_path / "other", progress=False) is first


@pytest.mark.parametrize("seed", [None, 1])
def test_slots_and_documents_agree(tmp_path: Path, seed: int | None) -> None:
    """Which document each token belongs to, counted by hand, against both maps over two epochs and a half."""
    rng = np.random.default_rng(4)
    files = [np.where(rng.random(n) < 0.2, E, rng.integers(0, 90, n)).tolist() for n in (31, 40)]
    indexed = index_documents(write(tmp_path, files), tmp_path / "cache", progress=False)
    order, found = ShuffledOrder(indexed, 6, seed), Documents(indexed)
    owner = found.of_offsets(np.arange(71))
    slots = range(order.num_sequences * 5 // 2)
    by_hand: dict[int, list[tuple[int, int, int]]] = {}
    for slot in slots:
        tokens = order.read(slot)
        pieces = found.in_slot(order, slot)
        assert sum(piece.length for piece in pieces) == 6
        for piece in pieces:
            start, _ = found.span(piece.document)
            text = indexed.read(start + piece.offset, start + piece.offset + piece.length)
            assert tokens[piece.column : piece.column + piece.length].tolist() == text.tolist()
            by_hand.setdefault(piece.document, []).append((slot, piece.column, piece.length))
        for column in range(6):
            source = order.source(slot, column)
            assert source.document_index == owner[order.stream_offset(slot, column)]
    for document in range(len(found)):
        assert found.positions_of(order, document, 0, slots.stop) == by_hand.get(document, [])


def test_not_indexed(stream: Callable[..., TokenFiles]) -> None:
    with pytest.raises(UserError, match="not indexed"):
        Documents(stream([5]))


def test_no_such_document(tmp_path: Path) -> None:
    files = index_documents(write(tmp_path, [[1, E]]), tmp_path / "cache", progress=False)
    for document in (-1, 1):
        with pytest.raises(IndexError):
            Documents(files).span(document)
    assert Documents(files).origin(0) is None
    assert Documents(replace(files)).span(0) == (0, 2)
