"""Jobs of the inline executor's tests: small real processes, and another process that runs them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from pretrain_exp.executor.base import Job


def job(folder, name, code, needs=(), makes=None, retries=3):
    """A job whose command is Python `code`; it has made something once the file <name>.made exists."""
    place = folder / name
    place.mkdir(exist_ok=True)
    return Job(
        key=name,
        kind="train",
        title=name,
        folder=place,
        command=(sys.executable, "-c", code),
        environment={"FOLDER": str(folder)},
        needs=frozenset(needs),
        makes=(folder / f"{name}.made",) if makes is None else makes,
        total=1,
        retries=retries,
        retry_seconds=0.01,
    )


def make(name, before="pass"):
    start = "import os, pathlib, sys, time, json; folder = pathlib.Path(os.environ['FOLDER'])"
    return f"{start}; {before}; (folder / '{name}.made').write_text('')"


def attempts(folder, name):
    return (folder / name / "log.txt").read_text().count(", attempt ")


CONTROLLER = """
import sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
from inline_jobs import job
from pretrain_exp.executor.inline import Inline
folder = Path({folder!r})
Inline(parallel=1).run([job(folder, "a", {code!r})], folder)
"""


def controller(folder, code, before=()):
    """Another process that runs job `a` of this folder. before: what its command begins with."""
    program = CONTROLLER.format(tests=str(Path(__file__).parent), folder=str(folder), code=code)
    command = [*before, sys.executable, "-c", program]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_until(condition):
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


SAVES_ON_TERM = (
    "import signal; stop = []; signal.signal(signal.SIGTERM, lambda *a: stop.append(1)); "
    "(folder / 'ready').write_text(''); [time.sleep(0.02) for _ in range(3000) if not stop]; "
    "stop or sys.exit(1); (folder / 'saved').write_text(''); sys.exit(75)"
)
DEAF = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); (folder / 'ready').write_text(''); time.sleep(120)"
)
