"""One writer at a time: a claim file with a heartbeat, for file systems with and without locks.

    claims/<key>.json   {"owner", "host", "pid"}; its modification time is the heartbeat

A claim is taken by creating the file exclusively. One whose heartbeat stopped for `stale` seconds is taken over: the
file is renamed away first, which only one of several takers can do, and then created anew. A writer asks `held()`
before it commits, so that one that was suspended past its time writes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0


class Claim:
    """A claim that is held; its heartbeat runs until `release`."""

    def __init__(self, path: Path, owner: str):
        self.path, self.owner = path, owner
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            if not self.held():
                return
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.path)

    def held(self) -> bool:
        """False once another process took the claim over (this one was suspended for too long)."""
        try:
            return json.loads(self.path.read_text())["owner"] == self.owner
        except (FileNotFoundError, json.JSONDecodeError):
            return False

    def release(self) -> None:
        self._stop.set()
        self._thread.join()
        if self.held():
            self.path.unlink(missing_ok=True)


def try_claim(store: Path | str, key: str, stale: float = STALE_SECONDS) -> Claim | None:
    """The claim on `key`, or None while another living process holds it."""
    path = Path(store) / "claims" / f"{key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    dead = _dead_owner(path, stale)
    if dead is not None:
        _remove_claim_of(path, dead)
    owner = uuid.uuid4().hex
    # written in full under another name and then linked: a reader never meets an empty claim
    temporary = path.with_name(f".new-{key}-{owner[:8]}")
    temporary.write_text(json.dumps({"owner": owner, "host": socket.gethostname(), "pid": os.getpid()}))
    try:
        os.link(temporary, path)
    except FileExistsError:
        return None
    finally:
        temporary.unlink()
    return Claim(path, owner)


@contextlib.contextmanager
def claimed(store: Path | str, key: str, poll: float = 1.0, stale: float = STALE_SECONDS) -> Iterator[Claim]:
    """Waits for the claim on `key`, holds it for the block, releases it."""
    while (claim := try_claim(store, key, stale)) is None:
        time.sleep(poll)
    try:
        yield claim
    finally:
        claim.release()


def _dead_owner(path: Path, stale: float) -> str | None:
    """The owner of a claim whose process is gone or silent; None where there is no claim, or a living one."""
    try:
        age = time.time() - path.stat().st_mtime
        holder = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    # on this machine the process itself can be asked, so a crash need not be waited out
    gone = holder["host"] == socket.gethostname() and not _process_lives(holder["pid"])
    return holder["owner"] if gone or age > stale else None


def _remove_claim_of(path: Path, owner: str) -> None:
    """Removes the claim if it is still `owner`'s: a faster taker's new claim, met by mistake, is put back."""
    aside = path.with_name(f".stale-{path.stem}-{uuid.uuid4().hex[:8]}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    if json.loads(aside.read_text())["owner"] != owner:
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()


def _process_lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
