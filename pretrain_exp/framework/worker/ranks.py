"""The processes of a job: who this one is, on what device, and the few things that all of them agree on.

One rank on a CPU needs no process group. A group reduces CPU tensors over gloo and CUDA tensors over nccl.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from pretrain_exp.framework.worker.main import Attempt

TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Ranks:
    rank: int
    world: int
    device: torch.device

    @classmethod
    def join(cls, attempt: Attempt) -> Ranks:
        """Makes the process group of this attempt's ranks, on its device."""
        device = torch.device("cuda", attempt.local_rank) if attempt.device == "cuda" else torch.device("cpu")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        if attempt.rendezvous is not None:
            where, rank, world = attempt.rendezvous, attempt.rank, attempt.world
            dist.init_process_group(backend, init_method=where, rank=rank, world_size=world, timeout=TIMEOUT)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=TIMEOUT)
        return cls(attempt.rank, attempt.world, device)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum_counts(self, values: list[int]) -> list[int]:
        """Each value summed over the ranks. On the CPU, so that no device waits."""
        if self.world == 1:
            return values
        counts = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(counts)
        return counts.tolist()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The tensor summed over the ranks, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def share(self, text: str) -> str:
        """What the first rank says, told to all. At most 4,095 bytes."""
        if self.world == 1:
            return text
        line = torch.zeros(4096, dtype=torch.uint8)
        if self.first:
            raw = text.encode()
            line[: len(raw)] = torch.tensor(list(raw), dtype=torch.uint8)
        dist.broadcast(line, src=0)
        return bytes(line.tolist()).rstrip(b"\0").decode()

    def barrier(self) -> None:
        self.sum_counts([0])

    def leave(self) -> None:
        dist.destroy_process_group()
