"""A plan to build on: its rows, items, operations and hooks in, those of plan and layer together out.

plan below    |--a---b----|              its places are taken, its copies counted, its pool shared
layer                     |--c--a'--|    copies of an item that both plant are numbered on
together      |--a---b------c--a'--|     one plan; before the layer its operations are those of the plan below
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pretrain_exp.data.phases import Phases
from pretrain_exp.errors import UserError
from pretrain_exp.plan.absence import Absent
from pretrain_exp.plan.edits import Edits, Window
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.item_table import NO_POOL, NO_RUNS, Known
from pretrain_exp.plan.items import Items
from pretrain_exp.plan.ledger import ITEMS_SCHEMA, LEDGER_SCHEMA, planted
from pretrain_exp.plan.overlay import COLUMNS, TOKENS
from pretrain_exp.plan.overlay_writer import Ops

_STATUS = {"planted": 0, "hook": 1, "skipped": 2}


@dataclass(frozen=True)
class Below:
    """What stands already. taken: sorted starts and stops; known: digests and offsets of the runs in the pool.

    copies: numbers given to copies of (insertion, item) so far; sources: slots that its base rows take text from;
    absent: what must be read in no layer on top either.
    """

    ledger: pa.Table
    items: pa.Table
    ops: Ops
    pool: np.ndarray
    known: Known
    taken: tuple[np.ndarray, np.ndarray]
    copies: Counter[tuple[str, str]]
    hooks: list[dict[str, Any]]
    sources: np.ndarray
    absent: Absent

    @classmethod
    def of(cls, plan: Plan | None, phases: Phases, window: Window, seed: int, arm: str) -> Below:
        """ValueError where the plan is of another run than what is to be compiled."""
        if plan is None:
            none = np.zeros(0, dtype=np.int64)
            empty = LEDGER_SCHEMA.empty_table(), ITEMS_SCHEMA.empty_table()
            return cls(*empty, Ops.none(), NO_POOL, NO_RUNS, (none, none), Counter(), [], none, Absent())
        inside = window.first_step <= plan.window.first_step and plan.window.last_step <= window.last_step
        if plan.phases != phases or (plan.seed, plan.arm) != (seed, arm) or not inside:
            raise ValueError(f"the plan below is of arm {plan.arm}, seed {plan.seed}, {plan.window}: another run")
        arrays = plan.overlay.arrays
        ops = Ops(**{name: arrays[name] for name in COLUMNS if name != "digest"})
        runs = np.flatnonzero(ops.kind == TOKENS)
        ledger = plan.ledger()
        copies: Counter[tuple[str, str]] = Counter()
        names = ledger["insertion"].to_pylist(), ledger["item"].to_pylist(), ledger["copy"].to_pylist()
        for insertion, item, copy in zip(*names, strict=True):
            copies[insertion, item] = max(copies[insertion, item], copy + 1)
        rows = planted(ledger)
        start = rows["position"].to_numpy()
        taken = start, start + rows["length"].to_numpy()
        known = arrays["digest"][runs], ops.ref[runs]
        pool = np.asarray(arrays["pool"])
        sources = rows["source_slot"].to_numpy()
        sources = np.unique(sources[sources >= 0])
        absent = Absent.stored(plan.folder)
        return cls(ledger, plan.items(), ops, pool, known, taken, copies, list(plan.hooks), sources, absent)

    def counted_on(self, request: Edits) -> Edits:
        """The request with its copies numbered after those that are there: so they draw places of their own."""
        if not self.copies:
            return request
        first = np.array([self.copies[request.insertion, item.id] for item in request.items], dtype=np.int32)
        index = {item.id: first[i] for i, item in enumerate(request.items)}
        return replace(
            request,
            copy=request.copy + first[request.item] if len(request) else request.copy,
            skipped=[replace(each, copy=each.copy + int(index[each.item])) for each in request.skipped],
            hooks=tuple(replace(hook, first_copy=int(index[hook.item])) for hook in request.hooks),
        )

    def items_with(self, items: Items) -> Items:
        """The items of both, by insertion and id; one that both hold has the sum of its doses.

        UserError where it holds other tokens, or is of another group or payload, than before.
        """
        if not len(self.items):
            return items
        of_both = pc.is_in(self.items["insertion"], items.columns("insertion")["insertion"].unique())
        merged = {(row["insertion"], row["item"]): row for row in self.items.filter(of_both).to_pylist()}
        for row in (row for batch in items.batches() for row in batch.to_pylist()):
            name = row["insertion"], row["item"]
            before = merged.setdefault(name, row)
            if before is row:
                continue
            other = [key for key in row if key != "dose" and row[key] != before[key]]
            if other:
                raise UserError(
                    f"item {row['item']} differs in {' and '.join(other)} from the item of this name in the plan",
                    key=f"insertion.{row['insertion']}",
                    fix="give it a name of its own",
                )
            before["dose"] += row["dose"]
        table = pa.Table.from_pylist([merged[name] for name in sorted(merged)], ITEMS_SCHEMA)
        parts = [self.items.filter(pc.invert(of_both)), table]  # those of an insertion are all in one of the two
        names = sorted({name for part in parts for name in part["insertion"].unique().to_pylist()})
        by_name = [part.filter(pc.equal(part["insertion"], name)) for name in names for part in parts]
        return Items.of(pa.concat_tables(by_name))

    def ledger_with(self, *parts: pa.Table) -> pa.Table:
        """The rows of both: edits by position, then hooks by step, then skipped copies; doses are those of both."""
        table = pa.concat_tables([self.ledger, *parts])
        if not len(self.ledger):
            return table
        rank = np.array([_STATUS[status] for status in table["status"].to_pylist()])
        table = table.take(pa.array(np.lexsort((table["position"].to_numpy(), rank))))
        total = self._doses(parts)
        names = zip(table["insertion"].to_pylist(), table["item"].to_pylist(), strict=True)
        doses = pa.array([total[name] for name in names], pa.int32())
        return table.set_column(LEDGER_SCHEMA.get_field_index("dose"), "dose", doses)

    def _doses(self, parts: tuple[pa.Table, ...]) -> Counter[tuple[str, str]]:
        """The doses of the items that any row names: those of the plan below and those of the layer."""
        total: Counter[tuple[str, str]] = Counter()
        for tables in ([self.items], parts):
            found: dict[tuple[str, str], int] = {}
            for table in tables:
                columns = (table[name].to_pylist() for name in ("insertion", "item", "dose"))
                found |= {(insertion, item): dose for insertion, item, dose in zip(*columns, strict=True)}
            total.update(found)
        return total

    def hooks_with(self, ordered: list[Edits]) -> list[dict[str, Any]]:
        """The training hooks of both, as the header of a plan and the job of a worker hold them."""
        added = [
            {"kind": hook.kind, "steps": list(hook.steps), "sigma": hook.sigma, "seed": hook.seed}
            for request in ordered
            for hook in request.hooks
        ]
        return self.hooks + added
