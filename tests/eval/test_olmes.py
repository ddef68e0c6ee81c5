"""OLMES as published: ai2-olmo-eval's own metrics on the same model are equal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext, LoadedModel
from pretrain_exp.eval.multiple_choice import MultipleChoice
from pretrain_exp.eval.olmes import Olmes, item_scores
from pretrain_exp.items.benchmarks import load_benchmark
from pretrain_exp.items.olmes_requests import RequestItem, load_requests

LIMIT = 12


class TheirTokenizer:
    """What olmo_eval asks of a tokenizer, over ours. Its sequences begin with what a text begins with here."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.pad_token_id, self.eos_token_id, self.bos_token_id = tokenizer, 0, 0, 0

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("name", "kind", "metric"),
    [
        ("arc_easy/rc_0shot", "acc", "acc_raw"),
        ("arc_easy/rc_0shot", "len_norm", "acc_per_char"),
        ("winogrande/rc_0shot", "acc", "acc_raw"),
        ("socialiqa/rc_0shot", "len_norm", "acc_per_char"),
        ("sciq/rc_0shot", "acc", "acc_raw"),
    ],
)
def test_equal_to_olmo_evals_own_metrics(models: Any, name: str, kind: str, metric: str) -> None:
    from olmo_eval.metrics import ICLMetric
    from olmo_eval.tasks import OEEvalTask

    model: LoadedModel = models["rotary"]
    benchmark, subset = name.split("/")

    class Few(OEEvalTask):
        def prep_examples(self) -> None:
            self.dataset = [list(self.dataset[0])[: LIMIT * 2]]
            super().prep_examples()

    task: Any = Few(TheirTokenizer(model.tokenizer), benchmark, subset, model_ctx_len=96, metric_type=kind)
    theirs = ICLMetric(kind)
    for sample in task.samples:
        batch = task.collate_fn([sample])
        with torch.no_grad():
            theirs.update(batch, model.model(batch["input_ids"]).logits)
    read = {k: float(v) for k, v in theirs.compute().items()}
    picked = [load_requests(name).items[number] for number in sorted({sample["doc_id"] for sample in task.samples})]
    ours = _only(Olmes(tasks=[name]), picked, model)
    score = "len_norm_v2" if kind == "len_norm" else "acc_v2"  # v2 counts the leading space, as OLMES itself does
    for key, found in ((score, metric), ("bpb_v2", "gold_bits_per_byte")):
        values = [value for *_, each, value in ours if each == found]
        assert len(values) == len(picked)
        assert np.mean(values) == pytest.approx(read[key], rel=1e-5), read


def _only(evaluation: Olmes, items: list[RequestItem], model: LoadedModel) -> Any:
    whole = load_requests(evaluation.tasks[0])

    class Picked(Olmes):
        def chosen(self, name: str) -> Any:
            return replace(whole, items=tuple(items))

    return Picked(tasks=evaluation.tasks).run(model, EvalContext())


def test_items_are_those_that_can_be_planted() -> None:
    planted = {item.id for item in load_benchmark("olmes:arc_easy/rc_0shot").items}
    assert {item.id for item in load_requests("arc_easy/rc_0shot").items} == planted
    five = {item.id for item in load_requests("arc_easy/val_rc_5shot").items}
    assert len(five & planted) > 0.9 * len(planted), "the same questions behind five shots"


def test_normalizations() -> None:
    item = RequestItem("x", ("q", "q"), (" a", " long one"), 1, ("n", "n"))
    found = item_scores(item, np.array([-2.0, -3.0]), [1, 2], np.array([-1.0, -9.0]), "acc_uncond")
    assert [found[name] for name in ("acc_raw", "acc_per_char", "acc_per_token", "acc_uncond", "primary")] == [
        0.0, 1.0, 1.0, 1.0, 1.0,
    ]  # fmt: skip
    assert found["gold_ce"] == 1.5


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tasks": ["no such"]}, "ships no such benchmark"),
        ({"tasks": ["sciq"], "shots": 3}, "no set rc_3shot"),
        ({"tasks": ["coqa/bpb_0shot"]}, "no options"),
        ({"tasks": ["sciq"], "formulation": "free"}, "unknown formulation"),
        ({"tasks": ["openbookqa"], "limit": 10**6}, "has 500 items"),
    ],
)
def test_what_is_wrong_is_said(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        Olmes(**fields).fingerprint(())
    assert error.value.key in fields


def test_a_set_whose_own_metric_is_not_computed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never replaced by another normalization."""
    whole = load_requests("winogrande/rc_0shot")
    monkeypatch.setattr("pretrain_exp.eval.olmes.load_requests", lambda name: replace(whole, primary="acc_uncond"))
    with pytest.raises(UserError, match="OLMES reports acc_uncond"):
        Olmes(tasks=["winogrande"], shots=0).fingerprint(())


def test_mmlu_is_that_of_olmo_eval(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same metrics without examples; with five, the very prompts, less the line that names the subject."""
    import lm_eval.evaluator
    from olmo_eval.metrics import ICLMetric
    from olmo_eval.tasks import MMLU
    from tiny_models import build

    model = LoadedModel(build("rotary", len(tokenizer), 1024), tokenizer)
    like: Any = {"dataset_name": "anatomy", "split": "test", "model_ctx_len": 1024}
    reads = TheirTokenizer(tokenizer)
    reads.bos_token_id = None  # a tokenizer without one, as lm-eval reads it, begins with the text
    task: Any = MMLU(reads, **like)
    docs, theirs = list(task.dataset)[:LIMIT], ICLMetric("len_norm")
    for sample in task.samples:
        if sample["doc_id"] < LIMIT:
            batch = task.collate_fn([sample])
            with torch.no_grad():
                theirs.update(batch, model.model(batch["input_ids"]).logits)
    read = {key: float(value) for key, value in theirs.compute().items()}
    task.current_prompt = None
    by_query = {item.query: item for item in load_benchmark("mmlu:anatomy").items}
    items = [by_query[task.doc_to_text(doc)] for doc in docs]
    found = MultipleChoice().run(model, EvalContext(items=items))
    for key, metric in (("len_norm_v1", "acc_norm"), ("bpb_v2", "gold_bits_per_byte")):
        assert np.mean([score.value for score in found if score.metric == metric]) == pytest.approx(read[key], rel=1e-5)

    kept, plain = [], lm_eval.evaluator.evaluate
    monkeypatch.setattr(lm_eval.evaluator, "evaluate", lambda *a, **k: kept.append(plain(*a, **k)) or kept[-1])
    MultipleChoice(num_fewshot=5).run(model, EvalContext(items=items))
    shown = {sample["doc"]["query"]: sample["arguments"][0][0] for sample in kept[0]["samples"]["mmlu:anatomy"]}
    published: Any = MMLU(reads, prompt_variations=2, **like)
    published.current_prompt = "inst+5"
    header = "The following are multiple choice questions (with answers) about anatomy:\n\n"
    for doc, item in zip(docs, items, strict=True):
        assert header + shown[item.query] == published.doc_to_text(doc)
