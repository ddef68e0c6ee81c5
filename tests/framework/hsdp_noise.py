"""Run by test_worker_parts.py: four gloo ranks on a 2 x 2 mesh (copies x shards), whose gradients get noise.

Prints {difference, ranks, sigma}: the largest to the gradient of one whole model, each rank's place in the mesh, and
the scale of the noise by the sums of all ranks.
"""

from __future__ import annotations

import json
import math
import tempfile
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from pretrain_exp.framework.worker.hooks import add_gradient_noise, local_gradients

WORLD = 4
HOOKS = [{"kind": "gradient_noise", "steps": [2], "sigma": 0.5, "seed": 3}]


def model() -> nn.Module:
    """With sizes that two shards do not divide, and one parameter of which a shard gets nothing."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 31), nn.Linear(31, 1))


def whole() -> dict[str, torch.Tensor]:
    """The noisy gradient of every parameter on one rank."""
    one = model()
    one(torch.ones(4, 7)).sum().backward()
    add_gradient_noise(HOOKS, 2, local_gradients(one))
    return {name: parameter.grad for name, parameter in one.named_parameters() if parameter.grad is not None}


def rank(number: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=WORLD)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "shards"))
    sharded, expected = model(), whole()
    fully_shard(sharded, mesh=mesh)
    sharded(torch.ones(4, 7)).sum().backward()
    told = torch.tensor(add_gradient_noise(HOOKS, 2, local_gradients(sharded)), dtype=torch.float64)
    dist.all_reduce(told)
    difference = 0.0
    for name, part, start in local_gradients(sharded):
        its = expected[name].flatten()[start : start + part.numel()]
        difference = max([difference, *(part.flatten() - its).abs().tolist()])
    said = {"difference": difference, "rank": mesh.get_coordinate(), "sigma": math.sqrt(told[0] / told[1])}
    (Path(folder) / f"{number}.json").write_text(json.dumps(said))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        fork = get_context("fork")  # torch is loaded once, and used by the children alone
        children = [fork.Process(target=rank, args=(number, folder)) for number in range(WORLD)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert not any(child.exitcode for child in children)
        said = [json.loads((Path(folder) / f"{number}.json").read_text()) for number in range(WORLD)]
    difference = max(one["difference"] for one in said)
    print(json.dumps({"difference": difference, "ranks": [one["rank"] for one in said], "sigma": said[0]["sigma"]}))


if __name__ == "__main__":
    main()
