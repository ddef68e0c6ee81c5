"""data=official: sizes, and files fetched as far as planned slots read them, from a real server that fails."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain_exp.data.official import OfficialMix, bytes_of
from pretrain_exp.data.official_spans import spans_of
from pretrain_exp.data.olmo_order import OlmoOrder
from pretrain_exp.data.order import DataOrder, ShuffledOrder, order_from_json
from pretrain_exp.data.token_files import NotFetched, TokenFiles
from pretrain_exp.data.tokenizer import Tokenizer
from pretrain_exp.errors import UserError
from pretrain_exp.store.part_file import spans_held
from pretrain_exp.store.transfer import Download
from pretrain_exp.study.fetch import FetchingOrder, sentence

Server = Any  # of conftest.py


LENGTHS = {"a/0.npy": 1003, "a/1.npy": 640, "b/0.npy": 2000}  # tokens: the mix is range(3643)


VOCABULARY = Tokenizer("nowhere", "f", 4000, 3999)


S = 16


@pytest.fixture
def mix(server: Server, tmp_path: Path) -> OfficialMix:
    start = 0
    for name, length in LENGTHS.items():
        server.files[f"/data/{name}"] = np.arange(start, start + length, dtype="<u4").tobytes()
        start += length
    (tmp_path / "mix.txt").write_text("# a comment\n" + "\n".join(f"label,{name}" for name in LENGTHS) + "\n\n")
    return OfficialMix(mix=str(tmp_path / "mix.txt"), base_url=f"{server.url}/data/", connections=3)


def fetch(mix: OfficialMix, files: TokenFiles, order: DataOrder, slots: range, cache: Path) -> list[Download]:
    needed = mix.missing(files, spans_of(order, slots))
    mix.download(needed, files, VOCABULARY.vocab_size, cache)
    return needed


ORDERS = {
    "shuffled": lambda files: ShuffledOrder(files, S, 3),  # its sequences go over the ends of files
    "olmo2": lambda files: OlmoOrder(files, S, 4, 6198),
}


@pytest.mark.parametrize("kind", ORDERS)
def test_what_the_steps_read_comes_and_nothing_else(
    server: Server, mix: OfficialMix, tmp_path: Path, kind: str
) -> None:
    files = mix.prepare(tmp_path, VOCABULARY)
    assert [file.num_tokens for file in files.files] == list(LENGTHS.values())
    assert sorted(server.headed) == sorted(f"/data/{name}" for name in LENGTHS)
    order, slots = ORDERS[kind](files), range(40, 60)
    with pytest.raises(NotFetched, match="run` fetches"):
        order.read(40)
    needed = fetch(mix, files, order, slots, tmp_path)
    assert bytes_of(needed) == server.sent == 20 * S * 4
    for slot in slots:
        first = order.stream_offset(slot, 0)
        assert order.read(slot).tolist() == list(range(first, first + S)), "the mix is range(n)"
    outside = [slot for slot in range(order.num_sequences) if slot not in slots]
    for slot in outside:
        with pytest.raises(NotFetched, match="have not been downloaded"):
            order.read(slot)
    fresh = order_from_json(json.loads(json.dumps(order.to_json())))  # what a worker gets
    assert fresh.read(41).tolist() == order.read(41).tolist()
    with pytest.raises(NotFetched):
        fresh.read(outside[0])


def test_more_steps_are_added_while_the_file_is_read(server: Server, mix: OfficialMix, tmp_path: Path) -> None:
    files = mix.prepare(tmp_path, VOCABULARY)
    order = ShuffledOrder(files, S, 3)
    fetch(mix, files, order, range(10), tmp_path)
    reader = order_from_json(order.to_json())
    first = reader.read(5)
    inodes = [Path(file.path).stat().st_ino for file in files.files]
    fetch(mix, files, order, range(5, 30), tmp_path)
    assert server.sent == 30 * S * 4, "nothing came twice"
    assert [Path(file.path).stat().st_ino for file in files.files] == inodes
    assert reader.read(5).tolist() == first.tolist()
    assert reader.read(29).tolist() == order.read(29).tolist(), "an open reader sees what came since"
    assert mix.missing(files, spans_of(order, range(30))) == []


def test_a_second_study_asks_the_server_nothing(server: Server, mix: OfficialMix, tmp_path: Path) -> None:
    files = mix.prepare(tmp_path, VOCABULARY)
    fingerprint = files.fingerprint()
    order = ShuffledOrder(files, S, 3)
    assert mix.prepare(tmp_path, VOCABULARY) == files
    assert len(server.headed) == len(LENGTHS), "sizes are kept"
    fetch(mix, files, order, range(9), tmp_path)
    server.files.clear()
    asked = server.requests
    again = mix.prepare(tmp_path, VOCABULARY)
    assert fetch(mix, again, ShuffledOrder(again, S, 3), range(9), tmp_path) == []
    assert server.requests == asked
    assert again.fingerprint() == fingerprint


def test_files_at_hand_are_read_where_they_lie(server: Server, mix: OfficialMix, tmp_path: Path) -> None:
    root, name = tmp_path / "root", "a/1.npy"
    (root / "a").mkdir(parents=True)
    (root / name).write_bytes(server.files[f"/data/{name}"])
    there = replace(mix, root=str(root))
    files = there.prepare(tmp_path, VOCABULARY)
    assert f"/data/{name}" not in server.headed
    assert files.files[1].path == str(root / name)
    assert files.fingerprint() == mix.prepare(tmp_path, VOCABULARY).fingerprint(), "the same mix, wherever it lies"
    order = ShuffledOrder(files, S, None)
    needed = fetch(there, files, order, range(62, 105), tmp_path)  # the end of a/0, all of a/1, the beginning of b/0
    assert name not in {file.url.partition("/data/")[2] for file in needed}
    assert order.read(62).tolist() == list(range(62 * S, 63 * S))
    assert sorted(path.name for path in root.rglob("*")) == ["1.npy", "a"], "nothing is written there"


def test_a_mix_may_name_a_file_twice(server: Server, mix: OfficialMix, tmp_path: Path) -> None:
    """The official mix of OLMo-2 does."""
    (tmp_path / "mix.txt").write_text("a/1.npy\na/1.npy\n")
    files = mix.prepare(tmp_path, VOCABULARY)
    assert files.num_tokens == 2 * 640
    order = ShuffledOrder(files, S, None)
    fetch(mix, files, order, range(80), tmp_path)
    assert server.sent == 640 * 4
    assert order.read(40).tolist() == order.read(0).tolist()


@pytest.mark.parametrize("ranges", [True, False])
def test_whole_files(server: Server, mix: OfficialMix, tmp_path: Path, ranges: bool) -> None:
    server.ranges = ranges
    whole = replace(mix, fetch="whole")
    files = whole.prepare(tmp_path, VOCABULARY)
    order = ShuffledOrder(files, S, None)
    needed = fetch(whole, files, order, range(3), tmp_path)  # of a/0 alone
    assert bytes_of(needed) == server.sent == 1003 * 4
    assert [spans_held(Path(file.path)) for file in files.files] == [None, [], []]
    assert [Path(file.path).stat().st_size for file in files.files] == [4 * n for n in LENGTHS.values()]
    assert order.read(61).tolist() == list(range(61 * S, 62 * S))
    with pytest.raises(NotFetched):
        order.read(62)


def test_spans_need_a_server_of_parts(server: Server, mix: OfficialMix, tmp_path: Path) -> None:
    server.ranges = False
    files = mix.prepare(tmp_path, VOCABULARY)
    with pytest.raises(UserError, match=r"whole files only.*\n.*data\.fetch=whole"):
        fetch(mix, files, ShuffledOrder(files, S, None), range(3), tmp_path)


def test_servers_without_heads_are_asked_for_a_byte(server: Server, mix: OfficialMix, tmp_path: Path) -> None:
    server.heads = False
    assert mix.prepare(tmp_path, VOCABULARY).num_tokens == 3643


@pytest.mark.parametrize("size", [0, 4 * 1003 - 8, 4 * 1003 + 64])
def test_another_size_than_planned_with(server: Server, mix: OfficialMix, tmp_path: Path, size: int) -> None:
    files = mix.prepare(tmp_path, VOCABULARY)
    server.files["/data/a/0.npy"] = bytes(size)
    with pytest.raises(UserError, match=f"has {size:,} bytes on the server, expected {4 * 1003:,}"):
        fetch(mix, files, ShuffledOrder(files, S, None), range(3), tmp_path)
    assert not Path(files.files[0].path).exists()
    if size:  # the next plan asks again
        assert mix.prepare(tmp_path, VOCABULARY).files[0].num_tokens == size // 4


def test_what_the_disk_lost_comes_again(server: Server, mix: OfficialMix, tmp_path: Path) -> None:
    files = mix.prepare(tmp_path, VOCABULARY)
    order = ShuffledOrder(files, S, None)
    fetch(mix, files, order, range(3), tmp_path)
    fetch(mix, files, order, range(10, 12), tmp_path)
    with open(files.files[0].path, "r+b") as file:
        file.seek(11 * S * 4)
        file.write(bytes(8))
    before = server.sent
    needed = fetch(mix, files, order, range(12), tmp_path)
    assert bytes_of(needed) == (7 + 2) * S * 4, "slots 3 to 9, and the block that held 10 and 11"
    assert server.sent - before == bytes_of(needed)
    assert [order.read(slot)[0] for slot in range(12)] == [slot * S for slot in range(12)]


@pytest.mark.parametrize("grows", [False, True], ids=["a first fetch", "a file that grows"])
def test_killed_in_the_middle_it_goes_on(server: Server, mix: OfficialMix, tmp_path: Path, grows: bool) -> None:
    files = mix.prepare(tmp_path, VOCABULARY)
    order = ShuffledOrder(files, S, None)
    slots = range(0, 60, 2)  # 30 spans of a/0
    if grows:
        fetch(mix, files, order, range(4, 5), tmp_path)
    server.asked.clear()
    server.faults["/data/a/0.npy"] = [("", 0)] * 12 + [("stall", 8)] * 9
    code = (
        "import sys, json; from pathlib import Path; from pretrain_exp.data.official import OfficialMix;"
        "from pretrain_exp.data.official_spans import spans_of; from pretrain_exp.data.order import order_from_json;"
        "order = order_from_json(json.loads(sys.argv[1])); mix = OfficialMix(**json.loads(sys.argv[2]));"
        "mix.download(mix.missing(order.files, spans_of(order, range(0, 60, 2))), order.files, 4000, Path(sys.argv[3]))"
    )
    fields = {"mix": mix.mix, "base_url": mix.base_url, "connections": 1}
    arguments = [json.dumps(order.to_json()), json.dumps(fields), str(tmp_path)]
    child = subprocess.Popen([sys.executable, "-c", code, *arguments])
    while len(server.asked) < 13:
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    server.release.set()
    server.faults.clear()
    if grows:
        assert order_from_json(order.to_json()).read(4)[0] == 4 * S, "what was there can be read meanwhile"
    with pytest.raises(NotFetched):
        order_from_json(order.to_json()).read(58)
    again = len(server.asked)
    fetch(mix, files, order, slots, tmp_path)
    came = {start for _, start, _ in server.asked[:12]}
    assert not came & {start for _, start, _ in server.asked[again:]}, "nothing is asked for twice"
    assert [order.read(slot)[0] for slot in slots] == [slot * S for slot in slots]
    assert [path.name for path in tmp_path.rglob("*.part*")] == []


def test_ids_of_another_tokenizer(server: Server, mix: OfficialMix, tmp_path: Path) -> None:
    files = mix.prepare(tmp_path, VOCABULARY)
    needed = mix.missing(files, spans_of(ShuffledOrder(files, S, None), range(3, 4)))
    with pytest.raises(UserError, match=r"token 48 of a/0\.npy is 48, outside the tokenizer's 40 ids"):
        mix.download(needed, files, 40, tmp_path)


def test_no_server_no_sizes(mix: OfficialMix, nobody: str, tmp_path: Path) -> None:
    gone = replace(mix, base_url=nobody)
    with pytest.raises(UserError, match=r"sizes of 3 token files.*does not answer") as caught:
        gone.prepare(tmp_path, VOCABULARY)
    assert "data.root" in str(caught.value)


def test_no_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        OfficialMix(mix=None).prepare(tmp_path, VOCABULARY)


def test_every_file_that_the_server_lacks_is_named(server: Server, mix: OfficialMix, tmp_path: Path) -> None:
    del server.files["/data/a/1.npy"]
    with pytest.raises(UserError, match=r"HTTP 404.*") as caught:
        mix.prepare(tmp_path, VOCABULARY)
    assert "base_url" in str(caught.value)


def test_nothing_is_fetched_where_that_is_asked(server: Server, mix: OfficialMix, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"3 token files .* fetches none: a/0\.npy") as caught:
        replace(mix, fetch="none").prepare(tmp_path, VOCABULARY)
    assert "data.root" in str(caught.value)
    assert server.requests == 0
    files = mix.prepare(tmp_path, VOCABULARY)
    order = ShuffledOrder(files, S, None)
    fetch(mix, files, order, range(3), tmp_path)
    kept = replace(mix, fetch="none")
    assert kept.missing(kept.prepare(tmp_path, VOCABULARY), spans_of(order, range(3))) == []
    with pytest.raises(UserError, match=r"1 token files .* a/0\.npy"):
        kept.missing(files, spans_of(order, range(4)))


def test_a_plan_that_looks_at_the_data_fetches_its_window(server: Server, mix: OfficialMix, tmp_path: Path) -> None:
    files = mix.prepare(tmp_path, VOCABULARY)
    order = ShuffledOrder(files, S, None)
    asked: list[list[int]] = []

    def get(slots: Any) -> None:
        asked.append(list(slots))
        fetch(mix, files, order, slots, tmp_path)

    looking = FetchingOrder(order, range(4, 8), get)
    assert [looking.read(slot)[0] for slot in (5, 4, 7, 100, 100)] == [80, 64, 112, 1600, 1600]
    assert asked == [[4, 5, 6, 7, 5], [100]]
    assert looking.num_sequences == order.num_sequences


def test_the_amount_is_said(server: Server, mix: OfficialMix, tmp_path: Path) -> None:
    files = mix.prepare(tmp_path, VOCABULARY)
    needed = mix.missing(files, spans_of(ShuffledOrder(files, S, None), [0, 1, 5, 70]))
    assert sentence(needed).startswith("to be fetched: 256 bytes (256 bytes) of 2 token files, in 3 spans; ")
    assert sentence([]) == "nothing is to be fetched"
