"""A framework whose worker is one torch process a rank, in this Python or in one of its own.

job.json --command--> launch.py --> worker of the framework x ranks      (one machine)
         --rank_command--> torchrun --> the same                         (several machines)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pretrain_exp.errors import UserError
from pretrain_exp.framework.base import Framework
from pretrain_exp.framework.identity import WEIGHTS, Content
from pretrain_exp.framework.memory import check_memory
from pretrain_exp.framework.origin import holds_nothing, refusal
from pretrain_exp.framework.worker import start
from pretrain_exp.paths import environment_python
from pretrain_exp.store.hub import resolve_revision
from pretrain_exp.store.keys import digest

START = str(Path(start.__file__))


@dataclass(frozen=True, kw_only=True)
class RankedFramework(Framework):
    """python: the interpreter that runs the worker (None: this one, or where `make` put the framework's own).

    devices: ranks; auto is one a GPU, else 1. threads: of each rank, on the CPU.
    """

    python: str | None = None
    devices: int | Literal["auto"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    _here: bool = field(default=True, init=False, repr=False)  # jobs run on this machine

    packages: ClassVar[tuple[str, ...]] = ("torch",)
    """Distributions whose versions belong to the numerics; the last one is the framework."""
    package: ClassVar[str] = "transformers"
    """Whose checkpoint format and names of an architecture's fields are the framework's own."""
    files: ClassVar[str] = ""
    """The files of that format, where it is another than that of transformers."""
    families: ClassVar[Collection[str] | None] = None
    """The model types of transformers that it starts from; None: all."""
    environment_folder: ClassVar[str | None] = None
    """Where `make` builds an environment for this framework: under the working directory, or in the checkout."""

    def __post_init__(self) -> None:
        if self.devices != "auto" and self.devices < 1:
            raise UserError("devices must be auto or at least 1", key="devices", value=self.devices)
        if self.threads < 1:
            raise UserError("threads must be at least 1", key="threads", value=self.threads)

    @property
    def interpreter(self) -> str:
        """The Python of the worker."""
        if self.python is not None:
            return self.python
        if self.environment_folder and not _versions_here(self.packages[-1:]):
            return environment_python(self.environment_folder) or sys.executable
        return sys.executable

    @property
    def is_this_python(self) -> bool:
        return Path(self.interpreter).absolute() == Path(sys.executable).absolute()

    @property
    def versions(self) -> dict[str, str]:
        """Of `packages`, as the worker will find them; one that is not there is left out."""
        return (
            _versions_here(self.packages) if self.is_this_python else _versions_there(self.interpreter, self.packages)
        )

    @property
    def device_type(self) -> str:
        return self.device if self.device != "auto" else "cuda" if num_gpus() else "cpu"

    @property
    def world(self) -> int:
        """Ranks of a job."""
        if self.devices != "auto":
            return self.devices
        return max(1, num_gpus()) if self.device_type == "cuda" else 1

    def initial(self, model: dict[str, Any]) -> dict[str, Any]:
        """From scratch, from a folder on this machine or from the hub."""
        if model.get("config"):
            return {"kind": "scratch", "config": model["config"], "identity": digest(model["config"], 32)}
        name = model.get("checkpoint")
        if not name:
            raise UserError(
                "neither a checkpoint to start from nor a config to start from scratch",
                key="model.checkpoint",
                value=name,
                fix="give a folder, a hub name, or the architecture in model.config",
            )
        if Path(name).is_dir():
            folder = Path(name).resolve()
            for error in self.check_start(model):  # one that was downloaded could not be looked at before
                raise error
            content = self.identity(folder, model)
            found = {"kind": "hf", "checkpoint": str(folder), "revision": None}
            if isinstance(content, str):
                return {**found, "identity": content}
            seal = content.seal()
            return {**found, "identity": seal["digest"], "seal": seal}
        try:
            commit = resolve_revision(name, model.get("revision"))
        except UserError as error:
            raise error.under("model.checkpoint") from None
        return {"kind": "hf", "checkpoint": name, "revision": commit, "identity": f"{name}@{commit}"}

    def identity(self, folder: Path, model: dict[str, Any]) -> Content | str:
        """What the checkpoint in a folder is known by, or the name of a published one.

        UserError where it holds none that this framework starts from.
        """
        files = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
        config = folder / "config.json"
        if not files or not config.is_file():
            raise self._no_checkpoint(folder)
        return Content((config, *files))

    def numerics(self, training: dict[str, Any]) -> dict[str, Any]:
        return {
            "world": self.world,
            "device": self.device_type,
            "threads": self.threads,
            "micro_batch_size": training.get("micro_batch_size") or training["batch_size"] // self.world,
            "compile": training["compile"],
            "activation_checkpointing": training["activation_checkpointing"],
            "versions": self.versions,
        }

    def named_files(self, folder: Path) -> list[str]:
        found = [folder / f"{name}.index.json" for name in ("model.safetensors", "pytorch_model.bin")]
        maps = [json.loads(path.read_text())["weight_map"] for path in found if path.is_file()]
        return sorted({name for weights in maps for name in weights.values()})

    def check_start(self, model: dict[str, Any]) -> list[UserError]:
        wrong = refusal(self.name, self.package, self.families, model)
        if wrong is None and holds_nothing(model):
            wrong = self._no_checkpoint(Path(model["checkpoint"]))
        return [] if wrong is None else [wrong]

    def _no_checkpoint(self, folder: Path) -> UserError:
        own = f", or {self.files} of {self.package}" if self.files else ""
        return UserError(
            f"the folder is no checkpoint that {self.name} starts from",
            key="model.checkpoint",
            value=str(folder),
            fix=f"it must hold config.json and *.safetensors{own}",
        )

    def check_gpu_memory(
        self, parameters: int | None, bytes_per_parameter: float, shared: bool = True
    ) -> list[UserError]:
        """Whether a model of so many parameters (None: unknown) can fit this machine's GPUs.

        bytes_per_parameter: of weight, gradient and optimizer, at least. shared: whether the ranks divide them among
        them; else each holds all.
        """
        if not self._here or self.device_type != "cuda":
            return []
        return check_memory(parameters, self.world if shared else 1, bytes_per_parameter)

    def check_machine(self) -> list[UserError]:
        """What this machine lacks: the GPUs that were asked for, the interpreter, the framework in it."""
        found = []
        if self._here and self.device == "cuda" and num_gpus() < self.world:
            problem = f"{self.world} GPUs are asked for, this machine shows {num_gpus()}"
            fix = "ask for fewer, or framework.device=cpu"
            found.append(UserError(problem, key="framework.devices", value=self.devices, fix=fix))
        fix = "give the python of an environment with the framework"
        if self.environment_folder:
            fix += f"; in a checkout, `make env-{self.name}` builds one that is found by itself"
        if not Path(self.interpreter).is_file():
            found.append(UserError("no such interpreter", key="framework.python", value=self.interpreter, fix=fix))
        elif missing := sorted(set(self.packages) - set(self.versions)):
            problem = f"{self.interpreter} has no {', '.join(missing)}"
            found.append(UserError(problem, key="framework.python", value=self.python, fix=fix))
        return found

    def command(self, job: Path) -> list[str]:
        tail = [str(job), "--device", self.device_type]
        if self.world == 1:
            return [self.interpreter, START, self._module("worker"), *tail]
        launch = [START, "pretrain_exp.framework.worker.launch", "--worker", self._module("worker")]
        return [self.interpreter, *launch, "--ranks", str(self.world), *tail]

    def rank_command(self, job: Path) -> list[str]:
        return [self.interpreter, START, self._module("worker"), str(job), "--device", "{device}"]

    def elsewhere(self, ranks: int, device: Literal["cpu", "cuda"]) -> Self:
        for key, own, given in (("devices", self.devices, ranks), ("device", self.device, device)):
            if own not in ("auto", given):
                problem = f"differs from what the executor gives, {given}"
                raise UserError(problem, key=f"framework.{key}", value=own, fix=f"framework.{key}=auto")
        there = replace(self, devices=ranks, device=device)
        object.__setattr__(there, "_here", False)
        return there

    def environment(self) -> dict[str, str]:
        return {
            "OMP_NUM_THREADS": str(self.threads),
            "TOKENIZERS_PARALLELISM": "false",
            "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        }

    def to_hf(self, state: Path, out: Path) -> Path:
        command = [self.interpreter, START, self._module("convert"), str(state), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            tail = "\n".join(done.stderr.strip().splitlines()[-5:])
            raise UserError(f"conversion failed: {tail}", value=str(state))
        return out

    def _module(self, name: str) -> str:
        """A module beside the one that defines this framework."""
        return f"{type(self).__module__.rpartition('.')[0]}.{name}"


def num_gpus() -> int:
    """GPUs that a job of this process would see, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = len([path for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit()])
    if visible is None:
        return there
    names = takewhile(lambda name: name not in ("", "-1"), (name.strip() for name in visible.split(",")))  # CUDA's rule
    return min(there, len(list(names)))


def _versions_here(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@lru_cache(maxsize=8)
def _versions_there(python: str, packages: tuple[str, ...]) -> dict[str, str]:
    script = (
        "import sys; from importlib import metadata as m\n"
        "names = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}\n"
        "[print(n, names[n]) for n in sys.argv[1:] if n in names]"
    )
    try:
        done = subprocess.run([python, "-c", script, *packages], capture_output=True, text=True, check=False)
    except OSError:
        return {}
    return dict(line.split() for line in done.stdout.splitlines())
