"""Where a job begins, and what it leaves: states in the store, and checkpoints to resume from between two states.

<state>/checkpoint/      the framework's own: whatever it needs to go on
<state>/probe.json  metrics.jsonl  reads/  job.json           see probe.py, journal.py
<state>/code-*.patch     what the code that trained it had changed since its commit
<live>/resume/state-*/   a state that is being written
<live>/resume/step<N>/   the same between two states, and progress.json; complete once it has this name
    progress.json        {schema, step, from: {step, state}}, from: the state where its journal begins
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from pretrain_exp.errors import UserError
from pretrain_exp.framework.identity import refuse_changed
from pretrain_exp.framework.worker.job import Job, Save
from pretrain_exp.framework.worker.journal import Journal, Origin
from pretrain_exp.framework.worker.probe import Probe
from pretrain_exp.framework.worker.ranks import Ranks
from pretrain_exp.provenance import code_commit, with_code, write_patch
from pretrain_exp.store.claims import ClaimLost, demand_claim
from pretrain_exp.store.states import can_start, commit, fresh, state_dir, write_json

PROGRESS = "progress.json"  # the last file to be written and the first to go: without it, a kill came in between


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
        if save.step < missing[0] and can_start(job.store, save.key):
            states.append(Beginning.at(save.step, folder))
    newest = max(states, key=lambda beginning: beginning.step)
    for path in job.resume.glob(f"step*/{PROGRESS}"):
        progress = json.loads(path.read_text())
        # one that began elsewhere (the folder served another job) tells of steps that another state tells of too
        if progress.get("from") == asdict(newest.origin) and newest.step < progress["step"] <= missing[0]:
            newest = Beginning(progress["step"], path.parent, newest.origin, resumed=True)
    return newest


class Trained(Protocol):
    """What a framework trains, as it is written and read. All ranks call every method together."""

    def load(self, folder: Path | None) -> None:
        """Goes on from <folder>/checkpoint; None: from the initial weights of the job."""
        ...

    def save(self, folder: Path) -> None:
        """Writes <folder>/checkpoint."""
        ...

    def probe(self) -> Probe:
        """What the model as it stands says of the probe's tokens."""
        ...


@dataclass(frozen=True)
class Checkpoints:
    """Writes and reads what a job leaves. All ranks call every method together."""

    job: Job
    ranks: Ranks
    trained: Trained
    journal: Journal

    def load(self, beginning: Beginning) -> None:
        """Fills what is trained and the journal, and drops checkpoints between states that lead nowhere.

        UserError where the weights to begin with are not those that the states are named by, or change meanwhile.
        """
        if self.ranks.first:
            code_commit()  # remembered from now on, whatever a checkout is by the end
        seal = self._same_start(self.job.seal if beginning.folder is None else None)
        self.trained.load(beginning.folder)
        self._same_start(seal)
        self.journal.begin(beginning.origin, beginning.folder if beginning.resumed else None)
        if self.ranks.first and self.job.resume.is_dir():
            demand_claim(os.environ)
            for folder in self.job.resume.iterdir():
                if folder != beginning.folder:
                    _drop(folder)
        self.ranks.barrier()

    def _same_start(self, seal: dict[str, Any] | None) -> dict[str, Any] | None:
        """The seal as it is now, None for none; the first rank looks, for all. UserError where it does not hold."""
        if seal is None:
            return None
        wrong = ""
        if self.ranks.first:
            try:
                seal = refuse_changed(seal)
            except UserError as error:
                wrong = json.dumps([error.problem, error.value, error.fix])
        if told := self.ranks.share(wrong):
            problem, value, fix = json.loads(told)
            raise UserError(problem, key="model.checkpoint", value=value, fix=fix)
        return seal

    def save_state(self, save: Save) -> None:
        """Commits the state to the store and drops the checkpoints that led to it."""
        wanted = self.ranks.first and not can_start(self.job.store, save.key)
        folder = self.ranks.share(str(fresh(self.job.resume, f"state-{save.key}")) if wanted else "")
        if folder:
            staging = Path(folder)
            self._fill(staging)
            probe = self.trained.probe()
            if self.ranks.first:
                probe.write(staging / "probe.json")
            self.ranks.barrier()
            if self.ranks.first:
                self._commit(staging, save)
        self.journal.begin(Origin(save.step, save.key))
        if self.ranks.first:
            demand_claim(os.environ)  # where the state was there, another process may have this folder by now
            for path in self.job.resume.glob(f"step*/{PROGRESS}"):
                path.unlink()
            shutil.rmtree(self.job.resume, ignore_errors=True)
        self.ranks.barrier()

    def _commit(self, staging: Path, save: Save) -> None:
        try:
            demand_claim(os.environ)
        except ClaimLost:
            shutil.rmtree(staging, ignore_errors=True)  # whoever has the job now removes it too
            raise
        shutil.copyfile(self.job.path, staging / "job.json")  # the configuration that ran stays beside its result
        write_patch(staging)
        commit(self.job.store, staging, save.key, with_code(save.record, code_commit()))

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
            write_json(writing / PROGRESS, {"schema": 2, "step": step, "from": asdict(self.journal.origin)})
            if not target.exists():
                os.rename(writing, target)
            for folder in self.job.resume.iterdir():
                if folder != target:
                    _drop(folder)
        self.ranks.barrier()

    def _fill(self, folder: Path) -> None:
        self.trained.save(folder)
        self.journal.write(folder)


def _drop(folder: Path) -> None:
    """Removes a checkpoint between states so that, ended half-way, it is none."""
    (folder / PROGRESS).unlink(missing_ok=True)
    shutil.rmtree(folder)
