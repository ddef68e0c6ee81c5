"""A real Slurm for the tests of this folder.

Where none can be started they skip and say why; PRETRAIN_EXP_SLURM=1 makes that an error.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_jobs import SMALL, number_of

from pretrain_exp.executor.base import Job
from pretrain_exp.executor.slurm import Slurm

CLUSTER = Path(__file__).with_name("cluster.sh")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running cluster; SLURM_CONF points to it."""
    home = tmp_path_factory.mktemp("slurm")
    programs = ("slurmctld", "slurmd", "munged", "sbatch")
    missing = [name for name in programs if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")]
    why = f"not installed: {', '.join(missing)}" if missing else "" if os.geteuid() == 0 else "not root"
    if not why:
        started = subprocess.run([CLUSTER, "up", home, str(free_ports(3))], capture_output=True, text=True, check=False)
        why = started.stderr if started.returncode else ""
    if why and os.environ.get("PRETRAIN_EXP_SLURM") == "1":
        subprocess.run([CLUSTER, "down", home], check=False)
        pytest.fail(f"PRETRAIN_EXP_SLURM=1, and no Slurm can be started here: {why}")
    if why:
        subprocess.run([CLUSTER, "down", home], check=False)
        pytest.skip(f"no Slurm can be started here: {why}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", f"{home}/slurm.conf")
        yield home
    subprocess.run([CLUSTER, "down", home], check=True)


def free_ports(number: int) -> int:
    """The first of some ports in a row that nobody listens on, so that clusters of several test runs do not meet."""
    while True:
        first = random.randrange(20000, 30000)
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + number):
                held.enter_context(socket.socket()).bind(("", port))
            return first


@pytest.fixture
def submit(slurm: Path, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """submit(jobs, **fields of Slurm) --> the number of each job that is not done."""

    def run(jobs: list[Job], **fields: Any) -> dict[str, str]:
        Slurm(**{**SMALL, **fields}).run(jobs, tmp_path)
        return {job.key: number_of(job) for job in jobs if not job.done()}

    return run
