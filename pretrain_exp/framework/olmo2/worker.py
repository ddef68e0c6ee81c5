"""The worker of framework `olmo2`: `start.py pretrain_exp.framework.olmo2.worker job.json --device cpu`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pretrain_exp.framework.worker.hooks import KINDS
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.main import Attempt, end_process, run_worker, tell_ranks

if TYPE_CHECKING:
    from pretrain_exp.framework.worker.checkpoints import Beginning
    from pretrain_exp.framework.worker.ranks import Ranks


def work(job: Job, attempt: Attempt, ranks: Ranks, beginning: Beginning) -> int:
    """Trains what the store lacks."""
    tell_ranks(attempt)
    from olmo.optim import build_scheduler
    from olmo.util import prepare_cli_environment

    from pretrain_exp.framework.olmo2.build import build_model, build_optimizer_of
    from pretrain_exp.framework.olmo2.checkpoint import TrainedModel
    from pretrain_exp.framework.olmo2.config import train_config
    from pretrain_exp.framework.olmo2.data import build_loader, prepare_order
    from pretrain_exp.framework.olmo2.trainer import SegmentTrainer
    from pretrain_exp.framework.worker.checkpoints import Checkpoints
    from pretrain_exp.framework.worker.journal import Journal

    prepare_cli_environment()
    logging.getLogger().setLevel(logging.INFO if ranks.first else logging.WARNING)
    config = train_config(job, ranks.world, ranks.device.type)
    prepare_order(job, ranks, beginning.step)
    model, dist_model = build_model(config, ranks, attempt.nodes)
    trainer = SegmentTrainer(
        cfg=config,
        model=model,
        dist_model=dist_model,
        optim=build_optimizer_of(config, model, dist_model),
        scheduler=build_scheduler(config),
        train_loader=build_loader(config, job),
        device=ranks.device,
        evaluators=[],
    )
    checkpoints = Checkpoints(job, ranks, TrainedModel(job, ranks, trainer), Journal(job.live, ranks))
    checkpoints.load(beginning)
    return trainer.train(checkpoints, attempt, beginning.step)


if __name__ == "__main__":
    end_process(run_worker(work, hooks=KINDS))
