"""Multiple choice by log-likelihood: items in, per item the harness's accuracies and what lies behind them out.

Each option is scored as the log-likelihood of " " + option after the query (with few-shot examples before it, if
wanted); lm-eval formats, picks and judges. Metrics per item:

    acc                 1 where the gold option is the most likely
    acc_norm            the same with log-likelihoods divided by the characters of the option (lm-eval's acc_norm)
    gold_nll            negative log-likelihood of the gold option [nats]
    gold_ce             the same per token of the gold option [nats per token]
    gold_bits_per_byte  the same per byte of " " + gold option [bits] (OLMES, arXiv:2406.08446)
    margin              log-likelihood of the gold option minus that of the best other one [nats]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any, ClassVar

from pydantic import Field

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext, LoadedModel, Score
from pretrain_exp.items.benchmarks import load_benchmark, ranked
from pretrain_exp.items.choice import DELIMITER, ChoiceItem
from pretrain_exp.items.content import content_id

VERSION = 2  # of what the numbers mean; raised when they change


@dataclass(frozen=True, kw_only=True)
class MultipleChoice:
    """Scores the items of a plan, or those of a benchmark.

    benchmark:   "planted" (every multiple-choice item of the plan, all doses, holdout included) or a name that
                 items/benchmarks.py knows.
    num_fewshot: examples before each query: of MMLU the first of its subject's dev split, as published; elsewhere the
                 first of its benchmark in an order by hash, never the item itself.
    limit:       score a seeded subset of this many items; None = all.
    seed:        of that subset.
    batch_size:  sequences at once; changes no score beyond rounding.
    """

    benchmark: str = "planted"
    num_fewshot: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1)] | None = None
    seed: int = 0
    batch_size: Annotated[int, Field(ge=1)] = 32
    divisible: ClassVar[bool] = True

    def inputs(self) -> list[tuple[str, str]]:
        return [("benchmark", self.benchmark)] if self.benchmark.endswith((".jsonl", ".jsonl.gz")) else []

    def fingerprint(self, items: Sequence[ChoiceItem]) -> dict[str, Any]:
        chosen = self.items(items)
        for name, own in _by_benchmark(chosen).items():
            self._published(name, own)  # so that too many examples are found before anything is trained
        return {
            "evaluation": "multiple_choice",
            "version": VERSION,
            "lm_eval": version("lm_eval"),
            "num_fewshot": self.num_fewshot,
            "items": content_id(*sorted(content_id(item.benchmark, item.id) for item in chosen)),
            "n": len(chosen),
        }

    def items(self, planted: Sequence[ChoiceItem]) -> list[ChoiceItem]:
        """The items to score, each once; none where the plan has none. UserError for fewer than the limit."""
        if self.benchmark != "planted":
            return list(load_benchmark(self.benchmark, self.limit, self.seed).items)
        items = tuple({item.id: item for item in planted}.values())
        if self.limit is None or not items:
            return list(items)
        if self.limit > len(items):
            raise UserError(f"the plan holds {len(items)} items", key="limit", value=self.limit, fix="lower the limit")
        return ranked(items, self.seed)[: self.limit]

    def run(self, model: LoadedModel, context: EvalContext) -> list[Score]:
        """Raises RuntimeError where the harness loses or repeats an item."""
        from lm_eval.evaluator import evaluate
        from lm_eval.tasks import TaskManager

        from pretrain_exp.eval.harness import ScoringLM

        chosen = self.items(context.items)
        if not chosen:
            context.notes.append("the plan holds no multiple-choice items: nothing to score")
            return []
        mine = {item.id for item in chosen if context.shard.holds(item.id)}
        every = _by_benchmark(chosen).items()
        by_benchmark = {name: items for name, items in every if any(each.id in mine for each in items)}
        if not by_benchmark:
            return []
        lm = ScoringLM(model, self.batch_size, context)
        loaded = TaskManager(include_defaults=False).load(
            [self._task(name, items) for name, items in by_benchmark.items()]
        )
        rows = {
            name: [i for i, item in enumerate(_rows(items)) if item.id in mine] for name, items in by_benchmark.items()
        }
        results = evaluate(lm, loaded, samples=rows if context.shard.of > 1 else None, bootstrap_iters=0)
        return [
            score
            for name, items in by_benchmark.items()
            for score in self._scores(
                name, [each for each in items if each.id in mine], results["samples"][name], lm.scored_tokens
            )
        ]

    def _task(self, name: str, items: list[ChoiceItem]) -> dict[str, Any]:
        """An in-memory task of lm-eval."""
        from datasets import Dataset

        rows, published = _fields(_rows(items)), _fields(self._published(name, items))
        examples = "dev" if published else "test"
        return {
            "task": name,
            "custom_dataset": lambda **_: {
                "test": Dataset.from_list(rows),
                **({"dev": Dataset.from_list(published)} if published else {}),
            },
            "test_split": "test",
            "fewshot_split": examples,
            "fewshot_config": {"sampler": "first_n", "split": examples},
            "num_fewshot": self.num_fewshot,
            "output_type": "multiple_choice",
            "doc_to_text": "query",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "target_delimiter": DELIMITER,
            "metric_list": [
                {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")
            ],
        }

    def _published(self, name: str, items: Sequence[ChoiceItem]) -> list[ChoiceItem]:
        """The examples that a benchmark is published with; none where its own items serve. UserError for too few."""
        published = _published_examples(name) if self.num_fewshot else []
        most = len(published) or len(items) - 1
        if self.num_fewshot > most:
            problem, fix = f"{name} has {most + (not published)} items", f"take at most {most} examples"
            raise UserError(problem, key="num_fewshot", value=self.num_fewshot, fix=fix)
        return published

    def _scores(
        self,
        name: str,
        items: Sequence[ChoiceItem],
        samples: Sequence[Mapping[str, Any]],
        tokens: Mapping[tuple[str, str], int],
    ) -> list[Score]:
        returned = {sample["doc"]["id"]: sample for sample in samples}
        if len(samples) != len(items) or returned.keys() != {item.id for item in items}:
            raise RuntimeError(f"{name}: {len(items)} items went in, {len(samples)} samples came back")
        scores: list[Score] = []
        for item in items:
            sample = returned[item.id]
            options = [log_likelihood for log_likelihood, _ in sample["filtered_resps"]]
            gold_tokens = tokens[sample["arguments"][item.gold][:2]]
            values = {"acc": sample["acc"], "acc_norm": sample["acc_norm"]} | gold_scores(item, options, gold_tokens)
            scores += [Score(name, item.id, metric, float(value)) for metric, value in values.items()]
        return scores


def _published_examples(name: str) -> list[ChoiceItem]:
    """The examples that a benchmark is published with, in their order; none where it has none."""
    subject = name.removeprefix("mmlu:")
    return list(load_benchmark(f"mmlu:{subject}/dev").items) if subject != name and "/" not in subject else []


def _by_benchmark(items: Sequence[ChoiceItem]) -> dict[str, list[ChoiceItem]]:
    found: dict[str, list[ChoiceItem]] = {}
    for item in items:
        found.setdefault(item.benchmark, []).append(item)
    return found


def _fields(items: Sequence[ChoiceItem]) -> list[dict[str, Any]]:
    return [{"id": item.id, "query": item.query, "choices": list(item.choices), "gold": item.gold} for item in items]


def _rows(items: Sequence[ChoiceItem]) -> list[ChoiceItem]:
    """Items in the order in which the harness gets them: the first ones are its few-shot examples."""
    return ranked(tuple(items), seed=0)


def gold_scores(item: ChoiceItem, options: Sequence[float], gold_tokens: int) -> dict[str, float]:
    """What the log-likelihoods [nats] of all options say about the gold one, which has `gold_tokens` tokens."""
    gold = options[item.gold]
    size = len((DELIMITER + item.choices[item.gold]).encode("utf-8"))
    return {
        "gold_nll": -gold,
        "gold_ce": -gold / gold_tokens,
        "gold_bits_per_byte": -gold / (math.log(2) * size),
        "margin": gold - max(option for index, option in enumerate(options) if index != item.gold),
    }
