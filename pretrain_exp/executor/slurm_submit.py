"""One job through submitit to sbatch. Only the path of the job's folder crosses to the other side.

submitit writes the batch script and reads the number that sbatch answers. Its Slurm executor is used as a base, not the
automatic one, for two reasons: sbatch has to run without the variables of a job that this process may be running in
(submitit.helpers.clean_env would take with them the one that says where the cluster's configuration is), and no `wckey`
may be set, since sites that know no keys refuse one.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from pretrain_exp.executor.base import Job
from pretrain_exp.executor.slurm_job import run_job
from pretrain_exp.executor.slurm_options import Resources
from pretrain_exp.executor.slurm_site import SlurmError, hidden_variables


class _Executor(SlurmExecutor):
    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        hidden = [part for name in hidden_variables(os.environ) for part in ("-u", name)]
        return ["env", *hidden, *super()._make_submission_command(submission_file_path)]


def submit(job: Job, resources: Resources, needs: Sequence[str], setup: Sequence[str]) -> str:
    """Submits a job whose spec.json is written; returns its number. SlurmError with sbatch's words where it is refused.

    needs: numbers of the jobs before it. A report also comes after jobs that failed; all others are cancelled then.
    """
    options = resources.options() | {"kill-on-invalid-dep": "yes"}
    if needs:
        options["dependency"] = ":".join(["afterany" if job.kind == "report" else "afterok", *needs])
    executor = _Executor(job.folder / "slurm", python=f"exec {shlex.quote(sys.executable)}")
    executor.update_parameters(
        job_name=job.id,
        # what submitit itself must know; these are among the options too, which win
        time=resources.minutes,
        nodes=resources.nodes,
        ntasks_per_node=1,
        wckey=None,
        setup=list(setup),
        stderr_to_stdout=True,
        use_srun=False,  # the job starts its steps itself, one an attempt
        additional_parameters={name.replace("-", "_"): value for name, value in options.items()},
    )
    try:
        return str(executor.submit(run_job, str(job.folder)).job_id)
    except (FailedJobError, FailedSubmissionError) as error:
        lines = [line.strip() for line in str(error).splitlines() if "sbatch: " in line]
        said = "; ".join(dict.fromkeys(lines)) or str(error).strip()
        raise SlurmError(
            f"sbatch refused {job.title}: {said}", fix="nothing of this call was left in the queue"
        ) from None
