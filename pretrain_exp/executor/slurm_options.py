"""What is asked of sbatch: resources as a person writes them --> long options, checked.

Resources(nodes=2, gpus_per_node=8, time="12:00:00") --options--> {"nodes": 2, "gpus-per-node": 8, "time": 720, ...}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pretrain_exp.errors import UserError
from pretrain_exp.executor.slurm_site import Partition, minutes

SIGNAL = "USR2"  # USR1 is caught by NCCL
_OWN = {
    "array": "a job is one segment",
    "dependency": "the order of the jobs is the study's",
    "error": "the log is log.txt in the job's folder",
    "export": "jobs get the environment of the shell that submits",
    "job-name": "it is the job's id",
    "kill-on-invalid-dep": "what needs a failed job is cancelled",
    "no-requeue": "a stopped job goes on by being requeued",
    "ntasks": "ranks are started on each node by torchrun: executor.ranks_per_node",
    "ntasks-per-node": "ranks are started on each node by torchrun: executor.ranks_per_node",
    "open-mode": "logs are appended to",
    "output": "the log is log.txt in the job's folder",
    "parsable": "it changes what sbatch prints",
    "quiet": "it changes what sbatch prints",
    "requeue": "a stopped job goes on by being requeued",
    "signal": "executor.signal_delay_s sets it",
    "test-only": "it would submit nothing",
    "wait": "executor.wait sets it",
    "wckey": "no key is given, unless the site sets one",
    "wrap": "the command is the job's",
}
_FIELDS = {"account", "constraint", "cpus-per-task", "mem", "nodes", "partition", "qos", "time", "gpus-per-node"}
_GPUS = {"gres", "gpus", "gpus-per-task", "gpus-per-node"}
_WHO = {"clusters", "comment", "licenses", "mail-type", "mail-user", "nice"}  # of `extra`: who asks, not for how much
_WHERE = {"exclude", "prefer", "reservation"}  # and on which of the nodes with GPUs


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one kind of job gets; None: the site's default. time: minutes or Slurm's notation; extra: other options."""

    nodes: int = 1
    gpus_per_node: int = 1
    ranks_per_node: int | None = None  # None: one a GPU, or one where there are none
    cpus_per_task: int | None = None  # on each node
    mem: str | int | None = None  # on each node: 64G; a number is in MB
    time: int | str = 60
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    signal_delay_s: int = 120  # the signal to save comes this long before the time is over
    extra: Mapping[str, str | int | bool] = field(default_factory=dict)

    @property
    def minutes(self) -> int:
        return minutes(self.time)

    @property
    def ranks(self) -> int:
        """Processes on each node that train."""
        return self.ranks_per_node or max(1, self.gpus_per_node)

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        return "cuda" if self.gpus_per_node else "cpu"

    def options(self) -> dict[str, str | int | bool]:
        """Long options of sbatch, those aside that differ from job to job."""
        asked: dict[str, str | int | bool | None] = {
            "nodes": self.nodes,
            "ntasks-per-node": 1,
            "time": self.minutes,
            "gpus-per-node": self.gpus_per_node or None,
            "cpus-per-task": self.cpus_per_task,
            "mem": self.mem,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "signal": f"{SIGNAL}@{self.signal_delay_s}",
            "requeue": True,
        }
        extra = {name.replace("_", "-"): value for name, value in self.extra.items()}
        if (
            _GPUS & extra.keys()
        ):  # the site's way to ask for GPUs; gpus_per_node then only says how many ranks there are
            asked["gpus-per-node"] = None
        return {name: value for name, value in {**asked, **extra}.items() if value is not None}


def part_of(training: Resources, gpus: int) -> dict[str, Any]:
    """The fields of a job that takes `gpus` GPUs of one of training's nodes, or none of them but as much of the rest.

    What cannot be divided is left to the site's default (cpus_per_task, mem) or out (an option of `extra`).
    """
    shares = max(1, training.gpus_per_node)
    taken = min(shares, max(1, gpus))
    passed = _WHO | _WHERE if gpus else _WHO
    extra: dict[str, str | int | bool] = {}
    for name, value in training.extra.items():
        option = name.replace("_", "-")
        if option in passed:
            extra[name] = value
        elif gpus and option in _GPUS and (fewer := _so_many_gpus(value, gpus)) is not None:
            extra[name] = fewer
    return {
        "nodes": 1,
        "gpus_per_node": gpus,
        "ranks_per_node": None,
        "cpus_per_task": None if training.cpus_per_task is None else max(1, training.cpus_per_task * taken // shares),
        "mem": _part_of_memory(training.mem, taken, shares),
        "extra": extra,
    }


def shorter(time: int | str, longest: int) -> int | str:
    """The time as it is written where it is no longer than so many minutes, else these; what is no time as it is."""
    try:
        return time if minutes(time) <= longest else longest
    except ValueError:
        return time


def _part_of_memory(mem: str | int | None, taken: int, shares: int) -> str | None:
    """In Slurm's notation (64G; MB without a unit). None for 0, which asks for all of a node, and what is no size."""
    match = re.fullmatch(r"(\d+)([KMGT]?)B?", str(mem), re.IGNORECASE)
    if match is None or not int(match[1]):
        return None
    megabytes = int(match[1]) * 1024 ** "KMGT".index(match[2].upper() or "M") * taken // shares // 1024
    return f"{max(1, megabytes)}M"


def _so_many_gpus(value: str | int | bool, gpus: int) -> str | int | None:
    """gpu:a100:8 -> gpu:a100:1, 8 -> 1; None where it says more than one kind of thing."""
    match = re.fullmatch(r"((?:gpu:)?(?:[A-Za-z]\w*:)?)\d+", str(value))
    return None if match is None else f"{match[1]}{gpus}" if match[1] else gpus


def problems(resources: Resources, partitions: Mapping[str, Partition]) -> Iterator[UserError]:
    """What is wrong before sbatch is asked. Keys are relative to the section that holds the resources."""
    for name, least in (
        ("nodes", 1),
        ("gpus_per_node", 0),
        ("ranks_per_node", 1),
        ("cpus_per_task", 1),
        ("signal_delay_s", 0),
    ):
        value = getattr(resources, name)
        if value is not None and value < least:
            yield UserError(f"must be at least {least}", key=name, value=value)
    for name, value in resources.extra.items():
        option = name.replace("_", "-")
        if option in _OWN:
            yield UserError(f"is not yours to set: {_OWN[option]}", key=f"extra.{name}", value=value, fix="remove it")
        elif option in _FIELDS - _GPUS:
            fix = f"set {option.replace('-', '_')} instead"
            yield UserError("has a field of its own", key=f"extra.{name}", value=value, fix=fix)
        elif value is False:
            yield UserError("an option cannot be false", key=f"extra.{name}", value=value, fix="remove it")
    try:
        limit = resources.minutes
    except ValueError as error:
        yield UserError(str(error), key="time", value=resources.time)
        return
    if resources.signal_delay_s >= 60 * limit:
        problem = f"the signal to save would come before the job starts, which has {limit} min"
        yield UserError(problem, key="signal_delay_s", value=resources.signal_delay_s, fix="lower it, or raise time")
    yield from _partition_problems(resources.partition, limit, partitions)


def _partition_problems(given: str | None, limit: int, partitions: Mapping[str, Partition]) -> Iterator[UserError]:
    for name in given.split(",") if given else ():
        if name not in partitions:
            fix = f"one of: {', '.join(sorted(partitions))}"
            yield UserError("this cluster has no such partition", key="partition", value=name, fix=fix)
            continue
        longest = partitions[name].limit
        if longest is not None and limit > longest:
            problem = f"{limit} min are above the limit of partition {name}, {longest} min"
            yield UserError(problem, key="time", fix="lower it: a job that is not finished is requeued and goes on")
