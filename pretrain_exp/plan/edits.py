"""What one insertion asks for: items, one row for every copy of an item that is to be planted, and training hooks.

    items   id  tokens  group  dose        rows   item  copy  [position]
            a   (7,)    rare   2                  0     0     1040
            b   (9,)    rare   1                  0     1     77
            c   (8,)    hold   0                  1     0     512        an item of dose 0 is a holdout: no row

    kind    what a row does at its place                        a row takes
    tokens  the tokens of its item are read there               -
    base    a span of another slot of the data is read there    length, and source, or the edits say `unseen`
    noise   the tokens stay, their embeddings get noise         length, sigma

Flows from insertion/ to placement.py and compile.py. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

OnFull = Literal["error", "pack"]  # what becomes of drawn edits that find no place in a range


@dataclass(frozen=True)
class Window:
    """The steps that a run trains: first_step <= step < last_step. It begins at the state at first_step."""

    first_step: int
    last_step: int


@dataclass(frozen=True, slots=True)
class EditItem:
    """One text or token run. tokens: uint32, as planted (EOS and truncation already applied).

    dose: how many copies were asked for; group: the name of the items that share a treatment; payload: JSON of the
    scored item, or "". probe: scored and never planted itself; its dose says how many copies of what it asks about are.
    An item of kind base or noise may have no tokens: then it is planted and not scored.
    """

    id: str
    tokens: np.ndarray
    text: str = ""
    group: str = ""
    dose: int = 0
    payload: str = ""
    probe: bool = False


@dataclass(frozen=True)
class Skipped:
    """A copy that a declared policy leaves out. length: tokens of the text that did not fit."""

    item: str
    copy: int
    length: int
    reason: str


@dataclass(frozen=True)
class Hook:
    """A change of the update at chosen steps, not of the data: copy first_copy + k of `item` acts at steps[k].

    kind: `gradient_noise`. steps: ascending, none twice. sigma: scale of the noise; seed: what it is keyed by, together
    with step and parameter, 0 to 2^63 - 1.
    """

    item: str
    kind: Literal["gradient_noise"]
    steps: tuple[int, ...]
    sigma: float
    seed: int
    first_copy: int = 0


@dataclass(frozen=True)
class Subjects:
    """name: of what they are, in the plural; of: the subject of each item, by id, and the subject's dose."""

    name: str
    of: Mapping[str, tuple[str, int]]


@dataclass(frozen=True)
class Edits:
    """All edits of one insertion.

    item, copy: int32 (n,), one row a copy; (item, copy) is unique. mode `random`: every row is placed uniformly in
    `span`, positions [first, stop), or row i in its own spans[i], int64 (n, 2). mode `explicit`: row i goes to
    position[i], int64.
    length: int64 (n,), tokens of each row where they are not its item's. source: int64 (n, 2), slot and column where
    the text of a base row begins; it lies in that slot, and the row in one. sigma: float32 (n,), of noise rows.
    unseen: positions [first, stop) that the run does not read: each item, holdouts included, stands for a sequence
    there that no other item of any insertion has.
    absent: token runs (uint32) that the run must not read anywhere once the plan is applied; the audit looks.
    to_come: texts as a later layer may plant them, no items of this plan; the audit looks for absent runs in them too.
    fill_in: the items once all places are known: these edits (items may have been put in another order), positions
    int64 (n,) of the rows and, where `unseen`, the slots int64 (items,) -> items of the same ids, groups and doses.
    notes: what the audit should tell. subjects: what the doses are of, where items are its parts.
    """

    insertion: str
    items: list[EditItem]
    item: np.ndarray
    copy: np.ndarray
    mode: Literal["random", "explicit"] = "random"
    span: tuple[int, int] = (0, 0)
    position: np.ndarray | None = None
    on_full: OnFull = "error"
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kind: Literal["tokens", "base", "noise"] = "tokens"
    length: np.ndarray | None = None
    source: np.ndarray | None = None
    sigma: np.ndarray | None = None
    hooks: tuple[Hook, ...] = ()
    unseen: tuple[int, int] | None = None
    absent: list[np.ndarray] = field(default_factory=list)
    to_come: Sequence[EditItem] = ()
    spans: np.ndarray | None = None
    subjects: Subjects | None = None
    fill_in: Callable[[Edits, np.ndarray, np.ndarray | None], list[EditItem]] | None = None

    def __post_init__(self) -> None:
        """ValueError where a row plants a probe, or lacks what its kind takes."""
        if any(self.items[i].probe for i in np.unique(self.item).tolist()):
            raise ValueError(f"{self.insertion}: a probe is planted")
        given = {"length": self.length, "source": self.source, "sigma": self.sigma}
        takes = {"tokens": set(), "base": {"length", "source"}, "noise": {"length", "sigma"}}[self.kind]
        if self.unseen is not None and self.source is None:
            takes = takes - {"source"}  # compile.py finds it
        for name, values in given.items():
            if (values is not None) != (name in takes) or (values is not None and len(values) != len(self.item)):
                raise ValueError(f"{self.insertion}: rows of kind {self.kind} take {sorted(takes)}, one a row")

    def __len__(self) -> int:
        return len(self.item)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 (n,)."""
        if self.length is not None:
            return np.asarray(self.length, dtype=np.int64)
        return np.array([len(item.tokens) for item in self.items], dtype=np.int64)[self.item]

    def ranges(self) -> tuple[list[tuple[int, int]], np.ndarray]:
        """The distinct spans in which the rows of mode random may lie, and which of them each row has, int64 (n,)."""
        if self.spans is None:
            return [self.span], np.zeros(len(self), dtype=np.int64)
        found, which = np.unique(np.asarray(self.spans, dtype=np.int64), axis=0, return_inverse=True)
        return [(first, stop) for first, stop in found.tolist()], which.reshape(-1)

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows."""
        return int(self.lengths.sum())
