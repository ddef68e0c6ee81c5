"""The placebo of a plan: the same spans, filled with text of the stream that the run does not read.

A compiled plan in, a plan of `base` operations out: what planting anything at these places does. What is no text has no
placebo: noise and training hooks are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pretrain_exp.data.phases import Phases
from pretrain_exp.errors import UserError
from pretrain_exp.plan.audit import audit_plan
from pretrain_exp.plan.edits import EditItem, Edits, Window
from pretrain_exp.plan.folder import Plan, plan_header, write_plan
from pretrain_exp.plan.item_table import NO_POOL
from pretrain_exp.plan.ledger import LEDGER_SCHEMA, base_digest, codes, planted
from pretrain_exp.plan.overlay_writer import Ops
from pretrain_exp.plan.pieces import Pieces, split_at_sequences
from pretrain_exp.plan.placement import place
from pretrain_exp.plan.unseen import unread_span


def placebo_plan(plan: Plan, num_sequences: int, root: Path | str, arm: str = "placebo") -> Plan:
    """The same spans as `plan`, filled with text of the stream that the run does not read: what planting alone does.

    num_sequences: sequences of one epoch of the data order. Each item stands for one span of unread text, drawn by
    hash from the epoch that the window lies in: from the slots after the window or, where they hold too little, from
    those before it. Its copies repeat it, so doses are the items'. UserError where the epoch has no such room, or the
    window reaches into another epoch; and for a plan with edits that put no text in the place of another: noise and
    hooks, and sequences of the data (`base`), whose replacement by others of the data is what a placebo would be. An
    edit over several sequences becomes a ledger row for each.
    """
    _refuse_what_has_none(plan)
    phases, window = plan.phases, plan.window
    ledger = planted(plan.ledger())
    position, length = ledger["position"].to_numpy(), ledger["length"].to_numpy().astype(np.int64)
    pieces = split_at_sequences(position, length, phases)
    rows = ledger.take(pa.array(pieces.row))
    source_slot, source_column = _sources(rows, pieces, num_sequences, phases, window, plan.seed)
    ops = Ops.base(pieces.slot, pieces.column, pieces.length, source_slot, source_column)
    step, row = phases.step_row(pieces.slot)
    digests = [base_digest(*pair) for pair in zip(source_slot.tolist(), source_column.tolist(), strict=True)]
    changed: dict[str, Any] = {
        "arm": pa.array([arm] * rows.num_rows, pa.string()),
        "position": position[pieces.row] + pieces.offset,
        "step": step,
        "row": row,
        "column": pieces.column,
        "length": pieces.length,
        "digest": pa.array(digests, pa.string()),
        "source_slot": source_slot,
        "source_column": source_column,
        "kind": pa.array(["base"] * rows.num_rows, pa.string()),
    }
    table = pa.table([changed.get(name, rows[name]) for name in LEDGER_SCHEMA.names], LEDGER_SCHEMA.names)
    skipped = plan.ledger().filter(pc.not_equal(plan.ledger()["status"], "planted"))
    renamed = skipped.set_column(
        skipped.column_names.index("arm"), "arm", pa.array([arm] * skipped.num_rows, pa.string())
    )
    table = pa.concat_tables([table.cast(LEDGER_SCHEMA), renamed.select(LEDGER_SCHEMA.names).cast(LEDGER_SCHEMA)])
    items = plan.items()
    audit = audit_plan(table, items, phases, window)
    return write_plan(Path(root), plan_header(phases, window, plan.seed, arm), items, table, ops, NO_POOL, audit)


def _refuse_what_has_none(plan: Plan) -> None:
    reasons = {
        "base": "puts other sequences of the data in their places, which is what a placebo does",
        "noise": "adds noise to embeddings and puts no text in the place of another",
        "gradient_noise": "adds noise to gradients and puts no text in the place of another",
    }
    ledger = plan.ledger()
    (kind, kinds), (insertion, names) = codes(ledger["kind"]), codes(ledger["insertion"])
    for pair in np.unique(np.stack([kind, insertion]), axis=1).T.tolist() if len(ledger) else []:
        if kinds[pair[0]] in reasons:
            raise UserError(
                f"insertion {names[pair[1]]} has no placebo: it {reasons[kinds[pair[0]]]}",
                key="arms.placebo",
                value=True,
                fix="set arms.placebo=false; the control is what it is held against",
            )


def _sources(
    rows: pa.Table, pieces: Pieces, num_sequences: int, phases: Phases, window: Window, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where the text for each piece comes from: slot and column. Copies of one item share it."""
    insertion, names = codes(rows["insertion"])
    item, ids = codes(rows["item"])
    keys = np.stack([insertion, item, pieces.offset, pieces.length])
    distinct, which = np.unique(keys, axis=1, return_inverse=True)
    unread = unread_span(
        phases, window, num_sequences, int(distinct[3].sum()), "the placebo", "arms.placebo", before=True,
        way_out=", or set arms.placebo=false",
    )  # fmt: skip
    # an id of its own for each piece; lengths matter, so tokens of that length stand in
    units = [
        EditItem(f"{names[a]}/{ids[b]}/{offset}+{length}", np.zeros(length, dtype=np.uint32), dose=1)
        for a, b, offset, length in distinct.T.tolist()
    ]
    n = np.arange(len(units), dtype=np.int32)
    ask = Edits("placebo", units, n, np.zeros_like(n), "random", unread, on_full="pack")
    found = place([ask], phases, window, seed).positions[0]
    slot, column = phases.locate(found[which.reshape(-1)])
    return slot, column
