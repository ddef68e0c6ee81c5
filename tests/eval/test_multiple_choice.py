"""Multiple choice: per-item scores against the definition and against lm-eval's own."""

import json
import math

import pytest

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext
from pretrain_exp.eval.multiple_choice import MultipleChoice
from pretrain_exp.items.benchmarks import load_benchmark, ranked
from pretrain_exp.items.choice import ChoiceItem

METRICS = {"acc", "acc_norm", "gold_nll", "gold_ce", "gold_bits_per_byte", "margin"}


def by_item(scores):
    table = {}
    for score in scores:
        assert score.metric not in table.setdefault(score.item, {}), score
        table[score.item][score.metric] = score.value
    return table


def definition(model, naive, item, before=""):
    """The metrics of one item, option by option, from their definitions."""
    encode = model.tokenizer.encode
    query = encode(before + item.query)
    options = [encode(before + item.text(i))[len(query) :] for i in range(len(item.choices))]
    likelihoods = [naive(model, query, option) for option in options]
    gold = likelihoods[item.gold]
    per_character = [likelihood / len(choice) for likelihood, choice in zip(likelihoods, item.choices, strict=True)]
    return {
        "acc": float(likelihoods.index(max(likelihoods)) == item.gold),
        "acc_norm": float(per_character.index(max(per_character)) == item.gold),
        "gold_nll": -gold,
        "gold_ce": -gold / len(options[item.gold]),
        "gold_bits_per_byte": -gold / math.log(2) / len((" " + item.choices[item.gold]).encode()),
        "margin": gold - max(likelihood for i, likelihood in enumerate(likelihoods) if i != item.gold),
    }


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_every_item_scores_by_the_definition_whatever_the_batch_size(model, naive, items, context, batch_size):
    scores = by_item(MultipleChoice(batch_size=batch_size).run(model, context))
    assert scores.keys() == {item.id for item in items}
    for item in items:
        assert scores[item.id] == pytest.approx(definition(model, naive, item), abs=1e-4, rel=1e-6)
        assert scores[item.id].keys() == METRICS


def test_the_task_of_a_score_is_the_benchmark_of_its_item(models, items, context):
    scores = MultipleChoice().run(models["rotary"], context)
    assert {(score.item, score.task) for score in scores} == {(item.id, item.benchmark) for item in items}


def test_equal_to_the_aggregate_of_lm_eval_itself(models, items, context):
    from datasets import Dataset
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = models["rotary"]
    rows = [{"q": item.query, "c": list(item.choices), "g": item.gold} for item in items]
    task = {
        "task": "reference",
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "q",
        "doc_to_choice": "c",
        "doc_to_target": "g",
    }
    harness = simple_evaluate(
        HFLM(pretrained=model.model, tokenizer=model.tokenizer, batch_size=4),
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
    )
    ours = by_item(MultipleChoice().run(model, context))
    for metric in ("acc", "acc_norm"):
        mean = sum(scores[metric] for scores in ours.values()) / len(ours)
        assert mean == pytest.approx(harness["results"]["reference"][f"{metric},none"])
    for sample, item in zip(harness["samples"]["reference"], items, strict=True):
        theirs = sample["filtered_resps"][item.gold][0]
        assert ours[item.id]["gold_nll"] == pytest.approx(-theirs, abs=1e-4, rel=1e-6)


def test_few_shot_examples_are_those_of_the_benchmark_and_never_the_item_itself(models, naive, items):
    arc = [item for item in items if "arc" in item.benchmark][:5]
    arc = [ChoiceItem.create("b", f"{i}?", ("yes", "no", "may be"), i % 3) for i in range(len(arc))]
    scores = by_item(MultipleChoice(num_fewshot=2).run(models["rotary"], EvalContext(items=arc)))
    for item in arc:
        shots = [shot.planted_text() for shot in ranked(tuple(arc), seed=0) if shot.id != item.id][:2]
        expected = definition(models["rotary"], naive, item, before="\n\n".join(shots) + "\n\n")
        assert scores[item.id] == pytest.approx(expected, abs=1e-4, rel=1e-6)


def test_planted_tokens_are_the_evaluated_tokens(models, items, context, monkeypatch):
    from pretrain_exp.eval.harness import ScoringLM

    model, seen = models["rotary"], set()
    plain = ScoringLM._loglikelihood_tokens

    def spy(self, requests, **keywords):
        seen.update(tuple(before + scored) for _, before, scored in requests)
        return plain(self, requests, **keywords)

    monkeypatch.setattr(ScoringLM, "_loglikelihood_tokens", spy)
    MultipleChoice().run(model, context)
    planted = {tuple(model.tokenizer.encode(item.planted_text(), add_special_tokens=False)) for item in items}
    assert planted <= seen


@pytest.mark.parametrize("spec", ["olmes:arc_easy", "olmes:hellaswag", "olmes:sciq", "olmes:piqa"])
def test_a_real_tokenizer_splits_a_planted_text_where_the_evaluation_does(spec):
    import importlib.util
    from pathlib import Path

    from tokenizers import Tokenizer

    folder = Path(importlib.util.find_spec("olmo_eval").submodule_search_locations[0]) / "tokenizers"
    tokenizer = Tokenizer.from_file(str(folder / "allenai_gpt-neox-olmo-dolma-v1_5.json"))
    for item in load_benchmark(spec, limit=200):
        query = tokenizer.encode(item.query, add_special_tokens=False).ids
        planted = tokenizer.encode(item.planted_text(), add_special_tokens=False).ids
        assert planted[: len(query)] == query


def test_a_context_too_long_is_cut_on_the_left_and_noted(models, naive):
    model = models["absolute"]
    item = ChoiceItem.create("b", "many words " * 60, ("first", "second"), 1)
    context = EvalContext(items=[item])
    scores = by_item(MultipleChoice().run(model, context))
    query, whole = model.tokenizer.encode(item.query), model.tokenizer.encode(item.planted_text())
    scored = whole[len(query) :]
    kept = whole[-(model.context_length + 1) : -len(scored)]
    assert scores[item.id]["gold_nll"] == pytest.approx(-naive(model, kept, scored), abs=1e-4)
    assert context.notes == [
        "2 of 2 requests exceed the 96 tokens that the model reads at once; the beginning of their context was left out"
    ]


def test_a_lost_item_is_an_error(models, context, monkeypatch):
    from lm_eval import evaluator

    plain = evaluator.evaluate

    def loses_one(*arguments, **keywords):
        results = plain(*arguments, **keywords)
        next(iter(results["samples"].values())).pop()
        return results

    monkeypatch.setattr(evaluator, "evaluate", loses_one)
    with pytest.raises(RuntimeError, match="12 items went in, 11 samples came back"):
        MultipleChoice().run(models["rotary"], context)


def test_a_limit_takes_a_seeded_subset_of_the_planted_items(items):
    chosen = MultipleChoice(limit=5).items(items)
    assert len(chosen) == 5
    assert chosen != items[:5]
    assert chosen == MultipleChoice(limit=5).items(items[::-1])
    assert {item.id for item in chosen} != {item.id for item in MultipleChoice(limit=5, seed=1).items(items)}


@pytest.mark.parametrize(
    ("evaluation", "count", "message"),
    [
        (MultipleChoice(limit=25), 24, "the plan holds 24 items"),
        (MultipleChoice(num_fewshot=12), 24, "has 12 items"),
        (MultipleChoice(benchmark="olmes:nope"), 24, "ships no such benchmark"),
        (MultipleChoice(benchmark="absent.jsonl"), 24, "no such file"),
    ],
)
def test_what_cannot_be_scored_is_said(models, items, evaluation, count, message):
    for ask in (lambda: evaluation.run(models["rotary"], EvalContext(items=items[:count])),
                lambda: evaluation.fingerprint(items[:count])):  # fmt: skip
        with pytest.raises(UserError, match=message):
            ask()


@pytest.mark.parametrize("fields", [{}, {"limit": 5}, {"num_fewshot": 2}])
def test_a_plan_without_questions_gives_no_scores_and_a_note(models, fields):
    context, evaluation = EvalContext(), MultipleChoice(**fields)
    assert evaluation.run(models["rotary"], context) == []
    assert context.notes == ["the plan holds no multiple-choice items: nothing to score"]
    assert evaluation.fingerprint([])["n"] == 0


def test_the_fingerprint_names_what_changes_the_scores_only(items, tmp_path):
    def key(evaluation, items=items):
        return json.dumps(evaluation.fingerprint(items), sort_keys=True)

    plain = key(MultipleChoice())
    assert key(MultipleChoice(batch_size=1)) == key(MultipleChoice(), items[::-1]) == plain
    others = [
        key(MultipleChoice(num_fewshot=1)),
        key(MultipleChoice(), items[1:]),
        key(MultipleChoice(limit=5)),
        key(MultipleChoice(limit=5, seed=1)),
        key(MultipleChoice(benchmark="olmes:arc_easy")),
    ]
    assert len({plain, *others}) == 6
    rows = [{"query": item.query, "choices": item.choices, "gold": item.gold} for item in items]
    files = [tmp_path / folder / "items.jsonl" for folder in ("here", "there")]
    for file in files:
        file.parent.mkdir()
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    here, there = (MultipleChoice(benchmark=str(file)) for file in files)
    assert key(here) == key(there)
    assert here.inputs() == [("benchmark", str(files[0]))]
