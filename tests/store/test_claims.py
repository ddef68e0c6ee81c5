"""One writer at a time, also after a crash, also with many who want to write, also when one of them sleeps."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from pretrain_exp.store import claims
from pretrain_exp.store.claims import (
    ClaimLost,
    Watch,
    claimed,
    demand_claim,
    holder_lives,
    is_free,
    try_claim,
    wait_for_claim,
)


class Clock:
    """A watcher's own clock."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def of_another_machine(store, key="k", number=1):
    path = store / "claims" / key / f"{number}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"owner": "x", "host": "elsewhere", "boot": "b", "pid": 1, "started": 1}))
    return path


def watched_to_be_dead(store):
    """A watch that saw the claim stand still for a minute and a second."""
    clock = Clock()
    watch = Watch(clock)
    assert try_claim(store, "k", watch, stale=60) is None
    clock.now += 61
    return watch


def test_a_held_claim_is_refused_and_a_released_one_is_free(tmp_path):
    first = try_claim(tmp_path, "k")
    assert first is not None
    assert try_claim(tmp_path, "k") is None
    first.release()
    second = try_claim(tmp_path, "k")
    assert second is not None
    second.release()
    assert len(list((tmp_path / "claims/k").iterdir())) == 1


def test_the_claim_of_a_dead_process_on_this_machine_is_taken_at_once(tmp_path):
    code = f"import os; from pretrain_exp.store.claims import try_claim; try_claim({str(tmp_path)!r}, 'k'); os._exit(1)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert json.loads((tmp_path / "claims/k/1.json").read_text())["owner"]
    claim = try_claim(tmp_path, "k")
    assert claim is not None
    claim.release()


@pytest.mark.parametrize("age", [-(10**6), 0, 10**6])
def test_the_clock_of_another_machine_is_not_believed(tmp_path, age):
    """Whatever date a heartbeat bears: alive while it changes, dead when it was watched not to."""
    path, clock = of_another_machine(tmp_path), Clock()
    watch = Watch(clock)
    for beat in range(3):
        os.utime(path, (time.time() - age + beat, time.time() - age + beat))
        assert try_claim(tmp_path, "k", watch, stale=60) is None
        clock.now += 59
        assert try_claim(tmp_path, "k", watch, stale=60) is None
    clock.now += 2
    claim = try_claim(tmp_path, "k", watch, stale=60)
    assert claim is not None
    assert claim.held()
    claim.release()


def test_an_empty_file_is_waited_out_like_a_silent_claim(tmp_path):
    of_another_machine(tmp_path).write_text("")
    claim = try_claim(tmp_path, "k", watched_to_be_dead(tmp_path))
    assert claim is not None
    claim.release()


def test_of_many_takers_of_a_stale_claim_one_gets_it(tmp_path):
    of_another_machine(tmp_path)
    watches = [watched_to_be_dead(tmp_path) for _ in range(8)]
    got = []
    barrier = threading.Barrier(8)

    def take(watch):
        barrier.wait()
        claim = try_claim(tmp_path, "k", watch)
        if claim is not None:
            got.append(claim)

    threads = [threading.Thread(target=take, args=(watch,)) for watch in watches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert got[0].held()
    got[0].release()


@pytest.mark.parametrize("released", [False, True])
def test_a_taker_that_slept_between_its_look_and_its_link_gets_nothing(tmp_path, released, monkeypatch):
    """It saw claim 1 dead; before it links 2, that number was taken, released, taken again and cleared away."""
    of_another_machine(tmp_path)
    watch, other, link = watched_to_be_dead(tmp_path), watched_to_be_dead(tmp_path), os.link
    holders = []

    def slow(source, target):
        monkeypatch.setattr(os, "link", link)
        try_claim(tmp_path, "k", other).release()
        holders.append(try_claim(tmp_path, "k"))
        if released:
            holders.pop().release()
        link(source, target)

    monkeypatch.setattr(os, "link", slow)
    assert try_claim(tmp_path, "k", watch) is None
    for claim in holders:
        assert claim.held()
        assert try_claim(tmp_path, "k") is None
        claim.release()


def test_one_that_slept_past_its_time_knows_it_and_harms_nobody(tmp_path):
    first = try_claim(tmp_path, "k")
    environment = first.environment()
    demand_claim(environment)
    second = try_claim(tmp_path, "k", watched_to_be_dead(tmp_path))
    assert not first.held()
    with pytest.raises(ClaimLost, match=r"claims/k/1\.json"):
        demand_claim(environment)
    first.release()
    assert second.held()
    assert try_claim(tmp_path, "k") is None
    second.release()


def test_without_a_claim_none_is_demanded():
    demand_claim({})


def test_a_file_system_that_fails_for_a_moment_does_not_end_the_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.01)
    claim = try_claim(tmp_path, "k")
    for name in ("utime", "listdir"):
        failed = threading.Event()

        def stale(path, failed=failed):
            failed.set()
            raise OSError(errno.ESTALE, "stale file handle")

        with monkeypatch.context() as patched:
            patched.setattr(os, name, stale)
            assert failed.wait(600)
    os.utime(claim.path, (1, 1))
    deadline = time.monotonic() + 600
    while claim.path.stat().st_mtime == 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert claim.path.stat().st_mtime > 1
    assert not claim.lost.is_set()
    claim.release()


def test_the_heartbeat_tells_when_the_claim_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT_SECONDS", 0.01)
    claim = try_claim(tmp_path, "k")
    of_another_machine(tmp_path, number=2)
    assert claim.lost.wait(600)
    claim.release()


def test_waiting_for_a_claim_can_be_stopped(tmp_path):
    of_another_machine(tmp_path)
    stop = threading.Event()
    found = []
    waiting = threading.Thread(target=lambda: found.append(wait_for_claim(tmp_path, "k", stop=stop)), daemon=True)
    waiting.start()
    stop.set()
    waiting.join(600)
    assert found == [None]


def test_claimed_waits_its_turn(tmp_path):
    order = []

    def hold(name, seconds):
        with claimed(tmp_path, "k", poll=0.01):
            order.append(f"{name} in")
            time.sleep(seconds)
            order.append(f"{name} out")

    threads = [threading.Thread(target=hold, args=(str(i), 0.05)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(order[i].split()[0] == order[i + 1].split()[0] for i in range(0, 8, 2))


def test_whether_a_holder_lives_is_told_by_its_reference(tmp_path):
    first = try_claim(tmp_path, "k")
    assert not is_free(tmp_path, "k")
    told = first.reference()
    assert holder_lives(told)
    assert not holder_lives({**told, "owner": "another"})
    first.release()
    assert is_free(tmp_path, "k")
    assert not holder_lives(told)
    with claimed(tmp_path, "k") as second:
        assert not holder_lives(told)
        assert holder_lives(second.reference())
    assert is_free(tmp_path, "never claimed")
    assert not (tmp_path / "claims/never claimed").exists()
    assert not holder_lives({"path": str(tmp_path / "claims/nobody/1.json"), "owner": "x"})


def test_a_holder_on_another_machine_lives_until_it_was_watched_to_stand_still(tmp_path):
    path, clock = of_another_machine(tmp_path), Clock()
    told, watch = {"path": str(path), "owner": "x"}, Watch(clock)
    assert holder_lives(told)
    assert holder_lives(told, watch, stale=60)
    clock.now += 59
    assert holder_lives(told, watch, stale=60)
    clock.now += 2
    assert not holder_lives(told, watch, stale=60)
    assert holder_lives(told)  # who has not watched cannot know
