"""What stands for training on several nodes: each rank adds its number to a sum over all of them, step by step.

`python ranks.py job.json DEVICE` under torchrun. Saves on a signal, agreed by all ranks, and resumes. job.json: steps,
seconds (a step; none once an attempt before has done some), save_seconds, folder, out.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from pretrain_exp.store.states import write_json


def main(path: str, device: str) -> int:
    job = json.loads(Path(path).read_text())
    folder, out = Path(job["folder"]), Path(job["out"])
    rank, signalled = int(os.environ["RANK"]), []
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda number, frame: signalled.append(number))
    dist.init_process_group("gloo")
    saved = folder / "saved.json"
    state = json.loads(saved.read_text()) if saved.is_file() else {"steps": 0, "sum": 0.0, "starts": []}
    live = folder / "metrics.jsonl"
    seconds = 0 if live.is_file() else job["seconds"]  # long enough to be stopped, and over soon after
    state["starts"].append(state["steps"])
    seen = {
        name: os.environ.get(name) for name in ("SLURM_NODEID", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES", "MASTER_ADDR")
    }
    (folder / f"rank{rank}.json").write_text(json.dumps({**seen, "device": device, "pid": os.getpid()}))
    status = 0
    while state["steps"] < job["steps"]:
        agreed = torch.tensor([len(signalled)])
        dist.all_reduce(agreed)
        if int(agreed):
            time.sleep(job["save_seconds"])
            if rank == 0:
                write_json(saved, state)
            dist.barrier()
            status = 75
            break
        time.sleep(seconds)
        value = torch.tensor([float(rank + 1)])
        dist.all_reduce(value)
        state["sum"] += float(value)
        state["steps"] += 1
        if rank == 0:
            with open(live, "a") as file:
                file.write(json.dumps({"step": state["steps"] - 1}) + "\n")
    if status == 0 and rank == 0:
        write_json(out, state)
    dist.barrier()
    dist.destroy_process_group()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
