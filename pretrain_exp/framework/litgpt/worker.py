"""The worker of framework `litgpt`: `start.py pretrain_exp.framework.litgpt.worker job.json --device cpu`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretrain_exp.framework.worker.hooks import KINDS
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.main import Attempt, end_process, run_worker

if TYPE_CHECKING:
    from pretrain_exp.framework.worker.checkpoints import Beginning
    from pretrain_exp.framework.worker.ranks import Ranks


def work(job: Job, attempt: Attempt, ranks: Ranks, beginning: Beginning) -> int:
    """Trains what the store lacks."""
    from pretrain_exp.framework.litgpt.fabric import make_fabric
    from pretrain_exp.framework.litgpt.initial import find_initial
    from pretrain_exp.framework.litgpt.model import build
    from pretrain_exp.framework.litgpt.training import Training
    from pretrain_exp.framework.worker.checkpoints import Checkpoints
    from pretrain_exp.framework.worker.journal import Journal

    initial = find_initial(job, ranks, beginning.folder)
    trained = build(job, ranks, make_fabric(job.training, ranks, attempt), initial)
    checkpoints = Checkpoints(job, ranks, trained, Journal(job.live, ranks))
    checkpoints.load(beginning)
    return Training(checkpoints, trained, beginning.step, attempt).run()


if __name__ == "__main__":
    end_process(run_worker(work, hooks=KINDS))
