"""Probes: a prompt and the target that should follow it. A model in, the probability of each target out.

It is the probability of the whole target, the product over its tokens (eval/target.py), as in "Train Once, Answer All"
(arXiv:2509.23383). As items of a plan, probes are scored by eval=knowledge too, in every arm.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pretrain_exp.errors import UserError
from pretrain_exp.items.choice import DELIMITER
from pretrain_exp.items.content import content_id
from pretrain_exp.plan.rows import field, read_rows

if TYPE_CHECKING:
    from pretrain_exp.eval.base import LoadedModel

KIND = "probe"  # of the payload of a probe that is an item of a plan


@dataclass(frozen=True)
class Probe:
    """payload: of the item of a plan that it is, with its prompt and target."""

    id: str
    prompt: str
    target: str
    payload: str

    @classmethod
    def create(cls, prompt: str, target: str) -> Probe:
        """A probe whose id is the content hash of its texts. ValueError where either is empty."""
        prompt, target = prompt.rstrip(), target.strip()
        if not prompt or not target:
            raise ValueError("prompt and target must not be empty")
        payload = json.dumps({"kind": KIND, "prompt": prompt, "target": target}, ensure_ascii=False)
        return cls(content_id(prompt, target), prompt, target, payload)

    @classmethod
    def of_item(cls, id: str, payload: str) -> Probe | None:
        """The probe that an item of another kind is; None where it is none."""
        fields = json.loads(payload) if payload else {}
        return cls(id, fields["prompt"], fields["target"], payload) if fields.get("kind") == KIND else None

    @property
    def text(self) -> str:
        return self.prompt + DELIMITER + self.target


@dataclass(frozen=True)
class Probed:
    """What a model gave for a probe. greedy: every token of the target was the most probable one."""

    id: str
    probability: float
    log_probability: float  # nats
    tokens: int
    greedy: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_probes(path: str, prompt_key: str, target_key: str) -> list[Probe]:
    """The probes of a table file, a row each. UserError for a row that is none, or stands twice."""
    found: dict[str, Probe] = {}
    for row in read_rows(path, key="probes"):
        texts = [field(row, name, path, key) for name, key in ((prompt_key, "prompt_key"), (target_key, "target_key"))]
        try:
            probe = Probe.create(*(str(text) for text in texts))
        except ValueError as error:
            raise UserError(f"row {row[0]} of {path}: {error}", key="probes", value=texts) from None
        if probe.id in found:
            raise UserError(f"row {row[0]} of {path} stands there twice", key="probes", value=texts)
        found[probe.id] = probe
    if not found:
        raise UserError("holds no probe", key="probes", value=path)
    return list(found.values())


def probe(model: LoadedModel, probes: Sequence[Probe], batch_size: int = 16) -> list[Probed]:
    """Scores every probe, in the order given."""
    from pretrain_exp.eval.target import score_targets

    scores, _ = score_targets(model, [(each.prompt, each.target) for each in probes], batch_size)
    return [
        Probed(each.id, math.exp(score.log_prob), score.log_prob, score.tokens, score.exact)
        for each, score in zip(probes, scores, strict=True)
    ]


def mean_probability(probed: Sequence[Probed]) -> float | None:
    """None where there are none."""
    return math.fsum(each.probability for each in probed) / len(probed) if probed else None
