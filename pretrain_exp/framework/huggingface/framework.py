"""Framework `huggingface`: any causal language model of transformers from the hub, a folder or a config.

This module is the orchestrator's side and imports neither torch nor transformers; worker.py is the other side.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

from pretrain_exp.errors import UserError
from pretrain_exp.framework.base import Framework
from pretrain_exp.framework.huggingface.checks import check_data, check_model, check_training
from pretrain_exp.store.hub import resolve_revision
from pretrain_exp.store.keys import digest

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
MODULES = "pretrain_exp.framework.huggingface"


@dataclass(frozen=True, kw_only=True)
class HuggingFace(Framework):
    """python: the interpreter that runs the worker (None: this one). devices: ranks; auto is one a GPU, else 1.

    threads: of each rank, on the CPU. With several ranks, on a GPU or in bf16, parameters, gradients and moments are
    sharded over the ranks by FSDP2; the result is that of one rank, up to rounding, so there is nothing else to choose.
    """

    python: str | None = None
    devices: int | Literal["auto"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    _here: bool = field(default=True, init=False, repr=False)  # jobs run on this machine

    name: ClassVar[str] = "huggingface"
    semantics: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.devices != "auto" and self.devices < 1:
            raise UserError("devices must be auto or at least 1", key="devices", value=self.devices)
        if self.threads < 1:
            raise UserError("threads must be at least 1", key="threads", value=self.threads)

    @property
    def device_type(self) -> str:
        return self.device if self.device != "auto" else "cuda" if num_gpus() else "cpu"

    @property
    def world(self) -> int:
        """Ranks of a job."""
        if self.devices != "auto":
            return self.devices
        return max(1, num_gpus()) if self.device_type == "cuda" else 1

    def numerics(self, training: dict[str, Any]) -> dict[str, Any]:
        world = self.world
        return {
            "world": world,
            "device": self.device_type,
            "threads": self.threads,
            "micro_batch_size": training.get("micro_batch_size") or training["batch_size"] // world,
            "compile": training["compile"],
            "activation_checkpointing": training["activation_checkpointing"],
            "versions": {name: version(name) for name in ("torch", "transformers")} if self._is_this_python() else {},
        }

    def initial(self, model: dict[str, Any]) -> dict[str, Any]:
        if model.get("config"):
            return {"kind": "scratch", "config": model["config"], "identity": digest(model["config"], 32)}
        name, revision = model.get("checkpoint"), model.get("revision")
        if not name:
            raise UserError(
                "neither a checkpoint to start from nor a config to start from scratch",
                key="model.checkpoint",
                value=name,
                fix="give a folder, a hub name, or model.config with a model_type",
            )
        if Path(name).is_dir():
            folder = Path(name).resolve()
            return {"kind": "hf", "checkpoint": str(folder), "revision": None, "identity": _digest_folder(folder)}
        try:
            commit = resolve_revision(name, revision)
        except UserError as error:
            raise error.under("model.checkpoint") from None
        return {"kind": "hf", "checkpoint": name, "revision": commit, "identity": f"{name}@{commit}"}

    def check(self, model: dict[str, Any], training: dict[str, Any]) -> list[UserError]:
        found = check_training(training, self.world) + check_model(model, training["sequence_length"])
        if self._here and self.device == "cuda" and num_gpus() < self.world:
            found.append(
                UserError(
                    f"{self.world} GPUs are asked for, this machine shows {num_gpus()}",
                    key="framework.devices",
                    value=self.devices,
                    fix="ask for fewer, or framework.device=cpu",
                )
            )
        return found

    def check_data(self, model: dict[str, Any], tokenizer_vocab_size: int, sequence_length: int) -> list[UserError]:
        return check_data(model, tokenizer_vocab_size, sequence_length)

    def warnings(self, model: dict[str, Any], training: dict[str, Any]) -> list[str]:
        if training["precision"] == "bf16" and self.device_type == "cpu":
            return ["training.precision=bf16 on a CPU is slower than fp32; it is meant for tests"]
        return []

    def command(self, job: Path) -> list[str]:
        tail = [str(job), "--device", self.device_type]
        if self.world == 1:
            return [self.python or sys.executable, "-m", f"{MODULES}.worker", *tail]
        return [self.python or sys.executable, "-m", f"{MODULES}.launch", "--ranks", str(self.world), *tail]

    def rank_command(self, job: Path) -> list[str]:
        return [self.python or sys.executable, "-m", f"{MODULES}.worker", str(job), "--device", "{device}"]

    def elsewhere(self, ranks: int, device: Literal["cpu", "cuda"]) -> HuggingFace:
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
        if self._is_this_python():
            from pretrain_exp.framework.huggingface.convert import convert

            return convert(state, out)
        command = [str(self.python), "-m", f"{MODULES}.convert", str(state), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            tail = "\n".join(done.stderr.strip().splitlines()[-5:])
            raise UserError(f"conversion failed: {tail}", value=str(state))
        return out

    def _is_this_python(self) -> bool:
        return self.python is None or Path(self.python).absolute() == Path(sys.executable).absolute()


def num_gpus() -> int:
    """GPUs that a job of this process would see, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = len([path for path in Path("/dev").glob("nvidia[0-9]*") if path.name[6:].isdigit()])
    return there if visible is None else min(there, len([name for name in visible.split(",") if name.strip()]))


def _digest_folder(folder: Path) -> str:
    """SHA-256 over config and weight files, names and contents. UserError where there are none."""
    files = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
    config = folder / "config.json"
    if not files or not config.is_file():
        raise UserError(
            "the folder is no Hugging Face checkpoint",
            key="model.checkpoint",
            value=str(folder),
            fix="it must hold config.json and *.safetensors",
        )
    total = hashlib.sha256()
    for path in (config, *files):
        with open(path, "rb") as file:
            total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
