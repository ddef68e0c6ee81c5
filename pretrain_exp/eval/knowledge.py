"""Probes of planted facts: a beginning and how it goes on in, how probable the model finds that out.

Probes are those of the plan (of knowledge, holdout included, and of dynamic_control), or of a file. Metrics per probe;
its task is the insertion (or the file's name) and the type of the probe, knowledge/semantic:

    target_logprob            log-probability of the target [nats]
    target_logprob_per_token  the same per token of the target [nats per token]
    target_prob               probability of the target, 0 to 1
    acc                       1 where greedy decoding gives the target: each of its tokens is the most probable one
    tokens                    of the target
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext, LoadedModel, Score
from pretrain_exp.eval.job import digest_file
from pretrain_exp.eval.target import score_targets
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.items.content import content_id
from pretrain_exp.items.facts import parse_probes
from pretrain_exp.items.planned import PlannedItems, PlantedText
from pretrain_exp.plan.rows import read_rows

VERSION = 1  # of what the numbers mean; raised when they change


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """Scores probes.

    file:       .jsonl of {"type": ..., "prompt": ..., "target": ...}, one probe a row; None = the probes of the plan.
    batch_size: probes at once; changes no score beyond rounding.
    """

    file: str | None = None
    batch_size: Annotated[int, Field(ge=1)] = 32
    divisible: ClassVar[bool] = True

    def inputs(self) -> list[tuple[str, str]]:
        return [("file", self.file)] if self.file is not None else []

    def fingerprint(self, items: Sequence[ChoiceItem]) -> dict[str, Any]:
        asked = planned_probes(items.texts) if self.file is None and isinstance(items, PlannedItems) else []
        file = None if self.file is None else [Path(self.file).name, digest_file(Path(self.file))]
        if self.file is not None:
            self._from_file(self.file)  # so that a wrong row is found before anything is trained
        return {
            "evaluation": "knowledge",
            "version": VERSION,
            "file": file,
            "items": content_id(*sorted(content_id(*each) for each in asked)),
            "n": len(asked),
        }

    def run(self, model: LoadedModel, context: EvalContext) -> list[Score]:
        asked = planned_probes(context.texts) if self.file is None else self._from_file(self.file)
        if not asked:
            context.notes.append("the plan holds no probes: nothing to score")
            return []
        asked = [each for each in asked if context.shard.holds(each.task, each.item)]
        pairs = [(each.prompt, each.target) for each in asked]
        found, shortened = score_targets(model, pairs, self.batch_size, context.progress)
        if shortened:
            context.notes.append(f"the beginning of {shortened} prompts exceeds the model's context and was left out")
        return [
            Score(each.task, each.item, metric, float(value))
            for each, score in zip(asked, found, strict=True)
            for metric, value in {
                "target_logprob": score.log_prob,
                "target_logprob_per_token": score.log_prob / score.tokens,
                "target_prob": math.exp(score.log_prob),
                "acc": score.exact,
                "tokens": score.tokens,
            }.items()
        ]

    def _from_file(self, path: str) -> list[Asked]:
        def wrong(problem: str) -> UserError:
            fix = 'write {"type": "semantic", "prompt": "...", "target": "..."} a row'
            return UserError(f"{path}: {problem}", key="file", value=path, fix=fix)

        probes = parse_probes([fields for _, fields in read_rows(path)], wrong)
        name = Path(path).name
        return [Asked(f"{name}/{p.type}", content_id(p.type, p.prompt, p.target), p.prompt, p.target) for p in probes]


class Asked(NamedTuple):
    """A probe as it is scored."""

    task: str
    item: str
    prompt: str
    target: str


def planned_probes(texts: Sequence[PlantedText]) -> list[Asked]:
    """The probes of a plan, of whatever insertion; one without a type has the insertion alone as its task."""
    return [
        Asked(
            "/".join(filter(None, (text.insertion, text.payload.get("type")))),
            text.item,
            text.payload["prompt"],
            text.payload["target"],
        )
        for text in texts
        if text.payload is not None and text.payload["kind"] == "probe"
    ]
