"""Evaluations as a user writes them: in a module of their own, named by `_target_`."""

from dataclasses import dataclass

from pretrain_exp.eval.base import Score


@dataclass(frozen=True, kw_only=True)
class QueryLength:
    """Counts the tokens of each planted question."""

    scale: float = 1.0

    def inputs(self):
        return []

    def fingerprint(self, items):
        return {"evaluation": "query_length", "scale": self.scale}

    def run(self, model, context):
        context.notes.append("counted")
        return [
            Score("length", item.id, "tokens", self.scale * len(model.tokenizer.encode(item.query)))
            for item in context.items
        ]


@dataclass(frozen=True, kw_only=True)
class Raises(QueryLength):
    def run(self, model, context):
        raise ZeroDivisionError("no items of this kind")


@dataclass(frozen=True, kw_only=True)
class NotFinite(QueryLength):
    def run(self, model, context):
        return [Score("t", "a", "m", float("nan"))]


@dataclass(frozen=True, kw_only=True)
class Silent(QueryLength):
    def run(self, model, context):
        return []


@dataclass(frozen=True, kw_only=True)
class NoEvaluation:
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class OneScore(QueryLength):
    """Asks nothing of a model."""

    def run(self, model, context):
        return [Score("t", "a", "m", 1.0)]
