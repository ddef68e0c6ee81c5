"""Tiny models from scratch, one with absolute and one with rotary positions, over a small BPE of real text."""

import pytest
from tiny_models import build

from pretrain_exp.eval.base import EvalContext, LoadedModel
from pretrain_exp.items.benchmarks import load_benchmark
from pretrain_exp.items.choice import ChoiceItem


@pytest.fixture(scope="session")
def items() -> list[ChoiceItem]:
    """24 items of two benchmarks, with three to four options of different lengths."""
    arc, siqa = (load_benchmark(f"olmes:{name}", limit=60) for name in ("arc_easy", "socialiqa"))
    short = [[item for item in items if len(item.planted_text()) < 130][:12] for items in (arc, siqa)]
    return [*short[0], *short[1]]


@pytest.fixture(scope="session")
def tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([item.planted_text() for item in load_benchmark("olmes:arc_easy")], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>")


@pytest.fixture(scope="session")
def models(tokenizer) -> dict[str, LoadedModel]:
    import torch

    torch.set_num_threads(1)
    return {kind: LoadedModel(build(kind, len(tokenizer)), tokenizer) for kind in ("absolute", "rotary")}


@pytest.fixture(params=["absolute", "rotary"])
def model(request, models) -> LoadedModel:
    return models[request.param]


@pytest.fixture
def context(items) -> EvalContext:
    return EvalContext(items=items)


@pytest.fixture
def naive():
    """log P(scored | before) [nats], one sequence at a time, by the definition: what all scores are held against."""
    import torch

    def log_likelihood(model: LoadedModel, before: list[int], scored: list[int]) -> float:
        with torch.no_grad():
            logits = model.model(torch.tensor([before + scored[:-1]])).logits[0]
        log_probabilities = logits.double().log_softmax(-1)
        return sum(float(log_probabilities[len(before) - 1 + i, token]) for i, token in enumerate(scored))

    return log_likelihood
