"""The worker of framework `olmo3`: `start.py pretrain_exp.framework.olmo3.worker job.json --device cpu`."""

from __future__ import annotations

import os
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.framework.worker.hooks import KINDS
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.main import PLANNED, Attempt, end_process, run_worker


def work(job: Job, attempt: Attempt) -> int:
    """Trains what the store lacks, in OLMo-core's trainer."""
    _tell_ranks(attempt)
    from olmo_core.exceptions import OLMoConfigurationError
    from olmo_core.utils import setup_logging

    from pretrain_exp.framework.olmo3.callbacks import Segment, SkipHistory
    from pretrain_exp.framework.olmo3.checkpoint import TrainerState
    from pretrain_exp.framework.olmo3.config import model_config, train_module_config, trainer_config
    from pretrain_exp.framework.olmo3.data import build_loader
    from pretrain_exp.framework.worker.checkpoints import Checkpoints, find_beginning
    from pretrain_exp.framework.worker.journal import Journal
    from pretrain_exp.framework.worker.ranks import Ranks

    ranks = Ranks.join(attempt)
    setup_logging()
    beginning = find_beginning(job, ranks)
    if beginning is None:
        ranks.leave()
        return PLANNED
    device_type = ranks.device.type
    try:
        config = model_config(job, device_type)
        module = train_module_config(job, ranks).build(config.build(init_device="meta"), ranks.device)
        loader = build_loader(job, config.vocab_size, module.dp_process_group, device_type)
        trainer = trainer_config(job, job.live / "olmo_core").build(module, loader)
    except OLMoConfigurationError as error:
        raise UserError(f"OLMo-core refuses the configuration: {error}", key="training.args") from error
    history = SkipHistory()
    trainer.add_callback("skip_history", history)
    trained = TrainerState(job, ranks, trainer, config, history)
    checkpoints = Checkpoints(job, ranks, trained, Journal(job.live, ranks))
    trained.stand_at(beginning.step)
    checkpoints.load(beginning)
    segment = Segment(checkpoints, attempt)
    trainer.add_callback("segment", segment)
    segment.status = segment.boundary.reach(beginning.step)
    if segment.status is None:
        _fit(trainer)
    assert segment.status is not None
    ranks.leave()
    return segment.status


def _fit(trainer: Any) -> None:
    """Trains; what went wrong in one of the trainer's threads is raised as what it is."""
    try:
        trainer.fit()
    except RuntimeError as error:
        if error.__cause__ is not None:
            raise error.__cause__ from None
        raise


def _tell_ranks(attempt: Attempt) -> None:
    """Who this process is, where OLMo-core looks for it: nowhere but in the environment."""
    told = {"RANK": attempt.rank, "WORLD_SIZE": attempt.world, "LOCAL_RANK": attempt.local_rank}
    for name, value in {**told, "LOCAL_WORLD_SIZE": attempt.world, "OLMO_SHARED_FS": 1}.items():
        os.environ.setdefault(name, str(value))


if __name__ == "__main__":
    end_process(run_worker(work, hooks=KINDS))
