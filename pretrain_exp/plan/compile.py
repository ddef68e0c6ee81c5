"""Compiles a plan: what the insertions ask for in, a plan folder (overlay, ledger, items, audit) out.

    [Edits] -> place -> rows (position, item, copy) --+--> pieces, one a sequence --> overlay
                                                      +--> ledger, items, audit
    [Hook]  ------------------------------------------+--> ledger, items, header
    unseen sequences, where an insertion asks for them (unseen.py), before the items are known

Insertions are taken by name and items by id, so that the order of a configuration or of a file changes nothing. A layer
is compiled on top of a plan (layers.py): it shares the plan's occupancy, and its result holds all rows of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pretrain_exp.data.order import DataOrder
from pretrain_exp.data.phases import Phases
from pretrain_exp.plan.absence import absence, changed, with_findings
from pretrain_exp.plan.audit import audit_plan
from pretrain_exp.plan.edits import Edits, Window
from pretrain_exp.plan.folder import Plan, plan_header, write_plan
from pretrain_exp.plan.holdouts import holdout_findings
from pretrain_exp.plan.item_table import ItemTable, canonical
from pretrain_exp.plan.layers import Below
from pretrain_exp.plan.ledger_rows import PlantedRows, hook_rows, skipped_rows
from pretrain_exp.plan.overlay_writer import Ops
from pretrain_exp.plan.placement import place
from pretrain_exp.plan.subjects import with_subjects
from pretrain_exp.plan.unseen import unseen_slots


def compile_plan(
    edits: Sequence[Edits], phases: Phases, window: Window, seed: int, arm: str, root: Path | str,
    below: Plan | None = None, order: DataOrder | None = None, eos_token_id: int | None = None,
) -> Plan:  # fmt: skip
    """Places, audits and writes a plan to root/<fingerprint>; one that is already there is opened.

    window: the steps of the run; seed: `seed.placement`; arm: the name that the ledger carries. below: a plan of the
    same run that this one goes on from: all its rows stay where they are, no edit overlaps them, and whatever of the
    plan lies before the first new edit keeps its digest. Copies of an item that it has planted are counted on, and
    doses add up. order: what the run reads, for edits, or a plan below, that say what must be absent. eos_token_id:
    what stands around texts, and is no part of a holdout item that is looked for among the others.

    UserError where the edits do not fit (placement.py), where two insertions share a name, where two items of one share
    an id, or an item differs from that of the plan below. ValueError where `below` is of another run.
    """
    under = Below.of(below, phases, window, seed, arm)
    ordered = [under.counted_on(request) for request in canonical(edits)]
    placement = place(ordered, phases, window, seed, taken=under.taken)
    sources = unseen_slots(ordered, phases, window, seed, under.sources, order)
    places = zip(ordered, placement.positions, sources, strict=True)
    ordered = [_filled_in(request, positions, slots) for request, positions, slots in places]
    table = ItemTable.of(ordered, under.pool, under.known)
    added, ledger = _laid_out(table, ordered, placement.positions, phases, seed, arm, under)
    ops = Ops.concatenate([under.ops, added])
    items = under.items_with(table.to_items())
    audit = audit_plan(ledger, items, phases, window, ordered, placement.rounds, placement.packed, below)
    absent = under.absent.and_of(ordered)
    found = absence(absent, ordered, ops, changed(added), table.pool, order)
    audit = with_findings(audit, [*found, *holdout_findings(items, eos_token_id)])
    audit = with_subjects(audit, ordered, ledger)
    header = plan_header(phases, window, seed, arm, under.hooks_with(ordered))
    if absent:
        header |= {"absent": absent.digest(ordered)}
    return write_plan(Path(root), header, items, ledger, ops, table.pool, audit, absent)


def _laid_out(
    table: ItemTable, ordered: list[Edits], positions: list[np.ndarray], phases: Phases, seed: int, arm: str,
    under: Below,
) -> tuple[Ops, pa.Table]:  # fmt: skip
    """The operations of the placed edits, and the ledger of these and of what stands below."""
    rows = PlantedRows.of(table, ordered, positions)
    ledger = under.ledger_with(
        rows.to_ledger(table, arm, seed, phases), hook_rows(table, ordered, arm, phases), skipped_rows(ordered, arm)
    )
    return rows.operations(table, phases), ledger


def _filled_in(request: Edits, positions: np.ndarray, slots: np.ndarray | None) -> Edits:
    """The request with what its places decide: sources, items. ValueError where they are other items than placed."""
    if slots is not None and request.source is None:
        request = replace(request, source=np.stack([slots[request.item], np.zeros(len(request), np.int64)], axis=1))
    if request.fill_in is None:
        return request
    items = request.fill_in(request, positions, slots)
    if [(item.id, item.group, item.dose) for item in items] != [(i.id, i.group, i.dose) for i in request.items]:
        raise ValueError(f"{request.insertion}: items change with their places in more than tokens, text and payload")
    return replace(request, items=items)
