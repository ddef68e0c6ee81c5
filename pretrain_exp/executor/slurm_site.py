"""What this machine's Slurm is: its commands, its partitions, and whether it would take a job. Asks; changes nothing.

    ask(command) --> what it prints     partitions() --> names, limits     refusal(options) --> why sbatch would refuse

All questions are put without the variables of a job that this process may itself be running in: inherited, they would
bind a new job's processes to the old one's CPUs, or contradict the options it asks for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pretrain_exp.errors import UserError
from pretrain_exp.framework.worker.launch import OF_A_RANK

COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
ANSWER_SECONDS = 120.0
RETRY_SECONDS = (1.0, 4.0)
_TO_BE_REPEATED = ("squeue", "sinfo", "scancel")
_BUSY = re.compile(
    r"timed out|Unable to contact slurm controller|Zero Bytes were transmitted|try again|temporarily", re.I
)
_OF_THE_CLUSTER = {"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"}  # say which cluster this is, so they stay
_OF_A_JOB = re.compile(r"(SLURM|SLURMD|SRUN|SUBMITIT|PMI|PMI2|PMIX|TORCHELASTIC)_|SBATCH_(CPU|MEM)_BIND")
_DEVICES = {"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "GPU_DEVICE_ORDINAL"}


class SlurmError(UserError):
    """Slurm refused, or did not answer."""


@dataclass(frozen=True)
class Partition:
    name: str
    limit: int | None  # minutes; None: no limit


def hidden_variables(environment: Mapping[str, str]) -> list[str]:
    """The variables that a new job must not inherit: those of a job, its devices too, but not a login shell's."""
    inside = "SLURM_JOB_ID" in environment
    return sorted(
        name
        for name in environment
        if (_OF_A_JOB.match(name) and name not in _OF_THE_CLUSTER) or name in OF_A_RANK or (inside and name in _DEVICES)
    )


def clean_environment() -> dict[str, str]:
    hidden = set(hidden_variables(os.environ))
    return {name: value for name, value in os.environ.items() if name not in hidden}


def ask(*command: str) -> str:
    """What a Slurm command prints. SlurmError with its own words where it fails, or gives no answer in two minutes.

    A busy controller is asked again, where asking twice does no harm.
    """
    done = _answer(command)
    for seconds in RETRY_SECONDS if command[0] in _TO_BE_REPEATED else ():
        if not done.returncode or not _BUSY.search(done.stderr):
            break
        time.sleep(seconds)
        done = _answer(command)
    if done.returncode:
        raise SlurmError(f"{command[0]} failed: {_words(done.stderr or done.stdout)}", fix=_TRY_SINFO)
    return done.stdout


def _answer(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """A command run to its end, whatever its exit status. SlurmError where it is not there or does not come back."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_SECONDS, env=clean_environment(), check=False
        )
    except FileNotFoundError:
        raise SlurmError(f"{command[0]} is not on PATH", fix=_ON_A_LOGIN_NODE) from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} gave no answer within {ANSWER_SECONDS:.0f} s", fix=_TRY_SINFO) from None


def missing_commands() -> list[str]:
    return [name for name in COMMANDS if shutil.which(name) is None]


def missing_commands_problem(missing: Iterable[str]) -> UserError:
    return UserError(f"not on PATH: {', '.join(missing)}", key="executor", value="slurm", fix=_ON_A_LOGIN_NODE)


def partitions() -> dict[str, Partition]:
    """All partitions of the cluster, also those in which this user may not run."""
    found = {}
    for line in ask("sinfo", "--noheader", "--all", "--format=%R|%l").splitlines():
        name, _, limit = line.strip().rpartition("|")
        found[name] = Partition(name, None if limit in ("infinite", "n/a") else minutes(limit))
    return found


def refusal(options: Mapping[str, str | int | bool]) -> str | None:
    """Why sbatch would refuse a job with these long options; None where it would take it. Submits nothing.

    SlurmError where sbatch cannot be asked.
    """
    done = _answer(["sbatch", "--test-only", *flags(options), "--wrap=true"])
    return _words(done.stderr) if done.returncode else None


def flags(options: Mapping[str, str | int | bool]) -> list[str]:
    """Long options as arguments; True stands for an option without a value."""
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]


def minutes(time: int | str) -> int:
    """Slurm's notation of a time (M, M:S, H:M:S, D-H, D-H:M, D-H:M:S) in minutes, rounded up; ValueError for others."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", str(time).strip())
    if match is None:
        raise ValueError(f"{time!r} is no time: give minutes, or H:MM:SS, or D-HH:MM:SS, in quotes")
    days, *parts = (int(part) if part is not None else None for part in match.groups())
    given = [part for part in parts if part is not None]
    if days is not None:
        hours, mins, seconds = (*given, 0, 0)[:3]
    elif len(given) == 3:
        hours, mins, seconds = given
    else:
        hours, (mins, seconds) = 0, (*given, 0)[:2]
    total = ((days or 0) * 24 + hours) * 3600 + mins * 60 + seconds
    return -(-total // 60)


def _words(text: str) -> str:
    """What a command said, on one line, its own name left out."""
    lines = [
        re.sub(r"^(sbatch|srun|sinfo|squeue|scancel|scontrol|slurm_\w+)( error)?: (error: |fatal: )?", "", line)
        for line in text.splitlines()
    ]
    return "; ".join(dict.fromkeys(line.strip() for line in lines if line.strip())) or "no reason given"


_ON_A_LOGIN_NODE = "run this on a login node of the cluster (module load slurm?), or use executor=inline"
_TRY_SINFO = "see whether `sinfo` works from this shell"
