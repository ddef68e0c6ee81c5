"""The worker of framework `olmo2`: `start.py pretrain_exp.framework.olmo2.worker job.json --device cpu`."""

from __future__ import annotations

import logging
import os

from pretrain_exp.framework.worker.hooks import KINDS
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.main import PLANNED, Attempt, end_process, run_worker


def work(job: Job, attempt: Attempt) -> int:
    """Trains what the store lacks."""
    tell_ranks(attempt)
    from olmo.optim import build_scheduler
    from olmo.util import prepare_cli_environment

    from pretrain_exp.framework.olmo2.build import build_model, build_optimizer_of
    from pretrain_exp.framework.olmo2.checkpoint import TrainedModel
    from pretrain_exp.framework.olmo2.config import train_config
    from pretrain_exp.framework.olmo2.data import build_loader, prepare_order
    from pretrain_exp.framework.olmo2.trainer import SegmentTrainer
    from pretrain_exp.framework.worker.checkpoints import Checkpoints, find_beginning
    from pretrain_exp.framework.worker.journal import Journal
    from pretrain_exp.framework.worker.ranks import Ranks

    ranks = Ranks.join(attempt)
    prepare_cli_environment()
    logging.getLogger().setLevel(logging.INFO if ranks.first else logging.WARNING)
    beginning = find_beginning(job, ranks)
    if beginning is None:
        ranks.leave()
        return PLANNED
    config = train_config(job, ranks.world, ranks.device.type)
    prepare_order(job, ranks, beginning.step)
    model, dist_model = build_model(config, ranks)
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
    status = trainer.train(checkpoints, attempt, beginning.step)
    ranks.leave()
    return status


def tell_ranks(attempt: Attempt) -> None:
    """ai2-olmo asks the environment which rank this is: torchrun has set that, our launcher passes arguments."""
    os.environ.setdefault("RANK", str(attempt.rank))
    os.environ.setdefault("LOCAL_RANK", str(attempt.local_rank))
    os.environ.setdefault("WORLD_SIZE", str(attempt.world))
    os.environ.setdefault("LOCAL_WORLD_SIZE", str(attempt.world))
    os.environ["FS_LOCAL_RANK"] = os.environ["RANK"]  # the store is shared by all


if __name__ == "__main__":
    end_process(run_worker(work, hooks=KINDS))
