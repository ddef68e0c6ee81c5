"""Tiny models from scratch, one with absolute and one with rotary positions, over a small BPE of real text."""

import copy
import json
from types import SimpleNamespace

import pytest
from checkpoint_rig import FRAMEWORK, Recorder
from lm_eval_rig import TEMPLATE, write_task
from tiny_models import build

from pretrain_exp.config import EvaluationConfig
from pretrain_exp.eval.base import EvalContext, LoadedModel
from pretrain_exp.eval.perplexity import Perplexity
from pretrain_exp.framework.huggingface.framework import HuggingFace
from pretrain_exp.items.benchmarks import load_benchmark
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.study.checkpoints import evaluate_checkpoints


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
def task(tmp_path, monkeypatch):
    """Writes a task file of lm-eval, see `write_task`; nothing of it is left in the user's cache of data sets."""
    import datasets

    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # it describes the machine each time
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return lambda name="sums", **changes: write_task(tmp_path, name, **changes)


@pytest.fixture
def chatting(models):
    """A model whose tokenizer has two templates."""
    tokenizer = copy.deepcopy(models["rotary"].tokenizer)
    tokenizer.chat_template = {"default": TEMPLATE, "terse": TEMPLATE.replace("m.role", "m.role[0]")}
    return LoadedModel(models["rotary"].model, tokenizer)


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


@pytest.fixture
def hf_folder(tmp_path, models):
    models["rotary"].model.save_pretrained(tmp_path / "model")
    models["rotary"].tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def documents(tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "Plants need light.", "domain": "d"}\n')
    return str(tmp_path / "texts.jsonl")


@pytest.fixture
def study(tmp_path):
    """A study of one state, as its folder and its store tell of it."""

    def make(states=("abc",), framework=FRAMEWORK, **fields):
        store, folder = tmp_path / "store", tmp_path / "study"
        for key in states:
            (store / "states" / key).mkdir(parents=True)
            (store / "states" / key / "state.json").write_text("{}")
        folder.mkdir()
        (folder / "study.json").write_text(json.dumps({"store": str(store), "members": [str(folder)]}))
        arms = {"treated": {"states": {"24": "abc"}}}
        config = {"framework": {"_target_": framework}}
        member = {"label": "", "seed": 0, "plan": None, "arms": arms, "config": config} | fields
        (folder / "member.json").write_text(json.dumps(member))
        return str(folder)

    return make


@pytest.fixture
def evaluate(tmp_path):
    """Evaluates perplexity on targets; returns exit status, executor and configuration."""

    def run(*targets, state="done", files=None, store=None, out="out", meanwhile=None, message="the reason"):
        fields = {} if files is None else {"files": files}
        config = SimpleNamespace(
            store=str(store or tmp_path / "store"),
            eval={"perplexity": {"_target_": "pretrain_exp.eval.perplexity.Perplexity", **fields}},
            evaluation=EvaluationConfig(device="cpu"),
            framework={"_target_": FRAMEWORK},
            training=SimpleNamespace(retries=0),
        )
        executor = Recorder(state, meanwhile, message)
        evaluations = {"perplexity": Perplexity(**fields)}
        kinds = SimpleNamespace(framework=HuggingFace(), executor=executor, evaluations=evaluations)
        composed = SimpleNamespace(config=config, kinds=kinds)
        run.executor = executor
        return evaluate_checkpoints(composed, tmp_path / out, "the command", targets), executor, config

    return run
