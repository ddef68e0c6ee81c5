"""What one insertion asks for: items, and one row for every copy of an item that is to be planted.

    items   id  tokens  group  dose        rows   item  copy  [position]
            a   (7,)    rare   2                  0     0     1040
            b   (9,)    rare   1                  0     1     77
            c   (8,)    hold   0                  1     0     512        an item of dose 0 is a holdout: no row

Flows from insertion/ to placement.py and compile.py. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Window:
    """The steps that a run trains: first_step <= step < last_step. It begins at the state at first_step."""

    first_step: int
    last_step: int


@dataclass(frozen=True)
class EditItem:
    """One text or token run. tokens: uint32, as planted (EOS and truncation already applied).

    dose: how many copies were asked for; group: the name of the items that share a treatment; payload: JSON of the
    scored item, or "".
    """

    id: str
    tokens: np.ndarray
    text: str = ""
    group: str = ""
    dose: int = 0
    payload: str = ""


@dataclass(frozen=True)
class Skipped:
    """A copy that a declared policy leaves out. length: tokens of the text that did not fit."""

    item: str
    copy: int
    length: int
    reason: str


@dataclass(frozen=True)
class Edits:
    """All edits of one insertion.

    item, copy: int32 (n,), one row a copy; (item, copy) is unique. mode `random`: every row is placed uniformly in
    `span`, positions [first, stop). mode `explicit`: row i goes to position[i], int64.
    notes: what the audit should tell.
    """

    insertion: str
    items: list[EditItem]
    item: np.ndarray
    copy: np.ndarray
    mode: Literal["random", "explicit"] = "random"
    span: tuple[int, int] = (0, 0)
    position: np.ndarray | None = None
    on_full: Literal["error", "pack"] = "error"
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.item)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 (n,)."""
        return np.array([len(item.tokens) for item in self.items], dtype=np.int64)[self.item]

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows."""
        return int(self.lengths.sum())
