"""Jobs that count steps, for the tests of this folder and the controllers that they start as processes of their own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pretrain_exp.executor.base import Job
from pretrain_exp.executor.slurm import Slurm
from pretrain_exp.executor.slurm_files import read_submission
from pretrain_exp.executor.slurm_queue import look
from pretrain_exp.study.graph import Run, build_nodes, build_segments

HERE = Path(__file__).parent
SIX = [(seed, treatment) for seed in (0, 1) for treatment in ("aa", "ab", "bb")]
FOUR = [(seed, treatment) for seed in (0, 1) for treatment in ("aa", "ab")]
SMALL: dict[str, Any] = {"gpus_per_node": 0, "cpus_per_task": 1, "mem": "100", "time": 5, "signal_delay_s": 5}


def counting_job(
    store: Path, key: str, steps: int = 3, seconds: float = 0.0, needs: tuple[Job, ...] = (), **fields: Any
) -> Job:
    """A job of program.py. fields: those of Job (kind, retries, retry_seconds), the others go to job.json."""
    folder, out = store / "jobs" / f"train-{key}", store / "out" / f"{key}.json"
    for path in (folder, out.parent):
        path.mkdir(parents=True, exist_ok=True)
    own = {name: fields.pop(name) for name in ("kind", "retries", "retry_seconds", "title") if name in fields}
    before = str(needs[0].makes[0]) if needs and own.get("kind", "train") != "report" else None
    job = {"steps": steps, "seconds": seconds, "folder": str(folder), "out": str(out), "before": before, **fields}
    (folder / "job.json").write_text(json.dumps(job))
    return Job(
        **{"kind": "train", "title": f"count {key}", "retry_seconds": 0.1, **own},
        key=key,
        folder=folder,
        command=(sys.executable, str(HERE / "program.py"), str(folder / "job.json")),
        environment={"PYTHONPATH": str(HERE.parents[1])},
        needs=frozenset(need.id for need in needs),
        makes=(out,),
        total=steps,
    )


def rank_job(store: Path, key: str, steps: int, seconds: float) -> Job:
    """A job of ranks.py, for any number of nodes and ranks. Its saving takes a while, as that of large models does."""
    job = counting_job(store, key, steps, seconds, save_seconds=1.0)
    environment = {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    command = (sys.executable, str(HERE / "ranks.py"), str(job.folder / "job.json"), "{device}")
    return Job(**{**vars(job), "command": ("false",), "rank_command": command, "environment": environment})


def sweep(store: Path, members: list[tuple[int, str]]) -> list[Job]:
    """The jobs of members (seed, treatment) over three steps.

    Those of one seed share the first step, those whose treatments begin with the same letter the second.
    """
    runs = []
    for seed, treatment in members:
        prefixes = {step: treatment[: step - 1] for step in (1, 2, 3)}
        runs.append(Run(f"{seed} {treatment}", f"seed {seed}", 0, frozenset(prefixes), prefixes.__getitem__, {}))
    nodes = build_nodes(runs)
    maker: dict[str, Job] = {}
    for segment in build_segments(nodes, lambda key: False, lambda key: False):
        needs = (maker[segment.start_key],) if segment.start_key else ()
        job = counting_job(store, segment.key, 1, needs=needs)
        maker |= {key: job for _, key in segment.saves}
    return list({job.id: job for job in maker.values()}.values())


def number_of(job: Job) -> str:
    found = read_submission(job.folder)
    assert found is not None, f"{job.id} was not submitted"
    return found.id


def wait_for(what: Callable[[], Any], why: str = "") -> Any:
    """The first true value of `what`. The limit only ends a test that hangs."""
    end = time.monotonic() + 600
    while not (found := what()):
        assert time.monotonic() < end, f"waited 10 minutes in vain: {why}"
        time.sleep(0.25)
    return found


def wait_until_ended(*jobs: Job) -> dict[str, str]:
    """Waits until no job waits or runs; the state in which Slurm ended each."""
    numbers = {job.key: number_of(job) for job in jobs}

    def ended() -> bool:
        return not any(queued.alive for queued in look(numbers.values()).values())

    wait_for(ended, "jobs live on:\n" + "\n".join(log_of(job) for job in jobs if not job.done()))
    queue = look(numbers.values())
    return {key: queue[number].state for key, number in numbers.items()}


def log_of(job: Job) -> str:
    paths = [job.folder / "log.txt", *sorted((job.folder / "slurm").glob("*.out"))]
    return "\n".join(f"== {path}\n{path.read_text()}" for path in paths if path.is_file())


def main(store: str, partition: str) -> None:
    """A controller: submits a sweep of four members and returns."""
    Slurm(**{**SMALL, "partition": partition}).run(sweep(Path(store), FOUR), Path(store))


if __name__ == "__main__":
    main(*sys.argv[1:])
