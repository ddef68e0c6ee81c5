"""Downloads of spans of a file, and of checkpoints: as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from downloads import (
    QUICK,
    SIZE,
    Server,
    content,
    fetch,
    one_file,  # noqa: F401  a fixture
)

from pretrain_exp.errors import UserError
from pretrain_exp.store.download import checkpoint_downloads, download_checkpoint
from pretrain_exp.store.part_file import spans_held
from pretrain_exp.store.remote import BLOCK
from pretrain_exp.store.spans import total


def test_spans_come_alone_into_a_sparse_file_with_a_list(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    wanted = ((10, 20), (15, 30), (BLOCK, BLOCK + 1000), (SIZE - 5, SIZE))
    found = fetch(server, path, spans=wanted)
    held = spans_held(path)
    assert held == [(10, 30), (BLOCK, BLOCK + 1000), (SIZE - 5, SIZE)]
    assert server.sent == total(held)
    assert len(found) == SIZE
    for start, stop in held:
        assert found[start:stop] == content()[start:stop]
    assert found[30:BLOCK] == bytes(BLOCK - 30)
    assert json.loads((tmp_path / "a.bin.spans.json").read_text())["url"] == server.url + "/a.bin"


def test_further_spans_are_added_and_the_whole_file_completes_them(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    fetch(server, path, spans=((0, 100),))
    before = server.requests
    fetch(server, path, spans=((10, 90),))
    assert server.requests == before, "held already"
    fetch(server, path, spans=((50, 200),))
    assert spans_held(path) == [(0, 200)]
    assert fetch(server, path, sha256=hashlib.sha256(content()).hexdigest()) == content()
    assert spans_held(path) is None
    assert server.sent == SIZE, "no byte came twice"


def test_a_whole_file_serves_any_spans(server: Server, tmp_path: Path) -> None:
    fetch(server, tmp_path / "a.bin")
    before = server.requests
    fetch(server, tmp_path / "a.bin", spans=((3, 9),))
    assert server.requests == before


def test_a_checkpoint_is_there_as_a_whole_or_not_at_all(server: Server, tmp_path: Path) -> None:
    names = ["config.yaml", "train/rank 0.pt"]
    for name in names:
        server.files[f"/run/step700-unsharded/{name.replace(' ', '%20')}"] = content(BLOCK) + name.encode()
    folder, pattern = tmp_path / "step700", server.url + "/run/step{step}-unsharded/"
    server.faults["/run/step700-unsharded/config.yaml"] = [("status", 404)]
    with pytest.raises(UserError, match="HTTP 404"):
        download_checkpoint(pattern, 700, names, folder, QUICK)
    assert not folder.exists()
    assert download_checkpoint(pattern, 700, names, folder, QUICK) == folder
    for name in names:
        assert (folder / name).read_bytes() == content(BLOCK) + name.encode()
    before = server.requests
    assert download_checkpoint(pattern, 700, names, folder, QUICK) == folder
    assert server.requests == before
    with pytest.raises(UserError, match=r"lacks optim\.pt"):
        download_checkpoint(pattern, 700, [*names, "optim.pt"], folder, QUICK)


def test_what_an_index_names_comes_along(server: Server, tmp_path: Path) -> None:
    """As with the shards of a distributed checkpoint: their names are known when the index is there."""
    server.files |= {"/run/step7/index": b"shard0 shard1", "/run/step7/shard0": b"a", "/run/step7/shard1": b"b"}

    def named(folder: Path) -> list[str]:
        return (folder / "index").read_text().split()

    folder = download_checkpoint(
        server.url + "/run/step{step}", 7, ["index"], tmp_path / "step7", QUICK, named_within=named
    )
    assert {path.name for path in folder.iterdir()} == {"index", "shard0", "shard1"}
    (folder / "shard1").unlink()
    with pytest.raises(UserError, match="lacks shard1"):
        download_checkpoint(server.url + "/run/step{step}", 7, ["index"], folder, QUICK, named_within=named)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("http://h/step100/", ["model.pt"]),
        ("http://h/{revision}/step{step}/", ["model.pt"]),
        ("http://h/step{step}/", []),
        ("http://h/step{step}/", ["../model.pt"]),
        ("http://h/step{step}/", ["/etc/model.pt"]),
    ],
)
def test_wrong_checkpoint_addresses(tmp_path: Path, pattern: str, names: list[str]) -> None:
    with pytest.raises(UserError):
        checkpoint_downloads(pattern, 100, names, tmp_path)
