"""Generation against the definition: one sequence at a time, no cache, no padding."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from pretrain_exp.errors import UserError
from pretrain_exp.eval.generation import Sampling, generate

NEW = 12


@pytest.fixture(scope="module")
def prompts(tokenizer) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(1, len(tokenizer), size).tolist() for size in (1, 7, 30, 3, 55, 7, 12)]


def alone(model, prompt: list[int], new: int) -> list[int]:
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(new):
            tokens.append(int(model.model(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_greedy_is_the_definition_whatever_the_batch_size(model, prompts, batch_size):
    expected = [alone(model, prompt, NEW) for prompt in prompts]
    assert len({tuple(tokens) for tokens in expected}) == len(prompts)  # the models do not repeat themselves
    assert generate(model, prompts, NEW, batch_size=batch_size) == expected


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_stops_before_the_first_stop_token(model, prompts, batch_size):
    whole = [alone(model, prompt, NEW) for prompt in prompts]
    stop = [whole[0][4], whole[3][0]]
    expected = [row[: next((i for i, t in enumerate(row) if t in stop), None)] for row in whole]
    assert [] in expected
    assert generate(model, prompts, NEW, stop=stop, batch_size=batch_size) == expected


@pytest.mark.parametrize("sample", [Sampling(num=3), Sampling(temperature=0.7, top_k=5, seed=1, num=2)])
def test_samples_depend_neither_on_the_batch_nor_on_the_order(model, prompts, sample):
    one = generate(model, prompts, NEW, batch_size=1, sample=sample)
    assert len(one) == len(prompts) * sample.num
    assert one == generate(model, prompts, NEW, batch_size=5, sample=sample)
    turned = generate(model, prompts[::-1], NEW, batch_size=5, sample=sample)
    for i in range(len(prompts)):
        j = len(prompts) - 1 - i
        assert one[i * sample.num : (i + 1) * sample.num] == turned[j * sample.num : (j + 1) * sample.num]
    assert one[0] != one[1]


def test_samples_of_a_prompt_given_twice_differ_and_the_seed_matters(model, prompts):
    two = generate(model, [prompts[2], prompts[2]], NEW, sample=Sampling())
    assert two[0] != two[1]
    assert two == generate(model, [prompts[2]], NEW, sample=Sampling(num=2))
    assert two != generate(model, [prompts[2]] * 2, NEW, sample=Sampling(seed=1))


@pytest.mark.parametrize("top_k", [None, 4])
def test_tokens_are_drawn_from_the_models_distribution(models, prompts, top_k):
    model, n, temperature = models["rotary"], 3000, 1.5
    with torch.no_grad():
        logits = model.model(torch.tensor([prompts[1]])).logits[0, -1].double() / temperature
    if top_k:
        logits[logits < logits.topk(top_k).values[-1]] = -torch.inf
    p = logits.softmax(-1).numpy()
    drawn = generate(model, [prompts[1]], 1, batch_size=n, sample=Sampling(temperature=temperature, top_k=top_k, num=n))
    counts = np.bincount([tokens[0] for tokens in drawn], minlength=len(p))
    common = p * n >= 5
    assert not counts[p == 0].any()
    observed, expected = counts[common], p[common] * n
    rest = [counts[~common].sum(), p[~common].sum() * n]
    pairs = np.array([*zip(observed, expected, strict=True), *([rest] if rest[1] > 1 else [])])
    assert len(pairs) > 3
    assert chisquare(pairs[:, 0], pairs[:, 1] * pairs[:, 0].sum() / pairs[:, 1].sum()).pvalue > 1e-3


def test_the_models_own_generation_settings_are_left_out_and_left_alone(models, prompts):
    model = models["rotary"]
    plain = generate(model, prompts, NEW)
    before = model.model.generation_config
    first = plain[1][0]
    try:
        before.suppress_tokens, before.eos_token_id, before.repetition_penalty = [first], plain[2][2], 5.0
        assert generate(model, prompts, NEW) == plain
        assert model.model.generation_config is before
    finally:
        before.suppress_tokens, before.eos_token_id, before.repetition_penalty = None, 0, None


def test_progress_counts_sequences(models, prompts):
    calls = []
    generate(models["rotary"], prompts, 1, batch_size=4, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(4, 7), (7, 7)]
    assert generate(models["rotary"], [], 5) == []


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda model: generate(model, [[1], []], 2), ValueError, "without tokens"),
        (lambda model: generate(model, [[1] * 90], 7), UserError, "90 tokens and 7 new ones exceed the 96"),
        (lambda model: Sampling(temperature=0), UserError, "temperature"),
        (lambda model: Sampling(top_k=0), UserError, "top_k"),
        (lambda model: Sampling(num=0), UserError, "num"),
    ],
)
def test_wrong_input(models, call, error, says):
    with pytest.raises(error, match=says):
        call(models["rotary"])
