"""How submitted jobs stand: their files first, Slurm only for who is alive. And ending them.

done | running | waiting | failed | skipped (needs one that failed) | cancelled | unknown (squeue does not answer)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pretrain_exp.executor.base import Job
from pretrain_exp.executor.slurm_files import read_attempts, read_submission
from pretrain_exp.executor.slurm_queue import Queued, ask_to_save, cancel, look
from pretrain_exp.executor.slurm_site import SlurmError

Standing = tuple[str, str]  # state, and a note for a person


def standings(jobs: Sequence[Job]) -> dict[str, Standing]:
    """How each of these jobs stands that was submitted to Slurm, by job id; one call of squeue.

    jobs: in the order of their needs.
    """
    numbers = {job.id: submission.id for job in jobs if (submission := read_submission(job.folder))}
    queue: dict[str, Queued] | None = None
    if any(not job.done() for job in jobs if job.id in numbers):
        try:
            queue = look(numbers.values())
        except SlurmError:
            queue = None
    return standings_in(jobs, queue)


def standings_in(jobs: Sequence[Job], queue: Mapping[str, Queued] | None) -> dict[str, Standing]:
    """`standings` by what squeue told; None where it does not answer."""
    told: dict[str, Standing] = {}
    titles = {job.id: job.title for job in jobs}
    for job in jobs:
        found = _standing(job, queue, told, titles)
        if found is not None:
            told[job.id] = found
    return told


def _standing(
    job: Job, queue: Mapping[str, Queued] | None, told: Mapping[str, Standing], titles: Mapping[str, str]
) -> Standing | None:
    """How a job stands; None where it was never submitted. told: how those stand that it needs, by id."""
    submission = read_submission(job.folder)
    if submission is None:
        return None
    if job.done():
        return "done", ""
    if queue is None:
        return "unknown", f"Slurm job {submission.id}, squeue does not answer here"
    queued = queue.get(submission.id)
    if queued is not None and queued.alive:
        if queued.running:
            return "running", f"Slurm job {submission.id} on {queued.nodes}"
        return "waiting", f"Slurm job {submission.id}: {queued.reason}"
    if (job.folder / "slurm" / "cancelled").exists():
        return "cancelled", f"Slurm job {submission.id}, by pretrain-exp cancel"
    given_up = read_attempts(job.folder).given_up
    if given_up:
        return "failed", given_up
    for need in sorted(set(submission.needs) & told.keys()):
        if told[need][0] in ("failed", "skipped", "cancelled"):
            return "skipped", f"needs {titles[need]}, which was {told[need][0]}"
    return "failed", lost(job, submission.id, queued)


def lost(job: Job, number: str, queued: Queued | None) -> str:
    """Of a job that ended without being able to say why: killed with its node, out of time, out of memory."""
    how = (
        f"Slurm job {number} ended"
        + (f" ({queued.state})" if queued else "")
        + " before it was done; submit again, it goes on"
    )
    log = job.folder / "log.txt"
    script = job.folder / "slurm" / f"{number}_0_log.out"
    shown = log if log.is_file() else script
    tail = shown.read_text(errors="replace").splitlines()[-8:] if shown.is_file() else []
    return "\n".join([f"{how}; the last lines of {shown}:"] + [f"  | {line}" for line in tail] if tail else [how])


def cancel_jobs(jobs: Sequence[Job]) -> list[str]:
    """Ends the living jobs: those that wait at once, those that run when they have saved; asked again, at once too.

    Returns what was done, a sentence a job.
    """
    submitted = [(job, found.id) for job in jobs if not job.done() and (found := read_submission(job.folder))]
    queue = look(number for _, number in submitted)
    at_once, said = [], []
    for job, number in submitted:
        queued = queue.get(number)
        if queued is None or not queued.alive:
            continue
        marker = job.folder / "slurm" / "cancelled"
        asked_before = marker.exists()
        marker.touch()
        if queued.running and not asked_before:
            ask_to_save(number)
            said.append(f"asked {job.title} to save and end (Slurm job {number}; once more ends it at once)")
        else:
            at_once.append(number)
            said.append(f"ended {job.title} (Slurm job {number})")
    if at_once:
        cancel(at_once)
    return said
