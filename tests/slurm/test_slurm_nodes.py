"""A node of a real Slurm that vanishes: its job is requeued, and goes on elsewhere from its last checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from slurm_jobs import SMALL, counting_job, log_of, number_of, wait_for, wait_until_ended

from pretrain_exp.executor.slurm import Slurm
from pretrain_exp.executor.slurm_queue import look

pytestmark = pytest.mark.slurm
STEPS, SAVE_EVERY = 3_000, 5


def kill_all_of(number: str, slurmd: int) -> None:
    """What a power cut leaves of a job: nothing. First who would tell Slurm of its end: the daemons."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [row.split(None, 2) for row in listed.splitlines()]
    gone = [pid for pid, _, words in rows if words.startswith(f"slurmstepd: [{number}.")]
    assert gone, listed
    for one in gone:  # and their children, and the children of these
        gone += [pid for pid, parent, _ in rows if parent == one]
    for pid in [slurmd, *map(int, gone)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def vanished(home: Path, node: str, number: str) -> Iterator[None]:
    """The node's daemon and its share of a job are killed, and Slurm sees that it is down; it comes back in the end."""
    update, slurmd = ["scontrol", "update", f"nodename={node}"], shutil.which("slurmd", path="/usr/sbin:/sbin")
    try:
        kill_all_of(number, int((home / f"slurmd.{node}.pid").read_text()))
        subprocess.run([*update, "state=down", "reason=test"], check=True)  # as a site's own checks do, or a time limit
        yield
    finally:
        subprocess.run([slurmd, "-N", node], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        idle = ["sinfo", "-h", "-n", node, "-p", "main", "-t", "idle", "-o", "%N"]
        subprocess.run([*update, "state=resume"], check=False)  # refused where it is back by itself
        wait_for(lambda: subprocess.run(idle, capture_output=True, text=True).stdout.strip() == node, f"{node} is down")


def test_the_job_of_a_node_that_vanishes_goes_on_from_its_last_checkpoint_on_another(slurm, tmp_path):
    job = counting_job(tmp_path, "node", STEPS, 0.1, save_every=SAVE_EVERY)
    job = replace(job, command=(*job.command[:-1], "job.json"), directory=job.folder)  # it runs where it was planned
    Slurm(**SMALL).run([job], tmp_path)
    number = number_of(job)
    wait_for((job.folder / "saved.json").is_file, why=log_of(job))
    node = look([number])[number].nodes
    with vanished(slurm, node, number):
        assert list(wait_until_ended(job).values()) == ["COMPLETED"], log_of(job)
    done = json.loads(job.makes[0].read_text())
    assert done["steps"] == STEPS
    begun, again = done["starts"]
    assert begun == 0
    assert again >= SAVE_EVERY
    assert again % SAVE_EVERY == 0  # what it saved by itself: it was told nothing
    assert done["environment"]["SLURMD_NODENAME"] != node
    assert number_of(job) == number
    # what was done since that checkpoint, and was lost with the node, is done again; nothing is left out
    steps = [json.loads(line)["step"] for line in (job.folder / "metrics.jsonl").read_text().splitlines()]
    reached = len(steps) - (STEPS - again)
    assert reached >= again
    assert steps == [*range(reached), *range(again, STEPS)]
