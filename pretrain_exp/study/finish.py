"""The end of a study: proof, checkpoints pushed, report, mirrors. From files alone, so any process can do it.

`python -m pretrain_exp.study.finish STUDY MARK` is the last job of a study whose jobs run elsewhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pretrain_exp.errors import UserError
from pretrain_exp.executor.base import Job, job_failure
from pretrain_exp.executor.slurm_status import standings
from pretrain_exp.study.mirror import mirror_study
from pretrain_exp.study.push import push_study
from pretrain_exp.study.registry import read_members, read_study, write_study
from pretrain_exp.study.results import prove, report_study


def finish(folder: Path, failures: Sequence[str]) -> int:
    """Proves, pushes, reports and mirrors. Returns 0, or 1 if anything failed on the way or the proof did."""
    console = Console(stderr=True)
    study, failed = read_study(folder), list(failures)
    if any(member["config"].get("verify_reads", True) for member in read_members(study)):
        console.print("holding what was read against raw files and ledger", highlight=False)
        failed += [proof_sentence(proof) for proof in prove(folder) if not proof["ok"]]
    seconds = time.time() - study["started"]
    study |= {"failures": failed, "status": "failed" if failed else "done", "ended": time.time(), "controller": None}
    study["cost"] = {"seconds": round(seconds, 1), **study["cost"]}
    write_study(folder, study)
    report_study(folder)
    mirror_study(folder)
    try:
        push_study(folder)
    except UserError as error:  # the report stands; a push can be done again by running the command again
        failed.append(f"checkpoints were not pushed: {error.render()}")
        write_study(folder, {**study, "failures": failed, "status": "failed"})
        console.print(failed[-1], style="bold red", highlight=False, markup=False)
    return 1 if failed else 0


def proof_sentence(proof: dict[str, Any]) -> str:
    found = [
        f"{proof[f'num_{name}']} rows {what}"
        for name, what in (("mismatches", "differ"), ("missing", "missing"), ("duplicate", "read twice"))
        if proof.get(f"num_{name}")
    ] + list(proof.get("ledger_errors", []))
    if proof.get("reason"):
        found.append(proof["reason"])
    run = " ".join(part for part in (proof["arm"], proof["member"], f"seed {proof['seed']}") if part)
    return f"what {run} read is not what was planned: {', '.join(found)}"


def main(folder: Path, mark: Path) -> int:
    """Finishes a study whose jobs ran elsewhere; a job without what it should have made has failed.

    mark: a file that says that this was done, whatever came out.
    """
    jobs = [Job.from_record(job) for job in read_study(folder)["jobs"] if job["kind"] != "report"]
    told = standings(jobs)
    failures = [
        f"{job.title}: {(told[job.id][1] if job.id in told else job_failure(job.folder)).splitlines()[0]}"
        for job in jobs
        if not job.done()
    ]
    status = finish(folder, failures)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
