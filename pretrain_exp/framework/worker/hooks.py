"""Training hooks: changes of the update at chosen steps, planned and logged like edits. Here: noise on gradients.

    backward -> mean gradient over the batch -> clip -> + sigma * noise(seed, step, parameter) -> optimizer

The noise comes after the clipping: its scale is what was planned, whatever the gradient's norm is, and the noise, whose
own norm grows with the root of the number of parameters, does not shrink the gradient by being clipped with it. The
logged gradient norm is the one before both. (Neelakantan et al. 2015, "Adding gradient noise improves learning for very
deep networks"; DP-SGD of Abadi et al. 2016 adds it in the same place.)

In: the hooks of a job and the gradients of a rank, whole or shards. Element i of a parameter (flat, row-major) gets the
same noise however it is sharded, and on every number of ranks and micro-batches. A framework's own parameter names key
it. `gradient_noise` needs NumPy alone.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from pretrain_exp.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

KINDS = ("gradient_noise",)
_CHUNK = 1 << 20  # elements at once
_WORDS = 4  # that one count of Philox4x64 gives


def check_hooks(hooks: Sequence[dict[str, Any]], known: Iterable[str]) -> None:
    """UserError where a job asks for a kind of hook that its worker does not know."""
    unknown = sorted({hook["kind"] for hook in hooks} - set(known))
    if unknown:
        fix = f"known here: {', '.join(sorted(known)) or 'none'}"
        raise UserError("the worker knows no such training hook", key="hooks", value=unknown[0], fix=fix)


def acting(hooks: Sequence[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """The hooks that act at this step, in an order of their own."""
    found = []
    for hook in hooks:
        i = bisect_left(hook["steps"], step)
        if hook["steps"][i : i + 1] == [step]:
            found.append(hook)
    return sorted(found, key=lambda hook: (hook["kind"], hook["seed"], hook["sigma"]))


def gradient_noise(seed: int, step: int, name: str, start: int, stop: int) -> np.ndarray:
    """Standard normal noise for elements [start, stop) of a parameter's gradient, float32 (stop - start,).

    Generator: Philox4x64-10 (Salmon et al. 2011) whose key is blake2b-128 of seed and step (little-endian int64) and
    name; count c gives elements 4c to 4c + 3, its words in pairs through Box and Muller (1958). So any part of a
    parameter can be made by itself.
    """
    digest = blake2b(np.array([seed, step], dtype="<i8").tobytes() + name.encode("utf-8"), digest_size=16).digest()
    key = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
    first, last = start // _WORDS, -(-stop // _WORDS)
    raw = np.asarray(np.random.Philox(key=key, counter=first).random_raw(_WORDS * (last - first)))
    words = raw.reshape(-1, 2) >> np.uint64(11)
    radius = np.sqrt(-2.0 * np.log((words[:, 0] + 1.0) * 2.0**-53))
    angle = words[:, 1] * (2.0 * np.pi * 2.0**-53)
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
    return normal[start - _WORDS * first : stop - _WORDS * first].astype(np.float32)


def local_gradients(model: nn.Module) -> Iterator[tuple[str, torch.Tensor, int]]:
    """(name, this rank's part of the gradient, index of its first element in the whole), also under FSDP2.

    UserError where a parameter is sharded along another dimension than its first.
    """
    from torch.distributed.tensor import DTensor, Shard

    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if gradient is None:
            continue
        if not isinstance(gradient, DTensor):
            yield name, gradient, 0
            continue
        start, cuts = 0, [(i, cut) for i, cut in enumerate(gradient.placements) if not cut.is_replicate()]
        for dimension, cut in cuts:
            if not isinstance(cut, Shard) or cut.dim or len(cuts) > 1:
                raise UserError(f"gradient noise needs {name} sharded by rows alone", key="hooks")
            rows = -(-gradient.shape[0] // gradient.device_mesh.size(dimension))  # as torch.chunk cuts
            row = min(rows * gradient.device_mesh.get_local_rank(dimension), gradient.shape[0])
            start = row * math.prod(gradient.shape[1:])
        yield name, gradient.to_local(), start


def add_gradient_noise(
    hooks: Sequence[dict[str, Any]], step: int, gradients: Iterable[tuple[str, torch.Tensor, int]]
) -> tuple[float, int]:
    """Adds the noise of this step to gradients, in place; returns the sum of its squares and the elements it met.

    gradients: as `local_gradients` gives them. The sums are this rank's.
    """
    import torch

    total, count = 0.0, 0
    now = acting(hooks, step)
    for name, gradient, start in gradients if now else ():
        flat = gradient.view(-1)
        for low in range(0, flat.numel(), _CHUNK):
            high = min(low + _CHUNK, flat.numel())
            noise = np.zeros(high - low, dtype=np.float32)
            for hook in now:
                noise += np.float32(hook["sigma"]) * gradient_noise(hook["seed"], step, name, start + low, start + high)
            total += float(np.square(noise, dtype=np.float64).sum())
            flat[low:high] += torch.from_numpy(noise).to(flat.device, flat.dtype)
        count += flat.numel()
    return total, count
