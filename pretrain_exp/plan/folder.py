"""A plan on disk: immutable, in a folder named by its fingerprint, that appears whole or not at all.

    <root>/<fingerprint>/   meta.json   overlay/   ledger.parquet   items.parquet   audit.json   [absent.parquet]

In: ready tables from compile.py. Out: `Plan`, which opens what is asked of it when it is asked.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pretrain_exp.data.phases import Phases
from pretrain_exp.errors import Problems, UserError
from pretrain_exp.plan.absence import Absent
from pretrain_exp.plan.edits import Window
from pretrain_exp.plan.items import Items, write_items
from pretrain_exp.plan.ledger import ITEMS_SCHEMA, read_items, read_ledger, write_table
from pretrain_exp.plan.overlay import Overlay
from pretrain_exp.plan.overlay_writer import Ops, write_overlay
from pretrain_exp.plan.pool import Pool
from pretrain_exp.store.publish import beside, publish
from pretrain_exp.store.states import write_json

SCHEMA = 2


@dataclass(frozen=True)
class Plan:
    """An opened plan. fingerprint: 32 hex digits of all that it does and holds, never of paths, times or order."""

    folder: Path
    fingerprint: str
    meta: dict[str, Any]

    @classmethod
    def open(cls, folder: Path | str) -> Plan:
        """Opens a plan folder; UserError where there is none or its schema is another."""
        folder = Path(folder)
        try:
            meta = json.loads((folder / "meta.json").read_text())
        except FileNotFoundError:
            raise UserError(
                "there is no plan in this folder", value=str(folder), fix="compile it: pretrain-exp plan"
            ) from None
        if meta.get("schema") != SCHEMA:
            raise UserError(
                f"the plan has schema {meta.get('schema')}, this version reads schema {SCHEMA}",
                value=str(folder),
                fix="compile it again: pretrain-exp plan",
            )
        return cls(folder, meta["fingerprint"], meta)

    @cached_property
    def overlay(self) -> Overlay:
        """What the workers map."""
        return Overlay.open(self.folder / "overlay")

    @cached_property
    def audit(self) -> dict[str, Any]:
        """What audit.py found when the plan was compiled."""
        return json.loads((self.folder / "audit.json").read_text())

    def ledger(self) -> pa.Table:
        """One row a copy; see ledger.py."""
        return read_ledger(self.folder / "ledger.parquet")

    def items(self) -> pa.Table:
        """One row an item; see ledger.py."""
        return read_items(self.folder / "items.parquet")

    def stored_items(self) -> Items:
        """The same in batches: for what goes through the tokens of all."""
        return Items.stored(self.folder / "items.parquet")

    @property
    def phases(self) -> Phases:
        return Phases.from_json(self.meta["phases"])

    @property
    def window(self) -> Window:
        return Window(*self.meta["window"])

    @property
    def seed(self) -> int:
        return self.meta["seed"]

    @property
    def arm(self) -> str:
        return self.meta["arm"]

    @property
    def first_slot(self) -> int | None:
        """The first slot that is changed; None in a plan without edits."""
        return self.overlay.first_slot()

    @property
    def last_slot(self) -> int | None:
        """The last slot that is changed; None in a plan without edits."""
        return self.overlay.last_slot()

    @property
    def hooks(self) -> list[dict[str, Any]]:
        """The training hooks, as a worker's job takes them: {kind, steps, sigma, seed} each."""
        return self.meta.get("hooks", [])

    @property
    def first_step(self) -> int | None:
        """The first step that reads a changed slot or has a hook: a treated run is the control's before it."""
        slot = self.first_slot
        steps = [step for hook in self.hooks for step in hook["steps"]]
        if slot is not None:
            steps.append(int(self.phases.step_row(np.array([slot]))[0][0]))
        return min(steps, default=None)

    def prefix_digest(self, step: int) -> str:
        """32 hex digits of all that the plan does before `step`, to the data and to the update; "" for nothing.

        Equal for two plans that do the same before it, whatever follows.
        """
        edits = self.overlay.prefix_digest(self.phases.first_slot(step))
        acting = sorted(
            (each, hook["kind"], hook["sigma"], hook["seed"])
            for hook in self.hooks
            for each in hook["steps"]
            if each < step
        )
        return blake2b(json.dumps([edits, acting]).encode(), digest_size=16).hexdigest() if acting else edits


def refuse_failed_audit(plan: Plan) -> None:
    """Raises Problems with what the audit found wrong: a plan that is not what was asked for is never trained."""
    if not plan.audit["ok"]:
        found = [finding for finding in plan.audit["findings"] if finding["level"] == "error"]
        problems = [UserError(finding["message"], key=f"plan.{finding['check']}") for finding in found]
        raise Problems(problems, f"the plan failed its audit ({plan.folder / 'audit.json'})")


def fingerprint(header: dict[str, Any], items: Items, ledger: pa.Table) -> str:
    """32 hex digits over the header and every value of both tables, which come in their canonical order."""
    digest = blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16)
    for name in ITEMS_SCHEMA.names:
        digest.update(f"|{name}:{items.num_rows}|".encode())
        _hash_column(digest, partial(_parts, items, name))
    for name in ledger.column_names:
        digest.update(f"|{name}:{ledger.num_rows}|".encode())
        _hash_column(digest, partial(iter, ledger[name].chunks))
    return digest.hexdigest()


def _parts(items: Items, name: str) -> Iterator[pa.Array]:
    for batch in items.batches(name):
        yield from batch[name].chunks


def _hash_column(digest: blake2b, parts: Callable[[], Iterator[pa.Array]]) -> None:
    """The lengths of all texts or lists, then all values in a row: however the column is cut into parts."""
    for part in parts():
        if pa.types.is_list(part.type) or pa.types.is_string(part.type):
            measured = pc.list_value_length(part) if pa.types.is_list(part.type) else pc.binary_length(part)
            digest.update(np.asarray(measured).astype("<i8").data)
    for part in parts():
        if pa.types.is_string(part.type):
            offsets = np.frombuffer(part.buffers()[1], dtype="<i4")[part.offset :][: len(part) + 1]
            if len(part) and offsets[-1] > offsets[0]:
                digest.update(memoryview(part.buffers()[2])[offsets[0] : offsets[-1]])
        else:
            values = part.flatten() if pa.types.is_list(part.type) else part
            digest.update(np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).data)


def plan_header(
    phases: Phases, window: Window, seed: int, arm: str, hooks: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """The header of a plan: what write_plan takes. `hooks` is there only where there are any."""
    longest = max(row[2] for row in phases.to_json())
    shape = {"sequence_length": longest, "phases": phases.to_json(), "window": [window.first_step, window.last_step]}
    header = {"schema": SCHEMA, **shape, "seed": seed, "arm": arm}
    return header | {"hooks": list(hooks)} if hooks else header


def write_plan(
    root: Path, header: dict[str, Any], items: Items, ledger: pa.Table, ops: Ops, pool: np.ndarray | Pool, audit: dict,
    absent: Absent | None = None,
) -> Plan:  # fmt: skip
    """Writes a plan under `root`, or opens it where it already is.

    header: of plan_header, as meta.json holds it beside the fingerprint. absent: what no layer on top may plant.
    """
    name = fingerprint(header, items, ledger)
    folder = Path(root) / name
    if (folder / "meta.json").is_file():
        if audit != json.loads((folder / "audit.json").read_text()):  # what was asked for now may demand more or less
            write_json(folder / "audit.json", audit)
        return Plan.open(folder)
    staging = beside(folder)
    staging.mkdir(parents=True)
    try:
        write_overlay(staging / "overlay", ops, pool, header["sequence_length"], header["seed"])
        write_table(ledger, staging / "ledger.parquet")
        write_items(items, staging / "items.parquet")
        write_json(staging / "audit.json", audit)
        if absent:
            absent.write(staging)
        write_json(staging / "meta.json", {**header, "fingerprint": name})
        publish(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Plan.open(folder)
