"""One member of a study, made ready: its data, its plans and the runs of its arms. Nothing is trained here.

configuration --> tokenizer, token files --> data order, phases
                                                 |
insertions --edits--> plan (treated) --> placebo |  no edits (control)
                            |                    v
                            +---------------> runs: base key, wanted steps, digest of the plan before each step
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain_exp.compose import Composed
from pretrain_exp.config import Config, training_facts
from pretrain_exp.control.room import check_room, items_to_come
from pretrain_exp.data.order import DataOrder
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.data.prepare import PreparedData, prepare_data
from pretrain_exp.data.window_order import WindowOrder
from pretrain_exp.errors import Problems, UserError
from pretrain_exp.framework.base import Framework
from pretrain_exp.insertion.asked import asked_edits
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.dynamic_control import loops_of
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Window
from pretrain_exp.plan.folder import Plan, refuse_failed_audit
from pretrain_exp.plan.placebo import check_placebo_room, placebo_plan
from pretrain_exp.plan.replay import export_table, load_table
from pretrain_exp.plan.restrict import acting_insertions, restricted_plan
from pretrain_exp.store.keys import base_key
from pretrain_exp.store.transfer import Download
from pretrain_exp.study.facts import model_facts, run_facts, worker_job
from pretrain_exp.study.fetch import planning_order
from pretrain_exp.study.graph import Run, cut_steps
from pretrain_exp.study.loops import closed
from pretrain_exp.study.missing import unreachable_checkpoint
from pretrain_exp.study.scanning import scanned_holdouts
from pretrain_exp.study.start import fetched, surveyed


@dataclass(frozen=True)
class Member:
    """A planned member. plans: None for an arm without edits."""

    composed: Composed
    label: str
    seed: int  # the number of this repetition: `seed`, or a count where named seeds vary alone
    data: PreparedData
    order: DataOrder
    phases: Phases
    seeds: dict[str, int]
    initial: dict[str, Any]
    plans: dict[str, Plan | None]
    runs: dict[str, Run]
    findings: Sequence[dict[str, str]] = ()  # of scan_holdouts, beside those of the plan's audit
    needed: Sequence[Download] = ()  # of the checkpoint that it starts from, and not here yet

    @property
    def config(self) -> Config:
        return self.composed.config

    @property
    def plan(self) -> Plan | None:
        """The treated arm's plan, which holds the items that all arms are scored on."""
        return self.plans.get("treated")

    def evaluated_steps(self) -> list[int]:
        """The steps whose states are scored, ascending."""
        config = self.config
        steps = {config.last_step, *config.evaluation.steps}
        if config.evaluation.on_load:
            steps.add(config.first_step)
        if config.evaluation.every_checkpoint:
            steps |= checkpoint_steps(config)
        return sorted(steps)


def checkpoint_steps(config: Config) -> set[int]:
    """The steps whose states the configuration asks to keep, the last one aside."""
    every = config.training.checkpoint_interval
    grid = range(config.first_step + every, config.last_step, every) if every else ()
    return {*grid, *config.training.additional_checkpoint_steps}


def prepare(composed: Composed, label: str, seed: int, fetch: bool = True) -> Member:
    """Prepares the data, compiles the plans and names the states of one member. Raises UserError or Problems.

    fetch: whether a checkpoint given by URL is brought here; else only what is small of it, to say how much it is.
    """
    store, framework = Path(composed.config.store).absolute(), composed.kinds.framework
    data = prepared_data(composed, store)
    start = (fetched if fetch else surveyed)(composed.config, framework)
    config = start.config
    seeds = config.seed.resolved()
    model = model_facts(config, framework, data)
    order = framework.order(data.files, model, training_facts(config), seeds["order"], store / "data" / "orders")
    phases = Phases([Phase(0, config.training.batch_size, config.training.sequence_length)])
    slots = range(phases.first_slot(config.first_step), phases.first_slot(config.last_step))
    if config.training.permute_window:
        order = WindowOrder(order, slots.start, slots.stop, seeds["order"])
    initial = start.initial(framework, model)
    model |= {"revision": initial["revision"]} if initial["kind"] == "hf" else {}
    wrong = framework.check_data(model, data.tokenizer.vocab_size, config.training.sequence_length)
    if wrong:
        raise Problems(wrong, "model and data do not fit each other")
    readable = planning_order(composed.kinds.data, data, order, slots, store)
    contexts = insertion_contexts(composed, data, readable, phases, seeds)
    plans = compile_plans(composed, data, readable, phases, seeds, contexts)
    refuse_unknown_hooks(plans, framework, training_facts(config))
    treated = plans.get("treated")
    findings: Sequence[dict[str, str]] = ()
    if config.scan_holdouts and treated is not None:
        findings = scanned_holdouts(treated, readable, slots, data.files.eos_token_id, store / "data" / "scans")
    facts = run_facts(config, framework, data, order, initial, seeds)
    steps = frozenset(
        {config.last_step, *checkpoint_steps(config), *config.evaluation.steps, *(config.hub.steps or ())}
    )
    if config.evaluation.on_load:
        steps |= {config.first_step}
    first_edits = [plan.first_step for plan in plans.values() if plan is not None]
    steps |= cut_steps(first_edits, config.first_step, config.last_step) if "control" in plans else frozenset()
    runs = {}
    for arm, plan in plans.items():
        name = " ".join(part for part in (arm, label, f"seed {seed}") if part)
        job = worker_job(config, framework, data, order, phases, initial, seeds, plan)
        runs[arm] = Run(name, base_key(facts), config.first_step, steps, prefix_of(plan), job)
    kinds = loops_of(composed.kinds.insertions)
    if kinds and treated is not None:
        runs = closed(runs, kinds, contexts, config, treated)
    if config.export_plan is not None and treated is not None:
        export_table(treated, config.export_plan, tokenizer_fingerprint=data.tokenizer.fingerprint)
    return Member(composed, label, seed, data, order, phases, seeds, initial, plans, runs, findings, start.needed)


def prepared_data(composed: Composed, store: Path) -> PreparedData:
    """Tokenizer and token files. Where they cannot be had, a checkpoint that cannot be reached is said as well."""
    config = composed.config
    try:
        return prepare_data(composed.kinds.data, config.model.tokenizer, store / "data")
    except (UserError, Problems) as error:
        found = error.problems if isinstance(error, Problems) else [error]
        raise Problems([*found, *unreachable_checkpoint(config)]) from None


def insertion_contexts(
    composed: Composed, data: PreparedData, order: DataOrder, phases: Phases, seeds: dict[str, int]
) -> dict[str, InsertionContext]:
    """What each insertion may know of the run, by name."""
    config = composed.config
    return {
        name: InsertionContext(
            name=name,
            seed=seeds["placement"],
            sequence_length=config.training.sequence_length,
            eos_token_id=data.files.eos_token_id,
            window=Window(config.first_step, config.last_step),
            phases=phases,
            encode=data.tokenizer.encode,
            vocab_size=data.tokenizer.vocab_size,
            order=order,
            cache=Path(config.store).absolute() / "data" / "scans",
        )
        for name in composed.kinds.insertions
    }


def compile_plans(
    composed: Composed,
    data: PreparedData,
    order: DataOrder,
    phases: Phases,
    seeds: dict[str, int],
    contexts: Mapping[str, InsertionContext],
) -> dict[str, Plan | None]:
    """A plan for each arm, as far as it is known before training. All insertions' problems are reported at once."""
    config = composed.config
    root = Path(config.store).absolute() / "plans"
    window = Window(config.first_step, config.last_step)
    edits, problems = [], []
    for name, insertion in composed.kinds.insertions.items():
        try:
            edits.append(asked_edits(insertion, contexts[name]))
        except UserError as error:
            problems.append(error if (error.key or "").startswith("insertion.") else error.under(f"insertion.{name}"))
    if config.replay is not None:
        try:
            tokenizer = data.tokenizer
            edits += load_table(
                config.replay, tokenizer.encode, fingerprint=tokenizer.fingerprint, vocab_size=tokenizer.vocab_size
            )
        except UserError as error:
            problems.append(error.under("replay"))
    if problems:
        raise Problems(problems, "the edits cannot be planned")
    plans: dict[str, Plan | None] = {}
    if edits:
        eos = data.files.eos_token_id
        treated = plans["treated"] = compile_plan(
            edits, phases, window, seeds["placement"], "treated", root, order=order, eos_token_id=eos
        )
        demands = [loop.demand(contexts[name]) for name, loop in loops_of(composed.kinds.insertions).items()]
        check_room(demands, treated)
        if demands and config.arms.placebo:
            check_placebo_room(treated, order.num_sequences, items_to_come(demands))
    if config.arms.control or not edits:
        plans["control"] = None
    if config.arms.placebo and edits:
        plans["placebo"] = placebo_plan(treated, order.num_sequences, root)
    if config.arms.each and edits:
        plans |= single_plans(treated, composed.kinds.insertions, root)
    for plan in plans.values():
        if plan is not None:
            refuse_failed_audit(plan)
    return plans


def single_plans(treated: Plan, insertions: Mapping[str, Any], root: Path) -> dict[str, Plan]:
    """A plan only_<insertion> for each insertion of the treated arm, with the edits of it alone.

    UserError where a closed loop plans edits that are not known yet, or a name cannot be one of an arm.
    """
    loops = sorted(loops_of(insertions))
    if loops:
        fix = "leave it out; its own study is one arm against the control"
        raise UserError("what a closed loop plants is not known beforehand", key="arms.each", value=loops[0], fix=fix)
    names = acting_insertions(treated)
    for name in names:
        if not re.fullmatch(r"[\w.-]+", name):
            fix = "rename the experiment in the table: letters, digits, '_', '-' and '.'"
            raise UserError("this name cannot be part of an arm's", key="arms.each", value=name, fix=fix)
    return {f"only_{name}": restricted_plan(treated, [name], root, f"only_{name}") for name in names}


def refuse_unknown_hooks(plans: Mapping[str, Plan | None], framework: Framework, training: dict[str, Any]) -> None:
    """UserError where a plan asks for a training hook that the framework's worker cannot put into effect."""
    kinds = {hook["kind"] for plan in plans.values() if plan is not None for hook in plan.hooks}
    for error in framework.check_hooks(kinds, training):
        raise error


def prefix_of(plan: Plan | None) -> Any:
    """step -> digest of what the plan does before that step."""
    return (lambda step: "") if plan is None else plan.prefix_digest
