"""The placebo of a plan: the same spans, filled with text of the stream that the run does not read.

A compiled plan in, a plan of `base` operations out: what planting anything at these places does. What is no text has no
placebo: noise and training hooks are refused.

    item a    |0 1 2 3 4 5 6|    one span of unread text, whatever its copies; of an item longer than a sequence one for
    copy 0         |0 1 2 3 4 5 6|       each sequence's length of it
    copy 1         |0 1 2||3 4 5 6|      crosses the end of a sequence: the same text in two pieces
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
from pretrain_exp.plan.stretches import stretches
from pretrain_exp.plan.unseen import unread_spans

_WAY_OUT = ", or set arms.placebo=false"
Lengths = Mapping[tuple[str, str], int]  # tokens of each text by insertion and item


def placebo_plan(plan: Plan, num_sequences: int, root: Path | str, arm: str = "placebo") -> Plan:
    """The same spans as `plan`, filled with text of the stream that the run does not read: what planting alone does.

    num_sequences: sequences of one epoch of the data order. Each item stands for one span of unread text, drawn by
    hash from the epoch that the window lies in: from the slots after the window or, where they hold too little, from
    those before it. Its copies repeat it, so doses are the items'. UserError where the epoch has no such room, or the
    window reaches into another epoch; and for a plan with edits that put no text in the place of another: noise and
    hooks, and sequences of the data (`base`), whose replacement by others of the data is what a placebo would be. An
    edit over several sequences becomes a ledger row for each, or for less where it goes on in another of the sources.
    """
    _refuse_what_has_none(plan)
    phases, window = plan.phases, plan.window
    ledger = planted(plan.ledger())
    position, length = ledger["position"].to_numpy(), ledger["length"].to_numpy().astype(np.int64)
    lengths, which = _texts_of(ledger)
    sources = _Sources.of(lengths, num_sequences, phases, window, plan.seed)
    pieces = _cut(split_at_sequences(position, length, phases), sources.size)
    rows = ledger.take(pa.array(pieces.row))
    source_slot, source_column = sources.of_pieces(which[pieces.row], pieces)
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
    items = plan.stored_items()
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


def check_placebo_room(plan: Plan, num_sequences: int, to_come: Lengths | None = None) -> None:
    """UserError where there is no unread text for a placebo of the plan, once texts `to_come` are planted as well."""
    _refuse_what_has_none(plan)
    lengths = {**(to_come or {}), **_texts_of(planted(plan.ledger()))[0]}
    _Sources.of(lengths, num_sequences, plan.phases, plan.window, plan.seed)


def _texts_of(rows: pa.Table) -> tuple[dict[tuple[str, str], int], np.ndarray]:
    """The length of each text that is planted, and which of them each row is."""
    (insertion, names), (item, ids) = codes(rows["insertion"]), codes(rows["item"])
    pairs, which = np.unique(np.stack([insertion, item]), axis=1, return_inverse=True)
    length = np.zeros(pairs.shape[1], dtype=np.int64)
    length[which.reshape(-1)] = rows["length"].to_numpy()  # the same for all copies
    found = [(names[a], ids[b]) for a, b in pairs.T.tolist()]
    return dict(zip(found, length.tolist(), strict=True)), which.reshape(-1)


def _cut(pieces: Pieces, size: int) -> Pieces:
    """The pieces, cut once more wherever their offset is a multiple of `size`; by row and offset, as they were."""
    parts = []
    while len(pieces.row):
        room = size - pieces.offset % size
        head = np.minimum(pieces.length, room)
        parts.append(np.stack([pieces.row, pieces.slot, pieces.column, head, pieces.offset]))
        rest = pieces.length > head
        moved = pieces.column + head, pieces.length - head, pieces.offset + head
        pieces = Pieces(pieces.row, pieces.slot, *moved).take(rest)
    if not parts:
        return pieces
    found = np.concatenate(parts, axis=1)
    return Pieces(*found[:, np.lexsort((found[4], found[0]))])


@dataclass(frozen=True)
class _Sources:
    """Where the text for each item comes from: one span for every `size` tokens of it, in a sequence each.

    first: the first span of each text, in the order of its lengths; slot, column: where each span begins.
    """

    size: int
    first: np.ndarray
    slot: np.ndarray
    column: np.ndarray

    @classmethod
    def of(cls, lengths: Lengths, num_sequences: int, phases: Phases, window: Window, seed: int) -> _Sources:
        """Drawn from what is unread after the window or, where the texts find no place in it, before it."""
        spans = unread_spans(
            phases, window, num_sequences, sum(lengths.values()), "the placebo", "arms.placebo", before=True,
            way_out=_WAY_OUT,
        )  # fmt: skip
        full = ""
        for span in spans:
            try:
                return cls._in_span(span, lengths, phases, window, seed)
            except UserError as error:
                full = full or error.problem
        problem = f"the texts of the placebo find no place in what the run does not read: {full}"
        fix = f"train fewer steps or give more data{_WAY_OUT}"
        raise UserError(problem, key="arms.placebo", value=True, fix=fix)

    @classmethod
    def _in_span(cls, span: tuple[int, int], lengths: Lengths, phases: Phases, window: Window, seed: int) -> _Sources:
        size = stretches(span, phases).longest
        blank = np.zeros(size, dtype=np.uint32)  # only lengths matter
        units = [
            EditItem(f"{insertion}/{item}/{offset}+{min(size, length - offset)}", blank[: length - offset], dose=1)
            for (insertion, item), length in lengths.items()
            for offset in range(0, length, size)
        ]
        n = np.arange(len(units), dtype=np.int32)
        ask = Edits("placebo", units, n, np.zeros_like(n), "random", span, on_full="pack")
        found = place([ask], phases, window, seed).positions[0]
        counts = np.array([-(-length // size) for length in lengths.values()], dtype=np.int64)
        return cls(size, np.cumsum(counts) - counts, *phases.locate(found))

    def of_pieces(self, text: np.ndarray, pieces: Pieces) -> tuple[np.ndarray, np.ndarray]:
        """Slot and column of the text for each piece; text: the index of each one's."""
        span, inside = np.divmod(pieces.offset, self.size)
        span += self.first[text]
        return self.slot[span], self.column[span] + inside
