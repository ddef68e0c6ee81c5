"""The worker of framework `huggingface`: `start.py pretrain_exp.framework.huggingface.worker job.json --device cpu`."""

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
    from pretrain_exp.framework.huggingface.loop import Training
    from pretrain_exp.framework.huggingface.model import build_model
    from pretrain_exp.framework.huggingface.optimizer import build_optimizer
    from pretrain_exp.framework.huggingface.sharded import ShardedModel
    from pretrain_exp.framework.worker.checkpoints import Checkpoints
    from pretrain_exp.framework.worker.journal import Journal
    from pretrain_exp.framework.worker.probe import probe_tokens

    model = build_model(job, ranks)
    trained = ShardedModel(job, ranks, model, build_optimizer(model.hf, job.training["optimizer"]))
    checkpoints = Checkpoints(job, ranks, trained, Journal(job.live, ranks))
    checkpoints.load(beginning)
    tokens = probe_tokens(model.hf.config.vocab_size, job.phases.sequence_length(beginning.step)).to(ranks.device)
    model.find_head(tokens)
    if job.training["document_masking"]:
        model.check_documents(tokens)
    return Training(checkpoints, trained, beginning.step, attempt).run()


if __name__ == "__main__":
    end_process(run_worker(work, hooks=KINDS))
