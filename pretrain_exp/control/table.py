"""Target against achieved: the records of the loops of a study in, one table out.

One row a loop and boundary, the end included: what the controller was to reach, what the model gave, what was then
planted in the segment that follows (nothing after the end).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pretrain_exp.control.loop import Loop, records

COLUMNS = ("member", "seed", "insertion", "step", "target", "achieved", "texts", "copies", "tokens", "plan", "state")


def control_rows(store: Path, members: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of all loops. members: their member.json."""
    rows = []
    for member in members:
        told = member["arms"].get("treated", {}).get("loop")
        for record in records(store, Loop.from_json(told)) if told else ():
            for name, seen in record["insertions"].items():
                where = {"member": member["label"], "seed": member["seed"], "insertion": name, "step": record["step"]}
                planted = {column: seen.get(column) for column in ("texts", "copies", "tokens")}
                reached = {"target": seen["target"], "achieved": seen["value"]}
                rows.append({**where, **reached, **planted, "plan": record["plan"], "state": record["state"]})
    return rows


def write_control(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the rows as CSV; what is not known is empty."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def control_metrics(store: Path, arm: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a tracker gets of an arm: a row a boundary, control/<insertion>/<name>; nothing where no loop plans it."""
    told = arm.get("loop") or {}
    for record in records(store, Loop.from_json(told)) if told.get("role") == "treated" else ():
        row: dict[str, Any] = {"step": record["step"]}
        for name, seen in record["insertions"].items():
            found = {"target": seen["target"], "achieved": seen["value"], "texts": seen.get("texts"), **seen["numbers"]}
            row |= {f"control/{name}/{key}": value for key, value in found.items() if value is not None}
        yield row
