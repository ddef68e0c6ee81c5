"""Small jobs for the worker and what they leave: a stream of range(512), 4 rows of 16 a step, two layers of 32."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemReader

from pretrain_exp.framework.huggingface.framework import HuggingFace
from pretrain_exp.framework.worker.hooks import KINDS
from pretrain_exp.framework.worker.main import run_worker
from pretrain_exp.store.states import state_dir

VOCAB, EOS, S, G = (
    512,
    511,
    16,
    4,
)  # token v stands at position v of the stream, and of the run while nothing is shuffled
OLMO2 = {
    "model_type": "olmo2",
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "eos_token_id": EOS,
}
TRAINING: dict[str, Any] = {
    "num_steps": 6,
    "sequence_length": S,
    "batch_size": G,
    "micro_batch_size": None,
    "precision": "fp32",
    "optimizer": {"lr": 1e-2, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1},
    "schedule": {"name": "cosine", "warmup_steps": 2, "total_steps": 6, "decay_steps": 0, "min_lr_ratio": 0.1},
    "max_grad_norm": 1.0,
    "z_loss": 0.0,
    "document_masking": False,
    "compile": False,
    "activation_checkpointing": False,
    "loader_workers": 0,
    "log_every": 1,
    "resume_every_minutes": 15.0,
}


@dataclass
class Segment:
    """A job in a folder of its own, over a store that it may share. Keys are `key-<step>`."""

    root: Path
    job: dict[str, Any]

    @property
    def path(self) -> Path:
        return self.root / "job.json"

    def write(self) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.job))
        return self.path

    def start(self, ranks: int = 1, device: Literal["cpu", "cuda"] = "cpu") -> subprocess.Popen[str]:
        framework = HuggingFace(devices=ranks, device=device)
        environment = {**os.environ, **framework.environment()}
        return subprocess.Popen(
            framework.command(self.write()),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, ranks: int = 1, status: int = 0, device: Literal["cpu", "cuda"] = "cpu") -> str:
        """Runs to the end and demands the exit status; what was printed."""
        process = self.start(ranks, device)
        printed, _ = process.communicate(timeout=600)
        assert process.returncode == status, printed
        return printed

    def here(self, status: int = 0) -> None:
        """The same in this process, one rank, so that torch is loaded once for all tests."""
        from pretrain_exp.framework.huggingface.worker import work

        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
        try:
            assert run_worker(work, [str(self.write())], KINDS) == status
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()

    def state(self, step: int) -> Path:
        key = next(save["key"] for save in self.job["save"] if save["step"] == step)
        return state_dir(self.job["store"], key)


def tensors(state: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a state's checkpoint, weights and optimizer, by its full name."""
    folder = state / "checkpoint"
    found = {
        name: torch.empty(meta.size, dtype=meta.properties.dtype)
        for name, meta in FileSystemReader(folder).read_metadata().state_dict_metadata.items()
    }
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        dcp.load(found, checkpoint_id=folder, no_dist=True)
    return found


def metrics(state: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (state / "metrics.jsonl").read_text().splitlines()]


def losses(*states: Path) -> list[float]:
    return [row["train/loss"] for state in states for row in metrics(state)]


def reads(*states: Path) -> dict[tuple[int, int], tuple[int, bytes]]:
    """(step, row) -> (slot, digest) of all ranks; a row that was read twice is an error."""
    rows = [row for state in states for path in sorted((state / "reads").iterdir()) for row in np.load(path).tolist()]
    found = {(step, row): (slot, digest) for step, row, slot, digest in rows}
    assert len(found) == len(rows)
    return found
