"""ParaRel (Elazar et al. 2021): what a model holds for true, and whether it does however it is asked.

Each pattern is filled with the subject and every candidate; a candidate's score is the log-likelihood of all that
follows the beginning of the text, so that patterns with words after the object are ranked as well:

    The capital of Denmark is | Copenhagen.        Copenhagen | is the capital of Denmark.

Metrics of a fact in one pattern; its task is P36/patterns, its id that of fact and pattern:

    acc                1 where the right object is the most likely candidate
    gold_nll           negative log-likelihood of what follows with the right object [nats]
    margin             its log-likelihood minus that of the best other candidate [nats]

and of a fact over its patterns, under task P36:

    acc                share of the patterns in which it is right
    consistency        share of the pairs of patterns that agree in their first candidate
    consistent_acc     1 where it is right in all of them

A pattern whose article (a, an) does not fit the right object is left out for that fact, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Any, ClassVar

from pydantic import Field

from pretrain_exp.eval.base import EvalContext, LoadedModel, Score
from pretrain_exp.eval.target import score_ends
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.items.content import content_id
from pretrain_exp.items.pararel import Fact, Relation, article_fits, filled, load_pararel

VERSION = 1  # of what the numbers mean; raised when they change


@dataclass(frozen=True, kw_only=True)
class ParaRel:
    """Scores the facts of a copy of ParaRel.

    patterns, facts: folders of one .jsonl file a relation (items/pararel.py). relations: names; None = all.
    templates: patterns of each relation, the first ones of its file; None = all. limit: facts of each relation, drawn
    by hash; candidates: objects that a fact's object is ranked among, itself included, drawn by hash; None = all.
    """

    patterns: str
    facts: str
    relations: list[str] | None = None
    templates: Annotated[int, Field(ge=1)] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    candidates: Annotated[int, Field(ge=2)] | None = None
    seed: int = 0
    batch_size: Annotated[int, Field(ge=1)] = 32
    divisible: ClassVar[bool] = True

    def inputs(self) -> list[tuple[str, str]]:
        return [("patterns", self.patterns), ("facts", self.facts)]

    def fingerprint(self, items: Sequence[ChoiceItem]) -> dict[str, Any]:
        parts = [content_id(*r.patterns, *(fact.id for fact in r.facts), *r.objects) for r in self._relations()]
        return {
            "evaluation": "pararel",
            "version": VERSION,
            "candidates": self.candidates,
            "items": content_id(*parts),
            "n": [self.limit, self.seed if self.limit else 0],
        }

    def _relations(self) -> list[Relation]:
        found = load_pararel(self.patterns, self.facts, self.relations)
        return [Relation(each.name, each.patterns[: self.templates], each.facts) for each in found]

    def _facts(self, relation: Relation) -> list[Fact]:
        if self.limit is None:
            return list(relation.facts)
        return sorted(relation.facts, key=lambda fact: content_id("rank", str(self.seed), fact.id))[: self.limit]

    def run(self, model: LoadedModel, context: EvalContext) -> list[Score]:
        relations = self._relations()
        total, done, unfit, cut, alone = sum(len(each.patterns) for each in relations), 0, 0, 0, 0
        scores: list[Score] = []
        for relation in relations:
            own = [fact for fact in self._facts(relation) if context.shard.holds(fact.id)]
            facts = [fact for fact in own if relation.has_wrong(fact)]
            alone += len(own) - len(facts)
            answers: dict[str, list[tuple[str, bool]]] = {fact.id: [] for fact in facts}
            for pattern in relation.patterns:
                asked = [fact for fact in facts if article_fits(pattern, fact.object)]
                unfit += len(facts) - len(asked)
                ranked, shortened = self._ranked(model, relation, pattern, asked)
                cut += shortened
                for fact, found in zip(asked, ranked, strict=True):
                    gold, (best, likelihood) = found[fact.object], _best(found, fact.object)
                    right = gold > likelihood
                    answers[fact.id].append((fact.object if right else best, right))
                    item = content_id("pattern", fact.id, pattern)
                    values = {"acc": float(right), "gold_nll": -gold, "margin": gold - likelihood}
                    scores += [Score(f"{relation.name}/patterns", item, name, each) for name, each in values.items()]
                done += 1
                context.progress(done, total)
            for fact_id, given in answers.items():
                scores += [Score(relation.name, fact_id, name, each) for name, each in _over_patterns(given).items()]
        if unfit:
            context.notes.append(
                f"{unfit} pairs of fact and pattern were left out: the article does not fit the object"
            )
        if alone:
            context.notes.append(f"{alone} facts were left out: every object of their relation is right for them")
        if cut:
            context.notes.append(f"the beginning of {cut} texts exceeds the model's context and was left out")
        if not scores:
            context.notes.append("no fact has a pattern that fits it: nothing to score")
        return scores

    def _ranked(
        self, model: LoadedModel, relation: Relation, pattern: str, facts: Sequence[Fact]
    ) -> tuple[list[dict[str, float]], int]:
        """Log-likelihood [nats] of each candidate, by fact; how many texts were cut."""
        names = [relation.candidates(fact, self.candidates) for fact in facts]
        pairs = [filled(pattern, fact.subject, each) for fact, some in zip(facts, names, strict=True) for each in some]
        scores, cut = score_ends(model, pairs, self.batch_size)
        found = iter(scores)
        return [{each: next(found).log_prob for each in some} for some in names], cut


def _best(found: dict[str, float], gold: str) -> tuple[str, float]:
    """The most likely wrong candidate and its log-likelihood."""
    return max(((each, value) for each, value in found.items() if each != gold), key=lambda pair: pair[1])


def _over_patterns(given: Sequence[tuple[str, bool]]) -> dict[str, float]:
    """given: the first candidate in each pattern, and whether it is right."""
    if not given:
        return {}
    right = [each for _, each in given]
    pairs = [a == b for (a, _), (b, _) in combinations(given, 2)]
    consistency = {"consistency": sum(pairs) / len(pairs)} if pairs else {}
    return {"acc": sum(right) / len(right), "consistent_acc": float(all(right)), **consistency}
