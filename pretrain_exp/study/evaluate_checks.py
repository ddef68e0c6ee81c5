"""What evaluations cannot do with the models that are to come, said before anything is trained or submitted.

    members, checkpoints --Asked--> evaluations whose result the store lacks --check--> problems, each with its key

What is already scored is not asked about again, so a study that only reports needs no data set and no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pretrain_exp.errors import Problems, UserError
from pretrain_exp.eval.base import ModelToCome, context_length_of
from pretrain_exp.framework.origin import hf_config
from pretrain_exp.study.facts import model_facts
from pretrain_exp.study.jobs import EvaluationRequest, missing_specs
from pretrain_exp.study.member import Member
from pretrain_exp.study.targets import Target


class Asked(NamedTuple):
    """What is asked of a model, by evaluations under their names in the configuration. store: where results lie."""

    model: ModelToCome
    evaluations: Mapping[str, Any]
    requests: Sequence[EvaluationRequest]
    store: Path


def asked_of(member: Member, requests: Sequence[EvaluationRequest], store: Path) -> Asked:
    """Of a model in training; how much it reads at once is known of one from scratch."""
    kinds = member.composed.kinds
    config = model_facts(member.config, kinds.framework, member.data)["config"] or {}
    model = ModelToCome(member.data.tokenizer.folder, context_length=context_length_of(config.get))
    return Asked(model, kinds.evaluations, requests, store)


def asked_of_target(target: Target, evaluations: Mapping[str, Any], request: EvaluationRequest, store: Path) -> Asked:
    """Of a checkpoint that is there; a state says how much it reads once it is converted."""
    config = {} if target.model is None else hf_config(target.model, target.revision)
    model = ModelToCome(target.model or target.tokenizer, target.revision, context_length_of(config.get))
    return Asked(model, evaluations, [request], store)


def refuse_unfit(asked: Iterable[Asked]) -> None:
    """Problems where an evaluation says of itself that it cannot be done (`eval.base.Evaluation`)."""
    due = {
        (spec.name, spec.identity, each.model): each.evaluations[spec.name]
        for each in asked
        for request in each.requests
        for spec in missing_specs(request, each.store)
    }
    found: dict[str, UserError] = {}
    for (name, _, model), evaluation in due.items():
        for error in evaluation.check(model) if hasattr(evaluation, "check") else ():
            full = error.under(f"eval.{name}")
            found[full.render()] = full
    if found:
        raise Problems(list(found.values()), "the evaluations cannot be made")
