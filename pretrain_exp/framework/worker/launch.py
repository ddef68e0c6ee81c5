"""Starts the ranks of a job on this machine and waits: `launch --worker MODULE --ranks N job.json --device cpu`.

What torchrun does on one machine, with three differences: the ranks' exit status is kept (75: start me again), a
signal is left to the ranks to act on in their own time, and no rank outlives the launcher, however that ends.
Standard library only, so it starts at once. Over several machines the worker runs under torchrun as it is.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

START = str(Path(__file__).with_name("start.py"))
OF_A_RANK = frozenset(
    {"MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK"}
)
"""What torchrun tells a rank by its environment: no other job may inherit it."""
GRACE_SECONDS = 10.0  # what the other ranks get to end after one has failed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", required=True, help="the module that each rank runs")
    parser.add_argument("--ranks", type=int, required=True)
    options, rest = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory(prefix="pretrain-exp-") as folder:
        read_end, write_end = os.pipe()  # closed by the kernel when this process ends, however it ends
        ranks = [
            subprocess.Popen(
                [sys.executable, START, options.worker, *rest]
                + ["--rank", str(rank), "--world", str(options.ranks)]
                + ["--rendezvous", f"file://{folder}/rendezvous", "--lifeline", str(read_end)],
                pass_fds=[read_end],
            )
            for rank in range(options.ranks)
        ]
        os.close(read_end)

        def forward(number: int, frame: object) -> None:
            for rank in ranks:
                if rank.poll() is None:
                    rank.send_signal(number)

        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, forward)
        status = _wait(ranks)
        os.close(write_end)
    return status


def _wait(ranks: list[subprocess.Popen[bytes]]) -> int:
    """The status of the first rank that failed (128 + n: by signal n), 0 if none did; the others then get a moment."""
    status, deadline = 0, float("inf")
    while True:
        running = [rank for rank in ranks if rank.poll() is None]
        failed = [rank.returncode for rank in ranks if rank.returncode]
        if failed and not status:
            status, deadline = failed[0], time.monotonic() + GRACE_SECONDS
        if not running:
            return status if status >= 0 else 128 - status
        if time.monotonic() > deadline:
            for rank in running:
                rank.kill()
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
