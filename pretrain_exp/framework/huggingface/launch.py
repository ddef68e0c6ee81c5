"""Starts the ranks of a job on this machine and waits for them: `python -m ....launch --ranks N job.json --device cuda`.

What torchrun does for one machine, with three differences: the ranks' exit status is kept (75 means "start me again"), a signal is
left to the ranks to act on in their own time, and ranks never outlive the launcher. Standard library only, so it starts at once.
Over several machines the worker runs under torchrun as it is.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time

WORKER = "pretrain_exp.framework.huggingface.worker"
GRACE_SECONDS = 10.0  # what the other ranks get to end after one has failed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, required=True)
    options, rest = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory(prefix="pretrain-exp-") as folder:
        read_end, write_end = os.pipe()  # closed by the kernel when this process ends, however it ends
        ranks = [
            subprocess.Popen(
                [sys.executable, "-m", WORKER, *rest]
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
    """The status of the first rank that failed, 0 if none did. After a failure the others are given a moment, then killed."""
    status, deadline = 0, float("inf")
    while any(rank.poll() is None for rank in ranks):
        failed = [rank.returncode for rank in ranks if rank.returncode]
        if failed and not status:
            status, deadline = failed[0], time.monotonic() + GRACE_SECONDS
        if time.monotonic() > deadline:
            for rank in ranks:
                rank.kill()
        time.sleep(0.05)
    return status or next((rank.returncode for rank in ranks if rank.returncode), 0)


if __name__ == "__main__":
    sys.exit(main())
