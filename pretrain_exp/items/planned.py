"""What a plan holds to be scored: items.parquet in, its multiple-choice items and its planted texts out.

payload is a ChoiceItem    a question: each once, whatever its dose        -> PlannedItems itself, a sequence
payload is empty           a text or token run, by insertion and item      -> PlannedItems.texts
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from pretrain_exp.items.choice import ChoiceItem

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class PlantedText:
    """A text or token run as it is planted, dose 0 included. tokens: uint32 (n,), EOS as planted.

    insertion, item: as in items.parquet.
    """

    insertion: str
    item: str
    tokens: np.ndarray


class PlannedItems(Sequence[ChoiceItem]):
    """The multiple-choice items of a plan, as a sequence, and beside them `texts`, all its other items."""

    def __init__(self, choices: Iterable[ChoiceItem] = (), texts: Iterable[PlantedText] = ()):
        self._choices = tuple(choices)
        self.texts = tuple(texts)

    def __len__(self) -> int:
        return len(self._choices)

    @overload
    def __getitem__(self, index: int) -> ChoiceItem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ChoiceItem]: ...
    def __getitem__(self, index: int | slice) -> ChoiceItem | Sequence[ChoiceItem]:
        return self._choices[index]


def planted_items(path: str | None) -> PlannedItems:
    """The items of a plan's items.parquet; none where there is no plan. FileNotFoundError where the file is absent."""
    if path is None:
        return PlannedItems()
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["insertion", "item", "tokens", "payload"])
    payloads = table["payload"].to_pylist()
    choices = [ChoiceItem.from_json(payload) for payload in payloads if payload]
    plain = table.filter(pa.array([not payload for payload in payloads], pa.bool_()))
    tokens = (run.values.to_numpy(zero_copy_only=False) for run in plain["tokens"])
    names = zip(plain["insertion"].to_pylist(), plain["item"].to_pylist(), tokens, strict=True)
    return PlannedItems({item.id: item for item in choices}.values(), [PlantedText(*name) for name in names])
