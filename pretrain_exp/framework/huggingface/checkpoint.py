"""Where a job begins, and what it leaves: weights and optimizer in one checkpoint that any number of ranks reads.

    <state>/checkpoint/      torch.distributed.checkpoint: model, optimizer by parameter; hf/: config, tokenizer
    <state>/probe.json  metrics.jsonl  reads/                     see probe.py, journal.py
    <live>/resume/step<N>/   the same between two states, and progress.json; complete once it has this name

No random state is stored: what is drawn at step t is seeded by (init seed, t, rank), see loop.py.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

from pretrain_exp.framework.huggingface.job import Job, Save
from pretrain_exp.framework.huggingface.journal import Journal
from pretrain_exp.framework.huggingface.model import LanguageModel, evaluating, load_initial, weights
from pretrain_exp.framework.huggingface.optimizer import optimizer_tensors
from pretrain_exp.framework.huggingface.probe import log_probabilities, probe_tokens, write_probe
from pretrain_exp.framework.huggingface.ranks import Ranks
from pretrain_exp.store.states import commit, is_complete, stage, state_dir, write_json

TOKENIZER_FILES = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)


@dataclass(frozen=True)
class Beginning:
    """Where a job goes on: after `step` updates, from `folder`/checkpoint; None: from the model's initial weights."""

    step: int
    folder: Path | None
    resumed: bool = False  # from a checkpoint between states, with a journal


def find_beginning(job: Job) -> Beginning | None:
    """The newest checkpoint that lies before everything still missing from the store; None where nothing is missing."""
    missing = [save.step for save in job.saves if not is_complete(job.store, save.key)]
    if not missing:
        return None
    found = [Beginning(job.start_step, job.start_state)]
    for save in job.saves:
        folder = state_dir(job.store, save.key)
        if save.step < missing[0] and is_checkpoint(folder / "checkpoint"):
            found.append(Beginning(save.step, folder))
    for folder in job.resume.glob("step*"):
        step = json.loads((folder / "progress.json").read_text())["step"]
        if step <= missing[0]:
            found.append(Beginning(step, folder, resumed=True))
    return max(found, key=lambda beginning: (beginning.step, not beginning.resumed))


def is_checkpoint(folder: Path) -> bool:
    """Whether a distributed checkpoint was finished here: its metadata are written last."""
    return (folder / ".metadata").is_file()


@dataclass(frozen=True)
class Checkpointer:
    """Writes and reads what a job leaves. All ranks call every method together."""

    job: Job
    ranks: Ranks
    model: LanguageModel
    optimizer: torch.optim.AdamW
    journal: Journal

    def load(self, beginning: Beginning | None) -> None:
        """Fills weights, optimizer and journal; None: as a run begins."""
        if beginning is None or beginning.folder is None:
            load_initial(self.job, self.model, self.ranks)
            return
        dcp.load(self._tensors(), checkpoint_id=beginning.folder / "checkpoint")
        if beginning.resumed:
            self.journal.load(beginning.folder)

    def save_state(self, save: Save) -> None:
        """Commits the state to the store and drops the checkpoints that led to it."""
        wanted = self.ranks.first and not is_complete(self.job.store, save.key)
        folder = self.ranks.share(str(stage(self.job.store, save.key)) if wanted else "")
        if folder:
            staging = Path(folder)
            self._fill(staging)
            self._probe(staging / "probe.json")
            self.ranks.barrier()
            if self.ranks.first:
                commit(self.job.store, staging, save.key, save.record)
        self.journal.clear()
        if self.ranks.first:
            shutil.rmtree(self.job.resume, ignore_errors=True)
        self.ranks.barrier()

    def save_resume(self, step: int) -> None:
        """Keeps what a restart needs to go on at `step`; the one before is dropped when this one is whole."""
        target, writing = self.job.resume / f"step{step}", self.job.resume / f"writing-{step}"
        if self.ranks.first:
            shutil.rmtree(writing, ignore_errors=True)
            writing.mkdir(parents=True)
        self.ranks.barrier()
        self._fill(writing)
        self.ranks.barrier()
        if self.ranks.first:
            write_json(writing / "progress.json", {"schema": 1, "step": step})
            if not target.exists():
                os.rename(writing, target)
            for folder in self.job.resume.iterdir():
                if folder != target:
                    shutil.rmtree(folder)
        self.ranks.barrier()

    def _tensors(self) -> dict[str, Any]:
        """The live tensors; loading fills them in place."""
        return {"model": weights(self.model.hf), "optimizer": optimizer_tensors(self.model.hf, self.optimizer)}

    def _fill(self, folder: Path) -> None:
        dcp.save(self._tensors(), checkpoint_id=folder / "checkpoint")
        self.journal.write(folder)
        if self.ranks.first:
            hf = folder / "checkpoint" / "hf"
            self.model.hf.config.save_pretrained(hf)
            if self.job.tokenizer is not None:
                for pattern in TOKENIZER_FILES:
                    for path in self.job.tokenizer.glob(pattern):
                        shutil.copy(path, hf)

    def _probe(self, path: Path) -> None:
        vocab_size = self.model.hf.config.vocab_size
        length = self.job.phases.sequence_length(self.job.start_step)
        tokens = probe_tokens(vocab_size, length).to(self.ranks.device)
        with evaluating(self.model), torch.no_grad():
            values = log_probabilities(self.model(tokens), tokens)
        if self.ranks.first:
            write_probe(path, vocab_size, length, self.job.training["precision"], values)
