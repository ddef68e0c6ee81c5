"""One writer at a time: numbered claim files with a heartbeat, for file systems with and without locks.

    claims/<key>/<n>.json   {"owner", "pid", "host", "boot", "started"}; owner null: released

The claim with the highest number counts; its modification time is the heartbeat. Whoever finds it released or dead
creates the next number, which only one of several takers can do, and then removes the lower ones. Nobody ever removes
the highest or touches another's file, so no delay between two of these steps can give a key two holders.

Dead is a claim whose process is gone from this machine, or whose heartbeat was watched to stand still for `stale`
seconds of the watcher's own clock: no two machines' clocks are compared. A writer asks whether its claim is still held
before it commits, so that one that was suspended past its time writes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain_exp.store.process import describe_process, process_lives
from pretrain_exp.store.states import write_json

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
CLAIM, CLAIM_OWNER = "PRETRAIN_EXP_CLAIM", "PRETRAIN_EXP_CLAIM_OWNER"  # told to a child that writes under a claim


class ClaimLost(Exception):
    """Another process took the claim over: whatever was to be written is its business now."""


class Claim:
    """A claim that is held; its heartbeat runs until `release`, or until it is `lost`."""

    def __init__(self, path: Path, owner: str):
        self.path, self.owner = path, owner
        self.lost = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                if not self.held():
                    self.lost.set()
                    return
                os.utime(self.path)
            except OSError:
                continue  # a file system that is away for a moment says nothing about the claim

    def held(self) -> bool:
        """False once another process took the claim over (this one was suspended for too long). OSError: unknown."""
        return _is_held(self.path, self.owner)

    def environment(self) -> dict[str, str]:
        """What a child needs for `demand_claim`."""
        return {CLAIM: str(self.path), CLAIM_OWNER: self.owner}

    def reference(self) -> dict[str, str]:
        """What another process needs for `holder_lives`."""
        return {"path": str(self.path.absolute()), "owner": self.owner}

    def release(self) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # what cannot be said now, the missing heartbeat says later
            if self.held():
                write_json(self.path, {"owner": None})

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Watch:
    """For how long what was looked at has been the same, by this process's own clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._since, self._seen = clock, clock(), None

    def unchanged(self, seen: Any) -> float:
        """Seconds since `seen` was first met without another in between."""
        if seen != self._seen:
            self._seen, self._since = seen, self._clock()
        return self._clock() - self._since


@dataclass(frozen=True)
class _Last:
    """The claim that counts. record: empty where it cannot be read; modified: in ns."""

    number: int
    record: Mapping[str, Any]
    modified: int = 0


def try_claim(store: Path | str, key: str, watch: Watch | None = None, stale: float = STALE_SECONDS) -> Claim | None:
    """The claim on `key`, or None while another living process holds it.

    watch: what one caller keeps between its tries; without it only a released claim is taken, or one whose process is
    gone from this machine.
    """
    folder = Path(store) / "claims" / key
    folder.mkdir(parents=True, exist_ok=True)
    before = _free(folder, watch, stale)
    if before is None:
        return None
    path, owner = folder / f"{before.number + 1}.json", uuid.uuid4().hex
    # written in full under another name and then linked: a reader never meets an empty claim
    temporary = folder / f".new-{owner[:8]}"
    temporary.write_text(json.dumps({"owner": owner, **describe_process()}))
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()
    # asked, not concluded from the link: a taker that slept may have linked a number that is long past
    if not _is_held(path, owner):
        return None
    for number in _numbers(folder):
        if number <= before.number:
            (folder / f"{number}.json").unlink(missing_ok=True)
    return Claim(path, owner)


def is_free(store: Path | str, key: str, watch: Watch | None = None, stale: float = STALE_SECONDS) -> bool:
    """Whether `try_claim` would take the claim; takes nothing."""
    folder = Path(store) / "claims" / key
    return not folder.is_dir() or _free(folder, watch, stale) is not None


def wait_for_claim(
    store: Path | str, key: str, poll: float = 1.0, stale: float = STALE_SECONDS, stop: threading.Event | None = None
) -> Claim | None:
    """The claim on `key` as soon as it is free; None where `stop` was set before."""
    watch, stop = Watch(), stop or threading.Event()
    while not stop.is_set():
        if claim := try_claim(store, key, watch, stale):
            return claim
        stop.wait(poll)
    return None


@contextlib.contextmanager
def claimed(store: Path | str, key: str, poll: float = 1.0, stale: float = STALE_SECONDS) -> Iterator[Claim]:
    """Waits for the claim on `key`, holds it for the block, releases it."""
    claim = wait_for_claim(store, key, poll, stale)
    assert claim is not None, "nothing stops this wait"
    with claim:
        yield claim


def holder_lives(reference: Mapping[str, str], watch: Watch | None = None, stale: float = STALE_SECONDS) -> bool:
    """Whether who held this claim holds it still, by a process that lives as far as can be known from here.

    reference: of `Claim.reference`. watch: what one caller keeps between its questions; without it, a process of
    another machine counts as alive.
    """
    path = Path(reference["path"])
    last = _last(path.parent) if path.parent.is_dir() else None
    if last is None or f"{last.number}.json" != path.name or last.record.get("owner") != reference["owner"]:
        return False
    return not _is_free(last, watch, stale)


def demand_claim(environment: Mapping[str, str]) -> None:
    """Raises ClaimLost where the claim named in the environment is another's by now; none named, none demanded."""
    path, owner = environment.get(CLAIM), environment.get(CLAIM_OWNER)
    if path and owner and not _is_held(Path(path), owner):
        raise ClaimLost(f"another process took over {path}, so nothing more is written here")


def _free(folder: Path, watch: Watch | None, stale: float) -> _Last | None:
    """The claim that counts, where it may be followed."""
    try:
        last = _last(folder)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return None  # replaced by another machine in this instant
    return last if last is not None and _is_free(last, watch, stale) else None


def _is_held(path: Path, owner: str) -> bool:
    last = _last(path.parent)
    return last is not None and f"{last.number}.json" == path.name and last.record.get("owner") == owner


def _is_free(last: _Last, watch: Watch | None, stale: float) -> bool:
    if last.number == 0 or ("owner" in last.record and last.record["owner"] is None):
        return True
    silent = watch.unchanged((last.number, last.modified)) if watch else 0.0
    # on this machine the process itself can be asked, so a crash need not be waited out
    return process_lives(last.record) is False or silent > stale


def _last(folder: Path) -> _Last | None:
    """The claim with the highest number, number 0 before the first; None where it was just followed by another."""
    number = max(_numbers(folder), default=0)
    if not number:
        return _Last(0, {})
    try:
        with open(folder / f"{number}.json") as file:  # opened: NFS may answer a mere stat with what was a minute ago
            modified, text = os.fstat(file.fileno()).st_mtime_ns, file.read()
    except FileNotFoundError:
        return None
    try:
        return _Last(number, json.loads(text), modified)
    except json.JSONDecodeError:  # a machine that lost its power may leave an empty file
        return _Last(number, {}, modified)


def _numbers(folder: Path) -> list[int]:
    names = [name.removesuffix(".json") for name in os.listdir(folder) if name.endswith(".json")]
    return [int(name) for name in names if name.isdigit()]
