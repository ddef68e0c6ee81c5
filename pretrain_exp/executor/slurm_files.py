"""What a submitted job keeps in its folder, beside what every job does: the only thing that its sides tell each other.

<job>/slurm.json            its number in Slurm, the jobs it depends on, the options of sbatch    written by who submits
<job>/slurm/spec.json       what to run and where                                                 written by who submits
<job>/slurm/attempts.json   attempts, failures, how far it came, why it was given up              written by the job
<job>/slurm/cancelled       it shall save, end, and not be started again                          written by `cancel`
<job>/slurm/*.out, *.sh     what the batch script printed, and the script itself
<job>/slurm/*_submitted.pkl what the batch script runs: `run_job` with this folder                written by submitit
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pretrain_exp.errors import UserError
from pretrain_exp.executor.base import Job
from pretrain_exp.executor.slurm_options import Resources
from pretrain_exp.store.states import write_json

SCHEMA = 2


@dataclass(frozen=True)
class Submission:
    """slurm.json. needs: ids of the jobs that this one depends on."""

    id: str
    submitted: float
    needs: list[str]
    options: Mapping[str, str | int | bool]


@dataclass
class Attempts:
    """attempts.json: what outlives a requeue. furthest: the last step that any attempt reached, in the job's unit."""

    attempts: int = 0
    failures: int = 0
    furthest: int | None = None
    last_failure: str = ""  # its way and its step; the same twice is not tried again
    idle_stops: int = 0  # times in a row that a signal stopped it without a step of progress
    late_stops: int = 0  # those among them where the time was over
    given_up: str = ""  # why, for a person; empty while there is hope


@dataclass(frozen=True)
class Spec:
    """spec.json: a job as the batch side gets it."""

    job: Job
    store: Path
    nodes: int
    ranks: int  # on each node
    cpus_per_task: int | None
    device: str
    minutes: int
    signal_delay_s: int


def write_spec(job: Job, store: Path, resources: Resources) -> None:
    (job.folder / "slurm").mkdir(parents=True, exist_ok=True)
    one_node = {"nodes": 1, "ranks": resources.ranks} if not job.rank_command else {}
    spec = {
        "schema": SCHEMA,
        "job": job.to_json(),
        "store": str(store),
        "nodes": resources.nodes,
        "ranks": resources.ranks,
        "cpus_per_task": resources.cpus_per_task,
        "device": resources.device,
        "minutes": resources.minutes,
        "signal_delay_s": resources.signal_delay_s,
    }
    write_json(job.folder / "slurm" / "spec.json", spec | one_node)


def read_spec(folder: Path) -> Spec:
    """UserError where another version of this package wrote it."""
    values = json.loads((folder / "slurm" / "spec.json").read_text())
    if values["schema"] != SCHEMA:
        raise UserError(f"spec.json has schema {values['schema']}, this version reads {SCHEMA}", fix="submit again")
    return Spec(
        Job.from_json(values["job"]),
        Path(values["store"]),
        *(values[name] for name in ("nodes", "ranks", "cpus_per_task", "device", "minutes", "signal_delay_s")),
    )


def write_submission(folder: Path, submission: Submission) -> None:
    write_json(folder / "slurm.json", asdict(submission))


def read_submission(folder: Path) -> Submission | None:
    """None where the job was never submitted to Slurm."""
    path = folder / "slurm.json"
    return Submission(**json.loads(path.read_text())) if path.is_file() else None


def submitted_after(folder: Path, noted: Submission | None) -> str | None:
    """The number of a job that was submitted, but not noted any more: who did was killed. By what submitit left here.

    Where that is not here either, the job finds nothing to run, and ends by itself.
    """
    left = [path.name.partition("_")[0] for path in (folder / "slurm").glob("*_submitted.pkl")]
    newest = max(left, key=int, default=None)
    return newest if newest and (noted is None or int(newest) > int(noted.id)) else None


def forget(folder: Path, number: str) -> None:
    """Removes what says of a submission that was taken back, unless another one has replaced it."""
    (folder / "slurm" / f"{number}_submitted.pkl").unlink(missing_ok=True)
    submission = read_submission(folder)
    if submission is not None and submission.id == number:
        (folder / "slurm.json").unlink(missing_ok=True)


def write_attempts(folder: Path, attempts: Attempts) -> None:
    write_json(folder / "slurm" / "attempts.json", asdict(attempts))


def read_attempts(folder: Path) -> Attempts:
    path = folder / "slurm" / "attempts.json"
    return Attempts(**json.loads(path.read_text())) if path.is_file() else Attempts()


def clear_run(folder: Path) -> None:
    """Before a job is submitted anew: what an earlier run counted or was told no longer holds; its checkpoints do."""
    for name in ("slurm/attempts.json", "slurm/cancelled", "error.json"):
        (folder / name).unlink(missing_ok=True)
