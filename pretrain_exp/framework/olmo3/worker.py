"""The worker of framework `olmo3`: `start.py pretrain_exp.framework.olmo3.worker job.json --device cpu`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pretrain_exp.errors import UserError
from pretrain_exp.framework.worker.hooks import KINDS
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.main import Attempt, end_process, run_worker, tell_ranks

if TYPE_CHECKING:
    from pretrain_exp.framework.worker.checkpoints import Beginning
    from pretrain_exp.framework.worker.ranks import Ranks


def work(job: Job, attempt: Attempt, ranks: Ranks, beginning: Beginning) -> int:
    """Trains what the store lacks, in OLMo-core's trainer."""
    tell_ranks(attempt)
    from olmo_core.exceptions import OLMoConfigurationError
    from olmo_core.utils import setup_logging

    from pretrain_exp.framework.olmo3.callbacks import Segment, SkipHistory
    from pretrain_exp.framework.olmo3.checkpoint import TrainerState
    from pretrain_exp.framework.olmo3.config import model_config, train_module_config, trainer_config
    from pretrain_exp.framework.olmo3.data import build_loader
    from pretrain_exp.framework.worker.checkpoints import Checkpoints
    from pretrain_exp.framework.worker.journal import Journal

    setup_logging()
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
    return segment.status


def _fit(trainer: Any) -> None:
    """Trains; what went wrong in one of the trainer's threads is raised as what it is."""
    try:
        trainer.fit()
    except RuntimeError as error:
        if error.__cause__ is not None:
            raise error.__cause__ from None
        raise


if __name__ == "__main__":
    end_process(run_worker(work, hooks=KINDS))
