"""The language-model head and its loss in one, a few rows of logits at a time.

    hidden (N, D) --rows--> logits (rows, V) --> nll, log-sum-exp, and at once the gradients to hidden and weight

The logits of a whole batch are never held: with a vocabulary of 100 k they are what fills a GPU. The gradient of

    loss = scale * sum_i (lse_i - logit_i[label_i]) + scale * z * sum_i lse_i^2         over rows with a label

to the logits is scale * (softmax * (1 + 2 z lse) - onehot(label)), known as soon as the logits are. The second
term is the z-loss (Chowdhery et al. 2022, PaLM, section 5).
"""

from __future__ import annotations

from typing import Any

import torch

IGNORED = -100
ELEMENTS = {
    "cpu": 1 << 21,
    "cuda": 1 << 28,
}  # logits held at once, float32: 8 MB near a cache, 1 GB fills a GPU


class LinearCrossEntropy(torch.autograd.Function):
    """(hidden, weight, bias | None, labels, z, scale) -> (loss, [sum nll, sum lse^2]); the sums carry no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,  # (N, D)
        weight: torch.Tensor,  # (V, D)
        bias: torch.Tensor | None,  # (V,)
        labels: torch.Tensor,  # (N,) int64, IGNORED where nothing is predicted
        z: float,
        scale: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = max(1, ELEMENTS[hidden.device.type] // weight.shape[0])
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        sums = torch.zeros(2, dtype=torch.float64, device=hidden.device)
        for start in range(0, len(hidden), rows):
            x, y = hidden[start : start + rows], labels[start : start + rows, None]
            logits = torch.mm(x, weight.t()).float()
            if bias is not None:
                logits += bias
            counted = (y != IGNORED).float()  # (rows, 1)
            y = y.clamp(min=0)
            gold = logits.gather(1, y)
            highest = logits.amax(1, keepdim=True)
            total = logits.sub_(highest).exp_().sum(1, keepdim=True)
            lse = highest + total.log()
            sums[0] += ((lse - gold) * counted).sum(dtype=torch.float64)
            sums[1] += (lse.square() * counted).sum(dtype=torch.float64)
            logits.mul_(counted * (1.0 + 2.0 * z * lse) * scale / total)
            logits.scatter_add_(1, y, -scale * counted)
            grad = logits.to(weight.dtype)
            torch.mm(grad, weight, out=grad_hidden[start : start + rows])
            if weight.dtype == torch.float32:
                grad_weight.addmm_(grad.t(), x)
            else:
                grad_weight += torch.mm(grad.t(), x)
            if grad_bias is not None:
                grad_bias += logits.sum(0)
        grads = [grad_hidden, grad_weight.to(weight.dtype)]
        ctx.save_for_backward(*grads, *([] if grad_bias is None else [grad_bias.to(weight.dtype)]))
        ctx.mark_non_differentiable(sums)
        return (scale * (sums[0] + z * sums[1])).float(), sums

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _sums: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients were made in forward for grad = 1, which is what a loss gets."""
        grad_hidden, grad_weight, *grad_bias = ctx.saved_tensors
        return grad_hidden * grad, grad_weight * grad, grad_bias[0] * grad if grad_bias else None, None, None, None


def cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, z: float, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same from logits (N, V) that a model has made its own way (soft-capped, scaled)."""
    counted = (labels != IGNORED).float()
    logits = logits.float()
    lse = logits.logsumexp(1)
    gold = logits.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    terms = torch.stack([(lse - gold) * counted, lse.square() * counted])
    sums = terms.sum(1, dtype=torch.float64)
    return (scale * (sums[0] + z * sums[1])).float(), sums.detach()
