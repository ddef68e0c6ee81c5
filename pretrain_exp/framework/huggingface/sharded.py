"""What a checkpoint of this framework holds: weights and optimizer in one folder that any number of ranks reads.

    <folder>/checkpoint/   torch.distributed.checkpoint: model, optimizer by parameter; hf/: config, tokenizer

No random state is stored: what is drawn at step t is seeded by (init seed, t, rank), see loop.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

from pretrain_exp.framework.huggingface.model import LanguageModel, evaluating, load_initial, weights
from pretrain_exp.framework.huggingface.optimizer import optimizer_tensors
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.probe import Probe, log_probabilities, probe_tokens
from pretrain_exp.framework.worker.ranks import Ranks
from pretrain_exp.framework.worker.tokenizer_files import copy_tokenizer


@dataclass(frozen=True)
class ShardedModel:
    """A model and its optimizer, as `Checkpoints` writes and reads them."""

    job: Job
    ranks: Ranks
    model: LanguageModel
    optimizer: torch.optim.AdamW

    def load(self, folder: Path | None) -> None:
        """Fills weights and optimizer, in place."""
        if folder is None:
            load_initial(self.job, self.model, self.ranks)
        else:
            dcp.load(self._tensors(), checkpoint_id=folder / "checkpoint")

    def save(self, folder: Path) -> None:
        dcp.save(self._tensors(), checkpoint_id=folder / "checkpoint")
        if self.ranks.first:
            hf = folder / "checkpoint" / "hf"
            self.model.hf.config.save_pretrained(hf)
            copy_tokenizer(self.job.tokenizer, hf)

    def probe(self) -> Probe:
        vocab_size = self.model.hf.config.vocab_size
        length = self.job.phases.sequence_length(self.job.start_step)
        tokens = probe_tokens(vocab_size, length).to(self.ranks.device)
        with evaluating(self.model), torch.no_grad():
            values = log_probabilities(self.model(tokens), tokens)
        return Probe(vocab_size, length, self.job.training["precision"], values)

    def _tensors(self) -> dict[str, Any]:
        """The live tensors."""
        return {"model": weights(self.model.hf), "optimizer": optimizer_tensors(self.model.hf, self.optimizer)}
