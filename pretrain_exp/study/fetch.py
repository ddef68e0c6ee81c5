"""The data that a study reads and that is still elsewhere: what it is, how much, and bringing it here.

    plans, data order --> slots that the runs read --> bytes of token files --> downloads

A source that fetches what is read has `missing` and `download` (data/official.py); of any other nothing is to be done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.filesize import decimal

from pretrain_exp.data.official import bytes_of
from pretrain_exp.data.official_spans import spans_of
from pretrain_exp.data.order import DataOrder
from pretrain_exp.data.prepare import PreparedData
from pretrain_exp.data.token_files import NotFetched
from pretrain_exp.plan.overlay import BASE
from pretrain_exp.store.claims import claimed
from pretrain_exp.store.part_file import free_bytes
from pretrain_exp.store.transfer import Download

if TYPE_CHECKING:
    from pretrain_exp.study.member import Member


def slots_read(member: Member) -> np.ndarray:
    """Every slot that the member's arms read: those of their steps, and others that edits take text from; sorted."""
    config, phases = member.config, member.phases
    window = np.arange(phases.first_slot(config.first_step), phases.first_slot(config.last_step), dtype=np.int64)
    arrays = [plan.overlay.arrays for plan in member.plans.values() if plan is not None]
    return np.unique(np.concatenate([window, *(each["ref"][each["kind"] == BASE] for each in arrays)]))


def missing(member: Member) -> list[Download]:
    """What has to be fetched before the member can be trained."""
    source = member.composed.kinds.data
    return (
        _missing(source, member.data, member.order, slots_read(member).tolist()) if hasattr(source, "missing") else []
    )


def fetch_all(members: Sequence[Member], console: Console) -> None:
    """Fetches what the members read. UserError or Problems; what came by then is kept."""
    for member in members:
        source, store = member.composed.kinds.data, Path(member.config.store).absolute()
        if hasattr(source, "missing"):
            _fetch(source, member.data, member.order, slots_read(member).tolist(), store, console)


def planning_order(source: Any, data: PreparedData, order: DataOrder, slots: range, store: Path) -> DataOrder:
    """The order as insertions may read it: where one looks at data that have not come, those of `slots` come first."""
    if not hasattr(source, "missing"):
        return order
    console = Console(stderr=True)
    return FetchingOrder(order, slots, lambda wanted: _fetch(source, data, order, wanted, store, console))


def _missing(source: Any, data: PreparedData, order: DataOrder, slots: Iterable[int]) -> list[Download]:
    return source.missing(data.files, spans_of(order, slots))


def _fetch(
    source: Any, data: PreparedData, order: DataOrder, slots: Sequence[int], store: Path, console: Console
) -> None:
    """Fetches what the slots lack, once nobody else of this store fetches."""
    if not _missing(source, data, order, slots):
        return
    with claimed(store, "official-data"):
        needed = _missing(source, data, order, slots)  # what another fetched meanwhile is here
        console.print(sentence(needed), highlight=False, soft_wrap=True)
        source.download(needed, data.files, data.tokenizer.vocab_size, store / "data")


def sentence(needed: Sequence[Download], what: str = "token files") -> str:
    """How much is to be fetched, from where and to where."""
    if not needed:
        return "nothing is to be fetched"
    amount, parts = bytes_of(needed), [file for file in needed if file.spans != ()]
    spans = sum(len(file.spans or ((0, 0),)) for file in parts)
    free = free_bytes(needed[0].path.parent)[1]
    much = f"{amount:,} bytes ({decimal(amount)}) of {len(parts):,} {what}"
    return f"to be fetched: {much}, in {spans:,} spans; {decimal(free)} are free where they go"


class FetchingOrder:
    """A data order for planning: a row that has not come is fetched, with all those of `slots` the first time."""

    def __init__(self, order: DataOrder, slots: range, fetch: Callable[[Sequence[int]], None]) -> None:
        self._order, self._slots, self._fetch = order, slots, fetch

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self._order, name)

    def read(self, slot: int) -> np.ndarray:
        """The tokens of a slot before any edit, a fresh uint32 array (sequence_length,)."""
        try:
            return self._order.read(slot)
        except NotFetched:
            self._fetch([*self._slots, slot])
            self._slots = range(0)
            return self._order.read(slot)
