"""The model of a worker: its loss against that of transformers, documents kept apart, noise, unusual heads."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from segments import OLMO2, VOCAB

from pretrain_exp.errors import UserError
from pretrain_exp.framework.huggingface.loader import derive
from pretrain_exp.framework.huggingface.model import LanguageModel, model_config, skeleton, weights

SMALL = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
GPT2 = {"model_type": "gpt2", "vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
MODELS = {
    "olmo2": {"model_type": "olmo2", "intermediate_size": 32, **SMALL},
    "llama_tied": {"model_type": "llama", "intermediate_size": 32, "tie_word_embeddings": True, **SMALL},
    "gpt_neox": {"model_type": "gpt_neox", "intermediate_size": 32, **SMALL},
    "gpt2": GPT2,
    "qwen3": {"model_type": "qwen3", "intermediate_size": 32, "head_dim": 8, "num_key_value_heads": 1, **SMALL},
    "gemma2": {"model_type": "gemma2", "intermediate_size": 32, "head_dim": 8, "num_key_value_heads": 2, **SMALL},
    "granite": {"model_type": "granite", "intermediate_size": 32, "logits_scaling": 8.0, **SMALL},
    "bloom": {"model_type": "bloom", "vocab_size": 64, "hidden_size": 16, "n_layer": 2, "n_head": 2},
}
PLAIN = {
    "olmo2": True,
    "llama_tied": True,
    "gpt_neox": True,
    "gpt2": True,
    "qwen3": True,
    "gemma2": False,
    "granite": False,
}
EOS = 63


def build(name: str) -> LanguageModel:
    """With weights large enough that attention matters."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = model_config({"config": {**MODELS[name], "eos_token_id": EOS}})
    model = LanguageModel(AutoModelForCausalLM.from_config(config, dtype=torch.float32)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(5.0)
    return model


def rows() -> torch.Tensor:
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, EOS, (2, 24)))
    tokens[0, 9] = tokens[1, 3] = tokens[1, 4] = tokens[1, 23] = EOS
    return tokens


@pytest.mark.parametrize("name", PLAIN)
def test_loss_and_gradients_equal_transformers(name: str) -> None:
    model, tokens = build(name), rows()
    labels, _ = derive(tokens.numpy(), EOS, False)
    model.find_head(tokens)
    assert model.plain_head is PLAIN[name]
    predicted = int((labels >= 0).sum())
    loss, sums = model.eval()(tokens, torch.from_numpy(labels), scale=1.0 / predicted)
    loss.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    expected = model.hf(input_ids=tokens, labels=tokens).loss
    expected.backward()
    assert sums[0].item() / predicted == pytest.approx(expected.item(), abs=1e-5)
    for n, p in model.named_parameters():
        torch.testing.assert_close(found[n], p.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", PLAIN)
def test_masked_documents_lose_what_they_lose_alone(name: str) -> None:
    model, tokens = build(name), rows()
    labels, positions = derive(tokens.numpy(), EOS, True)
    assert positions is not None
    _, sums = model(tokens, torch.from_numpy(labels), torch.from_numpy(positions))
    alone = 0.0
    for row in tokens:
        ends = [-1, *torch.nonzero(row == EOS)[:, 0].tolist(), len(row) - 1]
        for start, end in pairwise(ends):
            document = row[None, start + 1 : end + 1]
            if document.shape[1] > 1:
                alone += model.hf(input_ids=document, labels=document).loss.item() * (document.shape[1] - 1)
    assert sums[0].item() == pytest.approx(alone, rel=1e-5)
    across = model(tokens, torch.from_numpy(labels))[1][0].item()
    assert across != pytest.approx(alone, rel=1e-4), "the documents must matter to each other, or nothing was tested"


@pytest.mark.parametrize("name", PLAIN)
def test_documents_are_checked(name: str) -> None:
    build(name).check_documents(rows())


def test_a_model_that_mixes_documents_is_refused() -> None:
    with pytest.raises(UserError, match="does not keep the documents of a row apart"):
        build("bloom").check_documents(rows())


def test_noise_is_added_to_the_embeddings() -> None:
    model, tokens = build("olmo2"), rows()
    noise = torch.zeros(2, 24, 16)
    assert torch.equal(model(tokens, noise=noise), model(tokens))
    noise[1, 10:12] = 3.0
    noisy = model(tokens, noise=noise)
    assert torch.equal(noisy[0], model(tokens)[0])
    assert torch.equal(noisy[1, :10], model(tokens)[1, :10])
    assert (noisy[1, 10:] - model(tokens)[1, 10:]).abs().amax(-1).min() > 0, "at every place, if not every number"
    shifted = model.hf.get_input_embeddings()(tokens) + noise
    torch.testing.assert_close(noisy, model.hf(inputs_embeds=shifted).logits)


@pytest.mark.parametrize("name", ["olmo2", "llama_tied", "gpt2"])
def test_a_skeleton_has_all_but_the_weights(name: str) -> None:
    """Buffers are those of a real model, weights lie on meta, tied ones are one."""
    config = model_config({"config": {**MODELS[name], "eos_token_id": EOS}})
    bare, real = skeleton(config, None), build(name).hf
    assert {p.device.type for p in bare.parameters()} == {"meta"}
    assert list(weights(bare)) == list(weights(real))
    for (n, found), (m, expected) in zip(bare.named_buffers(), real.named_buffers(), strict=True):
        assert n == m
        assert torch.equal(found, expected)


def test_every_token_learns() -> None:
    """No padding token: with one, transformers would freeze its embedding at zero."""
    hf = skeleton(model_config({"config": OLMO2}), None)
    assert hf.config.pad_token_id is None
    assert hf.get_input_embeddings().padding_idx is None
    assert hf.config.vocab_size == VOCAB


def test_an_unknown_field_is_refused() -> None:
    fields: dict[str, Any] = {**OLMO2, "hiden_size": 64}
    with pytest.raises(UserError, match="no field hiden_size"):
        model_config({"config": fields})
