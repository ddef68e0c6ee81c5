"""Generation by vLLM, against a stand-in for it that decodes with the model itself: what it is told, and what it says.

No vLLM is installed where these tests run.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pretrain_exp.config import EvaluationConfig
from pretrain_exp.eval import job
from pretrain_exp.eval.base import LoadedModel
from pretrain_exp.eval.generation import Sampling, generate
from pretrain_exp.eval.job import EvalTask, fingerprint
from pretrain_exp.eval.vllm import check_vllm

PROMPTS = [[5, 6, 7], [9], [5, 6, 7, 8, 300, 12]]


@pytest.fixture
def engine(models: Any, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The module `vllm` with what is used of it; keeps what it was told."""
    told = SimpleNamespace(engines=[], settings=[])

    class SamplingParams(SimpleNamespace):
        def __init__(self, **fields: Any) -> None:
            super().__init__(**fields)
            told.settings.append(fields)

    class LLM:
        def __init__(self, **fields: Any) -> None:
            told.engines.append(fields)

        def generate(self, asked: Any, settings: Any, use_tqdm: bool) -> Any:
            assert use_tqdm is False
            plain = LoadedModel(models["rotary"].model, models["rotary"].tokenizer)
            answers = []
            for each in asked:
                (found,) = generate(plain, [each["prompt_token_ids"]], settings.max_tokens)
                ends = [i for i, token in enumerate(found) if token in settings.stop_token_ids]
                tokens = found[: ends[0] + 1] if ends else found  # it keeps the token that it stopped at
                answers.append(SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(tokens))]))
            return answers

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    return told


@pytest.fixture
def model(models: Any) -> LoadedModel:
    plain = models["rotary"]
    return LoadedModel(plain.model, plain.tokenizer, "/models/m", None, "vllm")


def test_greedy_tokens_are_those_of_hugging_face(models: Any, model: LoadedModel, engine: SimpleNamespace) -> None:
    whole = generate(models["rotary"], PROMPTS, 10)
    stop = [whole[0][4], whole[2][0]]
    calls: list[tuple[int, int]] = []
    for stops in ([], stop):
        found = generate(model, PROMPTS, 10, stops, progress=lambda *at: calls.append(at))
        assert found == generate(models["rotary"], PROMPTS, 10, stops)
    assert calls == [(3, 3), (3, 3)]
    assert generate(model, [], 5) == []
    (told,) = engine.engines  # started once
    assert (told["model"], told["dtype"], told["max_model_len"]) == ("/models/m", "float32", 96)
    assert (told["skip_tokenizer_init"], told["generation_config"]) == (True, "vllm")
    expected = {"temperature": 0.0, "max_tokens": 10, "ignore_eos": True, "detokenize": False}
    assert engine.settings == [{**expected, "stop_token_ids": []}, {**expected, "stop_token_ids": stop}]


def test_samples_stay_those_of_their_definition(models: Any, model: LoadedModel, engine: SimpleNamespace) -> None:
    sample = Sampling(num=2, seed=1)
    assert generate(model, PROMPTS, 5, sample=sample) == generate(models["rotary"], PROMPTS, 5, sample=sample)
    assert engine.engines == []


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
@pytest.mark.parametrize(("device", "keys"), [("auto", ["generation"]), ("cuda:1", ["generation", "device"])])
def test_without_vllm_it_is_refused(device: str, keys: list[str]) -> None:
    problems = check_vllm(device, 1)
    assert [problem.key for problem in problems] == [f"evaluation.{key}" for key in keys]
    assert "not installed" in problems[0].render()
    assert "pretrain-exp[vllm]" in problems[0].render()
    assert [problem.key for problem in check_vllm("auto", 2)][1:] == ["evaluation.shards"]
    assert EvaluationConfig().generation == "huggingface"


def test_who_decodes_counts_where_something_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "version", lambda name: "0.22")

    def key(target: str, generation: str) -> str:
        task = EvalTask(name="e", target=f"pretrain_exp.eval.{target}", args={}, out="")
        return fingerprint(task, (), "float32", generation)

    for target in ("reasoning.Reasoning", "poisoning.Poisoning", "extraction.Extraction"):
        assert '"generation":["vllm","0.22"]' in key(target, "vllm")
        assert 'generation":' not in key(target, "huggingface")
    for target in ("knowledge.Knowledge", "verbatim.Verbatim"):
        assert key(target, "vllm") == key(target, "huggingface")
