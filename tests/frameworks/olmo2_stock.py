"""ai2-olmo alone: its loader, its Trainer, its checkpoints, from a config.yaml that a worker left. No line of ours.

    python olmo2_stock.py CHECKPOINT OUT STEP LAST     goes on from a native checkpoint, saves OUT/step<STEP>-unsharded

The last line that it prints is JSON: {"losses": [...], "lr": [...], "first": [the first batch's token ids]}.
Beside upstream's training script it does two things: it runs on a CPU, which has no CUDA random state to save, and it
lets torch unpickle upstream's train.pt.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"

import torch
import torch.distributed as dist
from olmo.config import TrainConfig
from olmo.data import build_train_dataloader
from olmo.model import OLMo
from olmo.optim import build_optimizer, build_scheduler
from olmo.train import Trainer
from torch.nn.parallel import DistributedDataParallel as DDP


class Told(Trainer):
    """Upstream's Trainer, which keeps what it computed."""

    def train_step(self, batch, reduce_global_loss=True):
        if not hasattr(self, "told"):
            self.told = {"losses": [], "lr": [], "first": batch["input_ids"].tolist()}
        metrics = super().train_step(batch, reduce_global_loss=True)
        self.told["losses"].append(metrics["train/CrossEntropyLoss"])
        self.told["lr"].append(self.optim.param_groups[0]["lr"])
        return metrics

    def restore_rng_state(self, rng_state):
        pass


def main(checkpoint: str, out: str, step: int, last: int) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    torch.cuda.get_rng_state = lambda *_: torch.empty(0, dtype=torch.uint8)
    config = TrainConfig.load(Path(checkpoint, "config.yaml"))
    config.save_folder, config.stop_at = out, last
    config.save_interval_unsharded, config.save_num_unsharded_checkpoints_to_keep = step, -1
    loader = build_train_dataloader(config)
    model = OLMo(config.model)
    wrapped = DDP(model)
    with Told(
        cfg=config,
        model=model,
        dist_model=wrapped,
        optim=build_optimizer(config, wrapped),
        scheduler=build_scheduler(config),
        train_loader=loader,
        device=torch.device("cpu"),
        evaluators=[],
    ) as trainer:
        trainer.restore_unsharded_checkpoint(checkpoint)
        trainer.fit()
    print(json.dumps(trainer.told), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
