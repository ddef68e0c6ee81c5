"""What trains: litgpt's model and optimizer in Fabric, written and read as litgpt's own checkpoint folder.

    checkpoint/lit_model.pth       {model, optimizer, iter_num, step_count}, whole tensors, as litgpt.pretrain has it
               model_config.yaml   litgpt.Config
               tokenizer.json ...  of the data, where there is one

`litgpt.pretrain.save_checkpoint` would parse this process's command line with litgpt's own for hyperparameters.yaml, so
its parts are called: Fabric's save and litgpt's save_config. Files are written whole by the first rank whatever the
strategy, so any number of ranks goes on from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from litgpt import GPT
from litgpt.utils import save_config

from pretrain_exp.framework.litgpt.fabric import Observed
from pretrain_exp.framework.litgpt.initial import WEIGHTS, Initial
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.probe import Probe, log_probabilities, probe_tokens
from pretrain_exp.framework.worker.ranks import Ranks
from pretrain_exp.framework.worker.tokenizer_files import copy_tokenizer


@dataclass
class LitModel:
    """A model and its optimizer, as `Checkpoints` writes and reads them. bare: the model without Fabric's wrapping."""

    job: Job
    ranks: Ranks
    fabric: Observed
    bare: GPT
    model: Any
    optimizer: Any
    initial: Initial
    state: dict[str, Any] = field(init=False)  # as litgpt.pretrain.fit keeps it; iter_num counts micro-batches

    def __post_init__(self) -> None:
        counts = {"iter_num": 0, "step_count": 0}
        self.state = {"model": self.model, "optimizer": self.optimizer, **counts}

    def load(self, folder: Path | None) -> None:
        if folder is not None:
            self._load(folder / "checkpoint" / WEIGHTS)
            return
        with self.initial.file() as path:
            self._load(path)

    def save(self, folder: Path) -> None:
        checkpoint = folder / "checkpoint"
        if self.ranks.first:
            checkpoint.mkdir(parents=True, exist_ok=True)
        self.ranks.barrier()
        self.fabric.save(checkpoint / WEIGHTS, self.state)
        if self.ranks.first:
            save_config(self.bare.config, checkpoint)
            copy_tokenizer(self.job.tokenizer, checkpoint)

    def probe(self) -> Probe:
        vocab_size = self.bare.config.padded_vocab_size
        length = self.job.phases.sequence_length(self.job.start_step)
        tokens = probe_tokens(vocab_size, length).to(self.ranks.device)
        self.model.eval()
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            values = log_probabilities(self.model(tokens), tokens)
        self.model.train()
        precision = "fp32" if self.fabric.strategy.precision.precision == "32-true" else "bf16"
        return Probe(vocab_size, length, precision, values)

    def _load(self, path: Path) -> None:
        """Fills weights and, where there are any, moments. Rates, betas and decay are the job's, never the file's."""
        saved = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        if "model" not in saved:
            self.fabric.load_raw(path, self.model, weights_only=True)
            return
        moments = saved.get("optimizer") or {"state": {}}
        wanted = {"model": self.model, **({"optimizer": self.optimizer} if moments["state"] else {})}
        if self.fabric.sharded:
            self.fabric.load(path, wanted)
        else:
            self.bare.load_state_dict(saved["model"])
            if moments["state"]:
                self.optimizer.optimizer.load_state_dict(_by_number(moments, self.bare))
        for group in self.optimizer.optimizer.param_groups:
            group |= self.optimizer.optimizer.defaults


def _by_number(moments: dict[str, Any], model: torch.nn.Module) -> dict[str, Any]:
    """An optimizer's state as one process has it, also where FSDP wrote it under the parameters' names."""
    names = [name for name, _ in model.named_parameters()]
    state = {names.index(key) if isinstance(key, str) else key: value for key, value in moments["state"].items()}
    groups = [
        {**group, "params": [names.index(key) if isinstance(key, str) else key for key in group["params"]]}
        for group in moments["param_groups"]
    ]
    return {"state": state, "param_groups": groups}
