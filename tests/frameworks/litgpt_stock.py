"""Run by litgpt's Python: `litgpt.pretrain.main` as it comes, over the rows of a job; JSON. Arguments: job.json, steps.

Nothing of ours but the rows and the sentinel: main seeds, initialises, sets up Fabric, and steps with its own learning
rate. It is left when it asks for another batch after `steps`. One rank, one micro-batch a step.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # main always compiles

import lightning as L
import torch
from litgpt import Config, pretrain
from litgpt.args import EvalArgs, TrainArgs
from litgpt.data import DataModule
from torch.utils.data import DataLoader

from pretrain_exp.data.order import order_from_json
from pretrain_exp.plan.overlay import Overlay


class Enough(Exception):
    pass


class Data(DataModule):
    def __init__(self, job: dict[str, Any], steps: int) -> None:
        super().__init__()
        self.job, self.steps = job, steps

    def connect(self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int | None = None) -> None:
        pass

    def rows(self) -> Any:
        order = order_from_json(self.job["order"])
        overlay = Overlay.open(self.job["overlay"]) if self.job["overlay"] else None
        batch = self.job["training"]["batch_size"]
        for step in range(self.steps):
            rows = [order.read(slot) for slot in range(step * batch, (step + 1) * batch)]
            if overlay is not None:
                slots = range(step * batch, (step + 1) * batch)
                rows = [overlay.apply(slot, row, order.read) for slot, row in zip(slots, rows, strict=True)]
            yield torch.tensor([[*row.tolist(), -100] for row in rows])
        raise Enough

    def train_dataloader(self) -> Any:
        return DataLoader(_Stream(self.rows), batch_size=None)

    def val_dataloader(self) -> Any:
        return DataLoader([next(iter(self.rows()))], batch_size=None)


class _Stream(torch.utils.data.IterableDataset):
    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __iter__(self) -> Any:
        return self.rows()


class Watched(L.Fabric):
    seen: list[dict[str, float]]
    model: Any

    def setup(self, module: Any, *rest: Any, **keywords: Any) -> Any:
        self.model = super().setup(module, *rest, **keywords)
        return self.model

    def log_dict(self, metrics: Any, step: int | None = None) -> None:
        self.seen.append({"loss": metrics["loss"], "lr": metrics["learning_rate"]})


def main(path: Path, steps: int) -> dict[str, Any]:
    job = json.loads(path.read_text())
    training, schedule = job["training"], job["training"]["schedule"]
    batch, length, optimizer = training["batch_size"], training["sequence_length"], training["optimizer"]
    fabric = Watched(accelerator="cpu", devices=1, precision="32-true")
    fabric.seen = []
    fabric.launch()
    with suppress(Enough):
        pretrain.main(
            fabric=fabric,
            devices=1,
            seed=job["seeds"]["init"],
            initial_checkpoint_dir=None,
            resume=False,
            config=Config(**job["model"]["config"]),
            data=Data(job, steps),
            out_dir=path.parent / "out",
            tokenizer_dir=None,
            tokenizer=None,
            train=TrainArgs(
                save_interval=None,
                log_interval=1,
                global_batch_size=batch,
                micro_batch_size=batch,
                max_tokens=schedule["total_steps"] * batch * length,
                lr_warmup_steps=schedule["warmup_steps"],
                max_norm=training["max_grad_norm"],
                min_lr=optimizer["lr"] * schedule["min_lr_ratio"],
                tie_embeddings=False,
            ),
            eval=EvalArgs(interval=10**9, max_iters=1, initial_validation=False, final_validation=False),
            optimizer={"class_path": "torch.optim.AdamW", "init_args": dict(optimizer)},
        )
    weights = {name.removeprefix("_orig_mod."): value for name, value in fabric.model.state_dict().items()}
    torch.save(weights, path.parent / "stock.pth")
    return {"steps": fabric.seen}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
