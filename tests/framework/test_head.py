"""The fused head against torch's cross-entropy and automatic gradients."""

from __future__ import annotations

import pytest
import torch

from pretrain_exp.framework.huggingface import head
from pretrain_exp.framework.huggingface.head import IGNORED, LinearCrossEntropy, cross_entropy


@pytest.mark.parametrize("z", [0.0, 1e-2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 100])
def test_loss_and_gradients_equal_torch(z: float, bias: bool, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    n, width, vocab, scale = 24, 8, 50, 0.25
    monkeypatch.setitem(head.ELEMENTS, "cpu", rows * vocab)  # rows of logits held at once
    inputs = [
        torch.randn(shape, generator=generator, requires_grad=True) for shape in ((n, width), (vocab, width), (vocab,))
    ]
    labels = torch.randint(0, vocab, (n,), generator=generator)
    labels[::5] = IGNORED
    hidden, weight, shift = inputs
    loss, sums = LinearCrossEntropy.apply(hidden, weight, shift if bias else None, labels, z, scale)
    (3 * loss).backward()
    found = [tensor.grad for tensor in inputs]

    for tensor in inputs:
        tensor.grad = None
    logits = hidden @ weight.t() + (shift if bias else 0.0)
    kept = labels != IGNORED
    nll = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    square = logits[kept].logsumexp(1).square().sum()
    expected = scale * (nll + z * square)
    (3 * expected).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(sums, torch.stack([nll, square]).double(), check_dtype=True, rtol=1e-6, atol=1e-5)
    for got, tensor in zip(found, inputs, strict=True):
        if tensor.grad is None:
            assert got is None
        else:
            torch.testing.assert_close(got, tensor.grad, rtol=1e-4, atol=1e-6)


def test_from_logits_is_the_same_loss() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(9, 4, generator=generator), torch.randn(20, 4, generator=generator)
    labels = torch.tensor([3, IGNORED, 19, 0, 0, 7, IGNORED, 1, 2])
    fused = LinearCrossEntropy.apply(hidden, weight, None, labels, 0.1, 0.5)
    plain = cross_entropy(hidden @ weight.t(), labels, 0.1, 0.5)
    torch.testing.assert_close(fused[0], plain[0])
    torch.testing.assert_close(fused[1], plain[1])


def test_nothing_to_predict_costs_nothing() -> None:
    hidden = torch.randn(3, 4, requires_grad=True)
    loss, sums = LinearCrossEntropy.apply(hidden, torch.randn(5, 4), None, torch.full((3,), IGNORED), 0.1, 1.0)
    loss.backward()
    assert loss.item() == 0.0
    assert sums.tolist() == [0.0, 0.0]
    assert torch.count_nonzero(hidden.grad) == 0
