"""What the experiment needs of a training framework, and nothing that trains.

Framework   a configuration: what it is, what it would run, what is wrong with it. Imports nothing heavy.
worker      a process of the framework's own Python, which reads job.json and leaves states in the store.
Checkpoint  one state: its step, and the way to a Hugging Face folder.
"""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pretrain_exp.data.order import DataOrder, ShuffledOrder
from pretrain_exp.data.token_files import TokenFiles
from pretrain_exp.errors import UserError
from pretrain_exp.store.claims import demand_claim
from pretrain_exp.store.states import fresh, stage


class Framework(ABC):
    """A training framework. `model` and `training` are the resolved sections of the configuration, as plain dicts."""

    name: ClassVar[str]
    semantics: ClassVar[int]
    """Version of what a step computes. Enters every state's key: raised when the same job would give other weights."""
    hooks: ClassVar[tuple[str, ...]] = ()
    """The kinds of training hooks that its worker puts into effect: see worker/hooks.py."""

    def key_facts(self) -> dict[str, Any]:
        """What of this framework decides the weights, beside `model` and `training`."""
        return {"framework": self.name, "semantics": self.semantics}

    @abstractmethod
    def numerics(self, training: dict[str, Any]) -> dict[str, Any]:
        """The numerics class, recorded beside a key: ranks, device, micro-batch, compilation, versions."""

    def official(self, path: Path) -> dict[str, Any]:
        """The fields of `model` that an official configuration file of this framework gives. UserError for others."""
        raise UserError(f"{self.name} reads no official configuration files", key="model.official", value=str(path))

    def complete_config(
        self, config: dict[str, Any], vocab_size: int, eos_token_id: int, sequence_length: int
    ) -> dict[str, Any]:
        """An architecture from scratch, with what follows from tokenizer and data where it says nothing else."""
        given = {"vocab_size": vocab_size, "eos_token_id": eos_token_id, "max_position_embeddings": sequence_length}
        return {**given, **config}

    def order(
        self, files: TokenFiles, model: dict[str, Any], training: dict[str, Any], seed: int, cache: Path
    ) -> DataOrder:
        """How this framework reads the files. seed: `seed.order`; cache: where what is costly may be kept."""
        return ShuffledOrder(files, training["sequence_length"], seed)

    @abstractmethod
    def initial(self, model: dict[str, Any]) -> dict[str, Any]:
        """The initial state, resolved: {kind: scratch|hf, identity, ...}. UserError where it cannot be found.

        scratch: `config`, complete; identity is its digest (the caller adds seed.init).
        hf: `checkpoint` (path or hub name), `revision` (commit or None); identity is a digest of the weights or commit;
        `seal` of a folder (framework/identity.py), by which the worker sees that it is still the same.
        """

    def check_start(self, model: dict[str, Any]) -> list[UserError]:
        """Whether the model section begins with what this framework reads, as far as that is on this machine."""
        return []

    @abstractmethod
    def check(self, model: dict[str, Any], training: dict[str, Any]) -> list[UserError]:
        """All that would stop a job, found before any starts."""

    def check_data(self, model: dict[str, Any], tokenizer_vocab_size: int, sequence_length: int) -> list[UserError]:
        """What would stop a job and is known once the data are prepared: whether the model takes them."""
        return []

    def check_hooks(self, kinds: Collection[str], training: dict[str, Any]) -> list[UserError]:
        """What of a plan's training hooks, by kind, its worker cannot put into effect."""
        unknown = sorted(set(kinds) - set(self.hooks))
        fix = "choose another framework or leave this insertion out"
        return [UserError(f"{self.name} has no {kind}", key="insertion", value=kind, fix=fix) for kind in unknown]

    def warnings(self, model: dict[str, Any], training: dict[str, Any]) -> list[str]:
        """What will run and should be known."""
        return []

    def named_files(self, folder: Path) -> list[str]:
        """The files of a published checkpoint that those in the folder name: the shards of an index."""
        return []

    @abstractmethod
    def command(self, job: Path) -> list[str]:
        """The command that trains the job of this job.json with all its ranks."""

    def rank_command(self, job: Path) -> list[str]:
        """What torchrun starts as each rank, `{device}` standing for cpu or cuda.

        Empty where there is no such command.
        """
        return []

    def elsewhere(self, ranks: int, device: Literal["cpu", "cuda"]) -> Framework:
        """This framework for jobs on other machines, whose executor gives `ranks` processes in all on `device`.

        Nothing is asked of this machine, which may have no GPU. UserError where the framework cannot have that.
        """
        raise UserError(f"{self.name} trains on this machine only", key="executor", fix="executor=inline")

    @abstractmethod
    def environment(self) -> dict[str, str]:
        """What the command needs in its environment, beside what it inherits."""

    @abstractmethod
    def to_hf(self, state: Path, out: Path) -> Path:
        """Writes the state as a Hugging Face folder; UserError and no folder where the state's probe disagrees."""


@dataclass(frozen=True)
class Checkpoint:
    """The model after `step` updates."""

    framework: Framework
    state: Path
    step: int

    @classmethod
    def of(cls, framework: Framework, state: Path) -> Checkpoint:
        """The state in a folder of the store, by its own record."""
        return cls(framework, state, json.loads((state / "state.json").read_text())["step"])

    @contextmanager
    def as_hf(self, live: Path | None = None) -> Iterator[Path]:
        """A Hugging Face folder with weights, config and tokenizer; gone afterwards.

        live: the folder of the job that asks. It lies there, and what an earlier start of the job, that was killed,
        left there goes first: ClaimLost where another process has the job by now. None: in the store's staging/.
        """
        if live is None:
            folder = stage(self.state.parent.parent, f"hf-{self.state.name}")
        else:
            demand_claim(os.environ)
            for left in live.glob("hf-*"):
                shutil.rmtree(left)
            folder = fresh(live, f"hf-{self.state.name}")
        try:
            yield self.framework.to_hf(self.state, folder / "hf")
        finally:
            shutil.rmtree(folder)
