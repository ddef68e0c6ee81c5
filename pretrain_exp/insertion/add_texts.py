"""add_texts: the texts of a file, planted at random places, in a range, or at the positions that the file gives.

In: rows of .jsonl, .jsonl.gz, .csv or .parquet, a text each. Out: edits; an item's id is the hash of its text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import Entry, InsertionContext, Planting, build_edits, check_repetitions, keyed
from pretrain_exp.insertion.doses import times
from pretrain_exp.items.content import content_id
from pretrain_exp.plan.edits import Edits
from pretrain_exp.plan.rows import Row, field, position_of, read_rows


@dataclass(frozen=True, kw_only=True)
class FilePlanting(Planting, ABC):
    """The fields that kinds reading a file share; see conf/insertion/add_texts.yaml."""

    file: str
    key: str
    position_key: str = "position"
    group_key: str | None = None
    dose_key: str | None = None
    repetitions: float | dict[str, float] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.repetitions
        if self.dose_key is not None:
            self.refuse("mode", ["explicit"], "explicit positions are planted once each", "leave out dose_key")
            if given != 1:
                fix = "leave out one of repetitions and dose_key"
                raise UserError("dose_key already says how often each row", key="repetitions", value=given, fix=fix)
        if self.mode == "explicit" and given != 1:
            problem = "explicit positions are planted once each"
            raise UserError(problem, key="repetitions", value=given, fix="give one row a copy")
        for group, value in given.items() if isinstance(given, Mapping) else [("", given)]:
            check_repetitions(value, f"repetitions.{group}" if group else "repetitions")

    def files(self) -> list[tuple[str, str]]:
        """(field, path) of the files that must exist."""
        return [("file", self.file)]

    def describe(self) -> str:
        """What is read, for the question of a report."""
        given, name = self.repetitions, Path(self.file).name
        if self.dose_key is not None:
            return f"a row of {name} as often as its {self.dose_key} says"
        return f"a row of {name} {times(given.values() if isinstance(given, Mapping) else given)}"

    @keyed
    def edits(self, context: InsertionContext) -> Edits:
        """The edits of all rows. UserErrors carry the full key, insertion.<name>.<field>."""
        entries = [self._entry(row) for row in read_rows(self.file)]
        if not entries:
            fix = "give at least one row"
            raise UserError("holds no row: there is nothing to plant", key="file", value=self.file, fix=fix)
        self._check_groups(entries)
        return build_edits(context, self, entries)

    @abstractmethod
    def content(self, value: Any, origin: str) -> dict[str, Any]:
        """id and text or tokens of one row; each kind has its own."""

    def _entry(self, row: Row) -> Entry:
        origin = f"row {row[0]} of {self.file}"
        group = Path(self.file).name.split(".")[0]
        if self.group_key is not None:
            group = str(field(row, self.group_key, self.file, "group_key"))
        explicit = self.mode == "explicit"
        position = position_of(row, self.position_key, self.file, "position_key") if explicit else None
        content = self.content(field(row, self.key, self.file, "key"), origin)
        dose = self._repetitions(group, row) if self.dose_key is None else self._dose(self.dose_key, row)
        return Entry(origin=origin, group=group, repetitions=dose, position=position, **content)

    def _dose(self, name: str, row: Row) -> int:
        """The row's own number of copies; in a .csv it is text."""
        value = field(row, name, self.file, "dose_key")
        try:
            dose = -1 if isinstance(value, bool) else int(value)
        except (TypeError, ValueError, OverflowError):
            dose = -1
        if dose < 0 or (isinstance(value, float) and value != dose):
            problem = f"row {row[0]} of {self.file}: {name!r} must be a whole number of 0 or more"
            raise UserError(problem, key="dose_key", value=value, fix="mend this row; a share of a group: repetitions")
        return dose

    def _repetitions(self, group: str, row: Row) -> float:
        given = self.repetitions
        if not isinstance(given, Mapping):
            return given
        if group not in given:
            problem = f"group {group!r} has no repetitions"
            fix = "name every group"
            if self.group_key is None:
                fields = ", ".join(str(name) for name in row[1] if name != self.key) or "none beside the content"
                fix = f"set group_key to the field that holds the group of a row; fields there: {fields}"
            raise UserError(problem, key="repetitions", value=dict(given), fix=fix)
        return given[group]

    def _check_groups(self, entries: list[Entry]) -> None:
        if isinstance(self.repetitions, Mapping):
            there = sorted({entry.group for entry in entries})
            unused = sorted(set(self.repetitions) - set(there))
            if unused:
                problem, fix = f"the file has no group {unused[0]!r}", f"groups there: {', '.join(there)}"
                raise UserError(problem, key="repetitions", value=dict(self.repetitions), fix=fix)


@dataclass(frozen=True, kw_only=True)
class AddTexts(FilePlanting):
    """Plants texts; `key` names the field that holds them."""

    key: str = "text"

    def content(self, value: Any, origin: str) -> dict[str, Any]:
        if not isinstance(value, str) or not value:
            problem = f"{origin}: {self.key!r} must be a text that is not empty"
            raise UserError(problem, key="key", value=value, fix="mend or remove this row")
        return {"id": content_id(value), "text": value}
