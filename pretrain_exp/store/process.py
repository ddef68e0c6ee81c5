"""Which process wrote a file, so that another one can tell whether it still lives. Linux, standard library only.

A pid alone says nothing: pids are used again, and every machine, every boot and every container counts its own.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MARK = re.compile(r"[0-9a-f]{8}-(\d+)-(\d+)-([0-9a-f]{8})$")


def describe_process(pid: int | None = None) -> dict[str, Any]:
    """{pid, host, boot, started} of a process on this machine (None: this one).

    boot: the boot and the pid namespace in which the pid counts. started: clock ticks since that boot.
    """
    pid = os.getpid() if pid is None else pid
    return {"pid": pid, "host": socket.gethostname(), "boot": _boot(), "started": _started(pid)}


def process_lives(record: Mapping[str, Any]) -> bool | None:
    """Whether the process of such a record runs; None where this machine cannot know, or the record says too little."""
    boot = _boot()
    if not boot or record.get("host") != socket.gethostname() or record.get("boot") != boot:
        return None
    started = _started(record["pid"])
    return started is not None and started == record["started"]


def mark() -> str:
    """The end of a name that no other has, and that tells which process wrote it: number, pid, start, where it ran."""
    own = describe_process()
    return f"{uuid.uuid4().hex[:8]}-{own['pid']}-{own['started']}-{_where(own)}"


def marker_lives(name: str) -> bool | None:
    """Whether the process runs that gave a name its `mark`; None where this machine cannot know, or there is none."""
    found, own = _MARK.search(name), describe_process()
    if found is None or found[3] != _where(own):
        return None
    return process_lives({**own, "pid": int(found[1]), "started": int(found[2])})


def _where(record: Mapping[str, Any]) -> str:
    return hashlib.blake2b(f"{record['host']} {record['boot']}".encode(), digest_size=4).hexdigest()


def _boot() -> str:
    """Empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """Field 22 of /proc/<pid>/stat, see proc(5); None where no such process runs (a zombie only waits to be read)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold spaces and brackets
    return None if fields[0] in "ZX" else int(fields[19])
