"""One look at a state: converted and loaded once, every loop's probes scored, every controller asked.

state --as_hf--> folder --load--> probes of all insertions --> controllers, while the folder is there
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain_exp.control.base import Decision, Seen
from pretrain_exp.control.loop import Loop
from pretrain_exp.control.probes import Probed, mean_probability, probe
from pretrain_exp.errors import UserError
from pretrain_exp.framework.base import Checkpoint, Framework
from pretrain_exp.plan.hashing import key64

if TYPE_CHECKING:
    from pretrain_exp.insertion.base import InsertionContext
    from pretrain_exp.insertion.dynamic_control import DynamicControl


@dataclass(frozen=True)
class Looked:
    """What was found. probed, decisions: by insertion; no decisions where none were asked for."""

    step: int
    loop: Loop
    probed: Mapping[str, tuple[Probed, ...]]
    decisions: Mapping[str, Decision]

    def seen(self, name: str, insertion: DynamicControl) -> dict[str, Any]:
        """The part of a record that says what was seen: target, value, probes, the controller's numbers."""
        done, total = self.step - self.loop.first_step, self.loop.last_step - self.loop.first_step
        decision = self.decisions.get(name)
        numbers = {} if decision is None else dict(decision.numbers)
        value = mean_probability(self.probed[name])
        return {
            "target": insertion.kind.target_at(done, total) if decision is None else decision.target,
            "value": numbers.get("value") if value is None else value,
            "numbers": numbers,
            "probes": [each.to_json() for each in self.probed[name]],
        }


def look(
    framework: Framework,
    state: Path,
    contexts: Mapping[str, InsertionContext],
    insertions: Mapping[str, DynamicControl],
    states: Mapping[str, Mapping[str, Any]] | None,
    loop: Loop,
    device: str,
    dtype: str,
    live: Path,
) -> Looked:
    """Probes a state and, with the controllers' own `states`, asks them for the next slice; None: probes it only.

    live: the folder of the job that asks.
    """
    material = {name: insertion.material(contexts[name]) for name, insertion in insertions.items()}
    probed: dict[str, tuple[Probed, ...]] = dict.fromkeys(insertions, ())
    decisions: dict[str, Decision] = {}
    checkpoint = Checkpoint.of(framework, state)
    done, total = checkpoint.step - loop.first_step, loop.last_step - loop.first_step
    with checkpoint.as_hf(live) as folder:
        if any(found.probes for found in material.values()):
            from pretrain_exp.eval.job import EvalJob
            from pretrain_exp.eval.worker import load_model

            model = load_model(EvalJob(model=str(folder), evaluations=(), device=device, dtype=dtype, threads=1))
            probed = {name: tuple(probe(model, found.probes)) for name, found in material.items()}
            del model  # a controller that is a program of its own may need the memory
        for name, insertion in insertions.items() if states is not None else ():
            assert states is not None
            seen = Seen(
                step=done,
                total=total,
                value=mean_probability(probed[name]),
                probes=probed[name],
                state=states[name],
                model=folder,
                pool=len(material[name].texts),
                seed=key64(contexts[name].seed, name, "controller", checkpoint.step),
            )
            try:
                decisions[name] = insertion.kind.decide(seen)
            except UserError as error:
                raise error.under(f"insertion.{name}") from None
    return Looked(checkpoint.step, loop, probed, decisions)
