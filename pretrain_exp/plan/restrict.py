"""A plan cut down to some of its insertions: the same edits at the same places, and nothing of the others.

    plan        |--a---b------a--c----b-|
    only a      |--a----------a---------|      what training on one experiment alone does, held against all together

A compiled plan in, a plan of its own fingerprint out. What insertions share (places that one left to another, unseen
sequences) was settled when the plan was compiled, so nothing moves.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pretrain_exp.plan.audit import audit_plan
from pretrain_exp.plan.folder import Plan, plan_header, write_plan
from pretrain_exp.plan.items import Items
from pretrain_exp.plan.ledger import LEDGER_SCHEMA, noise_digest, planted
from pretrain_exp.plan.overlay import COLUMNS, NOISE
from pretrain_exp.plan.overlay_writer import Ops, compacted
from pretrain_exp.plan.pieces import split_at_sequences


def acting_insertions(plan: Plan) -> list[str]:
    """The insertions that change the data or the update in this plan, by name; those that only hold out do not."""
    ledger = plan.ledger()
    acting = ledger.filter(pc.not_equal(ledger["status"], "skipped"))
    return sorted(acting["insertion"].unique().to_pylist())


def restricted_plan(plan: Plan, insertions: Collection[str], root: Path | str, arm: str) -> Plan:
    """The rows, items and hooks of these insertions, under another arm; one that is already there is opened.

    ValueError where one of the names is none of the plan's.
    """
    unknown = set(insertions) - set(plan.items()["insertion"].unique().to_pylist())
    if unknown:
        raise ValueError(f"the plan has no insertion {sorted(unknown)[0]}")
    ledger, items = _of(plan.ledger(), insertions), Items.of(_of(plan.items(), insertions))
    arms = pa.array([arm] * ledger.num_rows, pa.string())
    ledger = ledger.set_column(LEDGER_SCHEMA.get_field_index("arm"), "arm", arms)
    ops, pool = compacted(_operations(plan, ledger), plan.overlay.arrays["pool"])
    audit = audit_plan(ledger, items, plan.phases, plan.window)
    header = plan_header(plan.phases, plan.window, plan.seed, arm, _hooks(plan, ledger))
    return write_plan(Path(root), header, items, ledger, ops, pool, audit)


def _of(table: pa.Table, insertions: Collection[str]) -> pa.Table:
    return table.filter(pc.is_in(table["insertion"], pa.array(sorted(insertions), pa.string())))


def _operations(plan: Plan, ledger: pa.Table) -> Ops:
    """The operations that these rows of the ledger became."""
    rows = planted(ledger)
    pieces = split_at_sequences(rows["position"].to_numpy(), rows["length"].to_numpy().astype(np.int64), plan.phases)
    is_noise = np.asarray(pc.equal(rows["kind"], "noise"))[pieces.row] if len(rows) else np.zeros(0, bool)
    arrays = plan.overlay.arrays
    there = _places(arrays["slot"], arrays["column"], arrays["kind"] == NOISE)
    keep = np.isin(there, _places(pieces.slot, pieces.column, is_noise))
    ops = Ops(**{name: arrays[name][keep] for name in COLUMNS if name != "digest"})
    if len(ops) != len(pieces.slot):
        raise ValueError(f"{len(pieces.slot)} pieces of the ledger are {len(ops)} operations of the overlay")
    return ops


def _places(slot: np.ndarray, column: np.ndarray, is_noise: np.ndarray) -> np.ndarray:
    """(slot, column, noise or not) as one integer each: no two operations share it, and no sequence has 2^31 tokens."""
    return (np.asarray(slot, np.int64) << 32) | (np.asarray(column, np.int64) << 1) | np.asarray(is_noise, np.int64)


def _hooks(plan: Plan, ledger: pa.Table) -> list[dict]:
    """The training hooks that these rows of the ledger name, told by the digests of their steps."""
    named = set(ledger.filter(pc.equal(ledger["status"], "hook"))["digest"].to_pylist())
    return [
        hook for hook in plan.hooks if noise_digest(hook["seed"], (hook["steps"][0],), float(hook["sigma"])) in named
    ]
