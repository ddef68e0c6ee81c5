"""What a plan holds to be scored: items.parquet in, its multiple-choice items and all its others out.

payload is a ChoiceItem             a question: each once, whatever its dose        -> PlannedItems itself, a sequence
payload is empty, or an object      a text or token run, by insertion and item      -> PlannedItems.texts
that names its "kind"

An item without tokens is planted by reference to the data and not scored: it is no part of this.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from pretrain_exp.errors import UserError
from pretrain_exp.items.choice import ChoiceItem

if TYPE_CHECKING:
    import numpy as np

# kinds of payload: a document that is scored though only its parts are planted, and those; one that is taken out
DOCUMENT, PART, REMOVED = "document", "document_part", "verbatim"


@dataclass(frozen=True, eq=False)
class PlantedText:
    """A text or token run as it is planted, dose 0 included. tokens: uint32 (n,), EOS as planted.

    insertion, item, group, dose: as in items.parquet. payload: what is to be scored, with its "kind"; None: the tokens.
    probe: never planted itself; its dose is that of what it asks about.
    """

    insertion: str
    item: str
    tokens: np.ndarray
    group: str = ""
    dose: int = 0
    payload: dict[str, Any] | None = None
    probe: bool = False


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
    """The items of a plan's items.parquet; none where there is no plan. UserError where the file is absent."""
    if path is None:
        return PlannedItems()
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ("insertion", "item", "tokens", "group", "dose", "probe")
    try:
        table = pq.read_table(path, columns=[*names, "payload"])
    except FileNotFoundError:
        problem = "the items are gone: their plan was of a closed loop, which has planned more since"
        fix = "run the command again: it takes the items that are planned now"
        raise UserError(problem, value=path, fix=fix) from None
    payloads = [json.loads(payload) if payload else None for payload in table["payload"].to_pylist()]
    choices = [ChoiceItem.from_fields(payload) for payload in payloads if payload is not None and "kind" not in payload]
    is_text = [payload is None or "kind" in payload for payload in payloads]
    kept = table.filter(pa.array(is_text, pa.bool_()))
    tokens = [run.values.to_numpy(zero_copy_only=False) for run in kept["tokens"]]
    columns = [tokens if name == "tokens" else kept[name].to_pylist() for name in names]
    rest = [payload for payload, text in zip(payloads, is_text, strict=True) if text]
    texts = []
    for (insertion, item, run, group, dose, probe), payload in zip(zip(*columns, strict=True), rest, strict=True):
        if len(run):
            texts.append(PlantedText(insertion, item, run, group, dose, payload, probe))
    return PlannedItems({item.id: item for item in choices}.values(), texts)
