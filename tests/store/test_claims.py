"""One writer at a time, also after a crash, also with many who want to write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

from pretrain_exp.store.claims import claimed, try_claim


def test_a_held_claim_is_refused_and_a_released_one_is_free(tmp_path):
    first = try_claim(tmp_path, "k")
    assert first is not None
    assert try_claim(tmp_path, "k") is None
    first.release()
    second = try_claim(tmp_path, "k")
    assert second is not None
    second.release()


def test_the_claim_of_a_dead_process_on_this_machine_is_taken_at_once(tmp_path):
    code = f"import os; from pretrain_exp.store.claims import try_claim; try_claim({str(tmp_path)!r}, 'k'); os._exit(1)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (tmp_path / "claims/k.json").is_file()
    claim = try_claim(tmp_path, "k")
    assert claim is not None
    claim.release()


def test_a_claim_of_another_machine_is_taken_when_its_heartbeat_stopped(tmp_path):
    path = tmp_path / "claims/k.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"owner": "x", "host": "elsewhere", "pid": 1}))
    assert try_claim(tmp_path, "k", stale=60) is None
    os.utime(path, (time.time() - 61, time.time() - 61))
    claim = try_claim(tmp_path, "k", stale=60)
    assert claim is not None
    assert claim.held()
    claim.release()


def test_of_many_takers_of_a_stale_claim_one_gets_it(tmp_path):
    path = tmp_path / "claims/k.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"owner": "x", "host": "elsewhere", "pid": 1}))
    os.utime(path, (1, 1))
    got = []
    barrier = threading.Barrier(8)

    def take():
        barrier.wait()
        claim = try_claim(tmp_path, "k")
        if claim is not None:
            got.append(claim)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(claim.held() for claim in got) == 1
    for claim in got:
        claim.release()


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
