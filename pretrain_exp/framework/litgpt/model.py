"""The model of a job in Fabric, with memory for its weights and moments; `LitModel.load` fills them.

As `litgpt.pretrain.main` builds it: empty, tied, cut to the sequence length, compiled where asked, wrapped.
"""

from __future__ import annotations

import torch
from litgpt import GPT

from pretrain_exp.framework.litgpt.checkpoint import LitModel
from pretrain_exp.framework.litgpt.config import build_optimizer
from pretrain_exp.framework.litgpt.fabric import Observed
from pretrain_exp.framework.litgpt.initial import Initial
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.ranks import Ranks


def build(job: Job, ranks: Ranks, fabric: Observed, initial: Initial) -> LitModel:
    """The model and its optimizer on this rank."""
    # FSDP would give each of two names of an empty matrix memory of its own
    with fabric.init_module(empty_init=not (initial.tied and fabric.sharded)):
        bare = GPT(initial.config)
    if initial.tied:
        bare.transformer.wte.weight = bare.lm_head.weight
    bare.max_seq_length = job.phases.sequence_length(job.start_step)
    model = fabric.setup(torch.compile(bare) if job.training["compile"] else bare)
    optimizer = fabric.setup_optimizers(build_optimizer(job.training, model.parameters(), ranks.device))
    return LitModel(job, ranks, fabric, bare, model, optimizer, initial)
