"""A node's share of a training job: torchrun, made fit for Slurm. One process a node, started by srun.

    srun --> slurm_agent (a node) --torchrun, c10d rendezvous--> ranks      exit status: 0, 75 (saved, start again), 1

torchrun alone would die of the USR2 that Slurm sends to every process of a step, would give its ranks half a minute on
SIGTERM, and would forget with what status they ended. Here the ranks get Slurm's signals and all the time they need;
this process only waits for them. Runs in the framework's Python: the standard library and torch.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

PREEMPTED = 75
_SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
_SAVED = {PREEMPTED, *(-number for number in _SIGNALS)}  # a rank that dies of the signal was not training yet


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--ranks", type=int, required=True, help="on each node")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--id", required=True, help="of this attempt, the same on all nodes")
    parser.add_argument("command", nargs="+", help="what each rank runs")
    options = parser.parse_args(arguments)
    for number in _SIGNALS:
        signal.signal(number, _leave_it_to_the_ranks)  # a handler, unlike SIG_IGN, is not inherited by the ranks
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    master = master_address()
    first = os.environ.get("SLURM_NODEID", "0") == "0"
    settings = run.parse_args(
        [f"--nnodes={options.nodes}", f"--nproc-per-node={options.ranks}", "--max-restarts=0", "--no-python"]
        + ["--rdzv-backend=c10d", f"--rdzv-endpoint={master}:{options.port}", f"--rdzv-id={options.id}"]
        + [f"--rdzv-conf=is_host={int(first)}", f"--local-addr={master if first else own_address(master)}"]
        + options.command
    )
    if hasattr(settings, "signals_to_handle"):
        settings.signals_to_handle = "SIGHUP"
    try:
        run.run(settings)
    except ChildFailedError as error:
        return PREEMPTED if _SAVED & {failure.exitcode for failure in error.failures.values()} else 1
    return 0


def master_address() -> str:
    """The first node's address as the others reach it: Slurm's own, since names of nodes need not resolve."""
    address = os.environ.get("SLURM_LAUNCH_NODE_IPADDR")
    if address:
        return address
    nodes = os.environ.get("SLURM_JOB_NODELIST")
    if not nodes:
        return "127.0.0.1"
    listed = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
    return listed.stdout.split()[0]


def own_address(master: str) -> str:
    """The address of this node on its way to the first one. No packet is sent."""
    family, kind, _, _, target = socket.getaddrinfo(master, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(target)
        return str(probe.getsockname()[0])


def _leave_it_to_the_ranks(number: int, frame: FrameType | None) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
