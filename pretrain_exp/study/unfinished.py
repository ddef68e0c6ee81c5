"""What the report of a study that has not come to its end says of that: a study.json in, a sentence out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pretrain_exp.executor.base import Job
from pretrain_exp.store.process import process_lives

NAMED = 6  # of the jobs that are missing


def unfinished(study: Mapping[str, Any]) -> list[str]:
    """How it stands and which of its jobs are missing; nothing of one that ended, or that was gathered from others."""
    status = study.get("status", "done")
    if status in ("done", "failed") or study.get("gathered"):
        return []
    jobs = [Job.from_record(job) for job in study["jobs"] if job["kind"] != "report"]
    titles = [job.title for job in jobs if not job.done()]
    more = f" and {len(titles) - NAMED} more" if len(titles) > NAMED else ""
    missing = f"{len(titles)} of its {len(jobs)} jobs are missing: {', '.join(titles[:NAMED])}{more}"
    gone = status == "running" and study.get("controller") and process_lives(study["controller"]) is False
    how = {"interrupted": "was interrupted", "refused": "was refused"}.get(status, "has not ended")
    said = "has not ended, and its process is gone" if gone else how
    return [f"the study {said}; {missing if titles else 'no job is missing, but it was not held against its plan'}"]
