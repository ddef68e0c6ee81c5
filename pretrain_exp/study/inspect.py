"""`pretrain-exp inspect`: what an arm read at a step, decoded, the edits in colour, and who put them there.

record of the member --order--> rows before edits, their documents --+--> text, edits in colour
                     --plan---> ledger and overlay ------------------+    who, which item and copy, what was done
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from pretrain_exp.data.order import DataOrder, order_from_json
from pretrain_exp.data.pack import origin
from pretrain_exp.data.phases import Phases
from pretrain_exp.data.tokenizer import Tokenizer, load
from pretrain_exp.errors import UserError
from pretrain_exp.plan.audit import CHECKS
from pretrain_exp.plan.folder import Plan
from pretrain_exp.study.registry import read_members, read_study

COLOURS = ("bold red", "bold green", "bold magenta", "bold yellow", "bold cyan", "bold blue")


def print_rows(folder: Path, member: int, arm: str, step: int, row: int | None, console: Console | None = None) -> None:
    """Prints the rows of a batch; all that were edited, or the one asked for. UserError for what is not there."""
    console = console or Console()
    record, whose = _member(folder, member)
    if arm not in record["arms"]:
        raise UserError("no such arm", key="--arm", value=arm, fix=f"arms: {', '.join(record['arms'])}")
    first, last = record["first_step"], record["last_step"]
    if not first <= step < last:
        raise UserError(f"the run reads at steps {first} to {last - 1}", key="--step", value=step)
    phases, order = Phases.from_json(record["phases"]), order_from_json(record["order"])
    slots = phases.slots(step)
    if row is not None and not 0 <= row < len(slots):
        raise UserError(f"the batch has rows 0 to {len(slots) - 1}", key="--row", value=row)
    plan = Plan.open(record["arms"][arm]["plan"]) if record["arms"][arm]["plan"] else None
    edits = _edits_of(plan, slots)
    rows = [row] if row is not None else sorted(edits)
    tokenizer = load(Path(record["tokenizer"]))
    head = f"step {step}, {arm} arm{whose}: {len(slots)} rows, {len(edits)} of them edited"
    console.print(Text(head, style="bold"), soft_wrap=True)
    for hook in _hooks_of(plan, step):
        what = f"hook: {hook['kind']}, sigma {hook['sigma']:g}, on this step's gradient, by {_who(hook)}"
        console.print(Text(what, style="bold"), soft_wrap=True)
    if plan is not None:
        verdict = "passed" if plan.audit["ok"] else "failed"
        said = f"plan {plan.fingerprint[:16]}: its audit {verdict} (checked: {CHECKS})"
        console.print(Text(said, style="dim"), soft_wrap=True)
    if not rows:
        console.print("no row of this batch was edited; --row R shows one", style="dim")
    for one in rows:
        _print_row(console, tokenizer, order, plan, slots[one], one, edits.get(one, []))


def _member(folder: Path, index: int) -> tuple[dict[str, Any], str]:
    """The record of a member and, where there are several, which it is. UserError where there is none of the number."""
    members = read_members(read_study(folder))
    if not 0 <= index < len(members):
        raise UserError(f"the study has members 0 to {len(members) - 1}", key="--member", value=index)
    record = members[index]
    if len(members) == 1:
        return record, ""
    what = ", ".join(part for part in (record["label"], f"seed {record['seed']}") if part)
    return record, f" of member {index} of {len(members)} ({what}; --member 0 to {len(members) - 1} chooses)"


def _edits_of(plan: Plan | None, slots: range) -> dict[int, list[dict[str, Any]]]:
    """Row -> the ledger's entries that touch it, by column; an edit over two sequences appears in both."""
    if plan is None:
        return {}
    import pyarrow.compute as pc

    first, last = plan.phases.position(np.array([slots.start, slots.stop]), np.array([0, 0]))
    ledger = plan.ledger()
    ends = pc.add(ledger["position"], pc.cast(ledger["length"], "int64"))
    inside = pc.and_(pc.less(ledger["position"], int(last)), pc.greater(ends, int(first)))
    found: dict[int, list[dict[str, Any]]] = {}
    for entry in ledger.filter(pc.and_(inside, pc.equal(ledger["status"], "planted"))).sort_by("position").to_pylist():
        span = np.array([max(entry["position"], first), min(entry["position"] + entry["length"], last) - 1])
        touched, columns = plan.phases.locate(span)
        for slot in range(int(touched[0]), int(touched[1]) + 1):
            begin = int(columns[0]) if slot == touched[0] else 0
            end = int(columns[1]) + 1 if slot == touched[1] else plan.meta["sequence_length"]
            found.setdefault(slot - slots.start, []).append({**entry, "begin": begin, "end": end})
    return found


def _hooks_of(plan: Plan | None, step: int) -> list[dict[str, Any]]:
    """The ledger's entries of training hooks that act at the step."""
    if plan is None:
        return []
    import pyarrow.compute as pc

    ledger = plan.ledger()
    return ledger.filter(pc.and_(pc.equal(ledger["status"], "hook"), pc.equal(ledger["step"], step))).to_pylist()


def _who(entry: dict[str, Any]) -> str:
    return f"{entry['insertion']}, item {entry['item']}, copy {entry['copy'] + 1} of {entry['dose']}"


def _documents(order: DataOrder, slot: int, tokens: np.ndarray) -> list[str]:
    """What a row was before any edit: a line for each document in it, or part of one."""
    ends = np.flatnonzero(tokens == order.files.eos_token_id) + 1
    edges = sorted({0, *ends.tolist(), len(tokens)})
    return [f"  columns {begin}-{end - 1}: {_document(order, slot, begin)}" for begin, end in pairwise(edges)]


def _document(order: DataOrder, slot: int, column: int) -> str:
    """Where the document lies that holds this token, as far as that is known."""
    source = order.source(slot, column)
    place = f"{source.file_name} at token {source.offset_in_file:,}"
    if source.document_index is None:
        return place
    found = origin(order.files, source.document_index)
    where = "" if found is None else f" = record {found[1]} of {found[0]}, {found[2]}"
    since = f", from its token {source.offset_in_document:,} on" if source.offset_in_document else ""
    return f"document {source.document_index}{where}{since}"


def _print_row(
    console: Console,
    tokenizer: Tokenizer,
    order: DataOrder,
    plan: Plan | None,
    slot: int,
    row: int,
    edits: list[dict[str, Any]],
) -> None:
    base = order.read(slot)
    tokens = base if plan is None else plan.overlay.apply(slot, base, order.read)
    source = order.source(slot, 0)
    place = f"slot {slot}, {source.file_name} at token {source.offset_in_file:,}"
    console.print(Text(f"\nrow {row}  ({place})", style="bold"), soft_wrap=True)
    for line in _documents(order, slot, base):
        console.print(Text(line, style="dim"), soft_wrap=True)
    text, at = Text(), 0
    for i, edit in enumerate(edits):
        begin, end = max(at, edit["begin"]), max(at, edit["end"])  # noise may lie over a planted text
        text.append(tokenizer.decode(tokens[at:begin]), style="dim")
        text.append(tokenizer.decode(tokens[begin:end]), style=COLOURS[i % len(COLOURS)])
        at = end
    text.append(tokenizer.decode(tokens[at:]), style="dim")
    console.print(text, soft_wrap=True)
    for i, edit in enumerate(edits):
        line = f"  columns {edit['begin']}-{edit['end'] - 1}: {_who(edit)}{_done(edit)}"
        console.print(Text(line, style=COLOURS[i % len(COLOURS)]), soft_wrap=True)


def _done(edit: dict[str, Any]) -> str:
    """What an edit does other than to plant its item's tokens."""
    if edit["kind"] == "base":
        return f": text of slot {edit['source_slot']}, column {edit['source_column']}"
    if edit["kind"] == "noise":
        return f": noise of sigma {edit['sigma']:g} on these embeddings"
    return ""
