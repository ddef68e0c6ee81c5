"""Where a job begins, and what it leaves: weights and optimizer in one checkpoint that any number of ranks reads.

    <state>/checkpoint/      torch.distributed.checkpoint: model, optimizer by parameter; hf/: config, tokenizer
    <state>/probe.json  metrics.jsonl  reads/                     see probe.py, journal.py
    <live>/resume/step<N>/   the same between two states, and progress.json; complete once it has this name
        progress.json        {schema, step, from: {step, state}}, from: the state where its journal begins

No random state is stored: what is drawn at step t is seeded by (init seed, t, rank), see loop.py.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

from pretrain_exp.framework.huggingface.job import Job, Save
from pretrain_exp.framework.huggingface.journal import Journal, Origin
from pretrain_exp.framework.huggingface.model import LanguageModel, evaluating, load_initial, weights
from pretrain_exp.framework.huggingface.optimizer import optimizer_tensors
from pretrain_exp.framework.huggingface.probe import log_probabilities, probe_tokens, write_probe
from pretrain_exp.framework.huggingface.ranks import Ranks
from pretrain_exp.store.claims import ClaimLost, demand_claim
from pretrain_exp.store.states import can_start, commit, stage, state_dir, write_json

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
    origin: Origin  # where the steps begin that the next state tells of
    resumed: bool = False  # from a checkpoint between states, with a journal

    @classmethod
    def at(cls, step: int, state: Path | None) -> Beginning:
        """At a state, with nothing told yet."""
        return cls(step, state, Origin(step, state.name if state else None))


def find_beginning(job: Job, ranks: Ranks) -> Beginning | None:
    """The newest checkpoint that lies before everything still missing from the store; None where nothing is missing.

    The first rank looks, for all: to others a shared file system may still show what was a moment ago.
    """
    found = _newest(job) if ranks.first else None
    facts = [found.step, str(found.folder or ""), found.resumed, asdict(found.origin)] if found else None
    told = "" if facts is None else json.dumps(facts)
    told = ranks.share(told)
    if not told:
        return None
    step, folder, resumed, origin = json.loads(told)
    return Beginning(step, Path(folder) if folder else None, Origin(**origin), resumed)


def _newest(job: Job) -> Beginning | None:
    missing = [save.step for save in job.saves if not can_start(job.store, save.key)]
    if not missing:
        return None
    states = [Beginning.at(job.start_step, job.start_state)]
    for save in job.saves:
        folder = state_dir(job.store, save.key)
        if save.step < missing[0] and is_checkpoint(folder / "checkpoint"):
            states.append(Beginning.at(save.step, folder))
    newest = max(states, key=lambda beginning: beginning.step)
    for folder in job.resume.glob("step*"):
        progress = json.loads((folder / "progress.json").read_text())
        # one that began elsewhere (the folder served another job) tells of steps that another state tells of too
        if progress.get("from") == asdict(newest.origin) and newest.step < progress["step"] <= missing[0]:
            newest = Beginning(progress["step"], folder, newest.origin, resumed=True)
    return newest


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

    def load(self, beginning: Beginning) -> None:
        """Fills weights, optimizer and journal, and drops checkpoints between states that lead nowhere."""
        if beginning.folder is None:
            load_initial(self.job, self.model, self.ranks)
        else:
            dcp.load(self._tensors(), checkpoint_id=beginning.folder / "checkpoint")
        self.journal.begin(beginning.origin, beginning.folder if beginning.resumed else None)
        if self.ranks.first and self.job.resume.is_dir():
            demand_claim(os.environ)
            for folder in self.job.resume.iterdir():
                if folder != beginning.folder:
                    shutil.rmtree(folder)
        self.ranks.barrier()

    def save_state(self, save: Save) -> None:
        """Commits the state to the store and drops the checkpoints that led to it."""
        wanted = self.ranks.first and not can_start(self.job.store, save.key)
        folder = self.ranks.share(str(stage(self.job.store, save.key)) if wanted else "")
        if folder:
            staging = Path(folder)
            self._fill(staging)
            self._probe(staging / "probe.json")
            self.ranks.barrier()
            if self.ranks.first:
                self._commit(staging, save)
        self.journal.begin(Origin(save.step, save.key))
        if self.ranks.first:
            shutil.rmtree(self.job.resume, ignore_errors=True)
        self.ranks.barrier()

    def _commit(self, staging: Path, save: Save) -> None:
        try:
            demand_claim(os.environ)
        except ClaimLost:
            shutil.rmtree(staging)
            raise
        shutil.copyfile(self.job.path, staging / "job.json")  # the configuration that ran stays beside its result
        commit(self.job.store, staging, save.key, save.record)

    def save_resume(self, step: int) -> None:
        """Keeps what a restart needs to go on at `step`; the one before is dropped when this one is whole."""
        target, writing = self.job.resume / f"step{step}", self.job.resume / f"writing-{step}"
        if self.ranks.first:
            demand_claim(os.environ)
            shutil.rmtree(writing, ignore_errors=True)
            writing.mkdir(parents=True)
        self.ranks.barrier()
        self._fill(writing)
        self.ranks.barrier()
        if self.ranks.first:
            demand_claim(os.environ)
            write_json(writing / "progress.json", {"schema": 2, "step": step, "from": asdict(self.journal.origin)})
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
