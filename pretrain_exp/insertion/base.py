"""What every insertion kind shares: its context, its common fields, and the way from entries to edits.

    kind reads its file ->  [Entry]  -> encode -> EOS -> too long? -> doses ->  Edits       (build_edits)

Every random choice is ranked by a hash of (seed, insertion, item, purpose): no stream is shared, no order matters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Literal, ParamSpec, Protocol, TypeVar

import numpy as np

from pretrain_exp.data.order import DataOrder
from pretrain_exp.data.phases import Phases
from pretrain_exp.errors import UserError
from pretrain_exp.insertion.encoding import encoded, note_long, pieces
from pretrain_exp.insertion.ranges import RangeField, check_range, span_of
from pretrain_exp.insertion.scan import Runs, find_runs
from pretrain_exp.insertion.schedules import Density, check_density, spans_of
from pretrain_exp.plan.edits import EditItem, Edits, OnFull, Skipped, Window
from pretrain_exp.plan.hashing import key64

Encode = Callable[[list[str]], list[np.ndarray]]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class InsertionContext:
    """What an insertion may know of the run.

    name: its name in the configuration; seed: `seed.placement`; sequence_length: tokens; encode: texts to token arrays
    without special tokens; vocab_size: planted tokens must be below it (None: unknown). order: what the run reads
    before any edit, for the kinds that look at it; cache: folder for what they found (None: they look again each time).
    """

    name: str
    seed: int
    sequence_length: int
    eos_token_id: int
    window: Window
    phases: Phases
    encode: Encode
    vocab_size: int | None = None
    order: DataOrder | None = None
    cache: Path | None = None

    @property
    def data(self) -> DataOrder:
        """The order, for a kind that cannot do without: data.read(slot). UserError where there is none to ask."""
        if self.order is None:
            raise UserError("this kind looks at the data, and no data order is at hand", key="_target_")
        return self.order

    @property
    def slots(self) -> range:
        """The slots that the run reads."""
        return range(self.phases.first_slot(self.window.first_step), self.phases.first_slot(self.window.last_step))

    def find_runs(self, runs: Sequence[np.ndarray]) -> Runs:
        """Every place where one of the token runs stands in the rows that the run reads."""
        return find_runs(self.data, self.slots, runs, self.cache)


class Insertion(Protocol):
    """An insertion kind: the fields of its configuration, and the edits that follow from them."""

    def files(self) -> list[tuple[str, str]]:
        """(field, path) of the files that must exist."""
        ...

    def edits(self, context: InsertionContext) -> Edits:
        """All that it asks for; UserErrors carry the full key, insertion.<name>.<field>."""
        ...


@dataclass(frozen=True, kw_only=True)
class Planting:
    """The fields that all kinds share; conf/insertion/*.yaml explains them in a line each."""

    mode: Literal["random", "range", "explicit"] = "random"
    range: RangeField | None = None
    density: Density = "uniform"
    too_long: Literal["error", "split", "truncate", "skip"] = "error"
    on_full: OnFull = "error"
    eos: Literal["both", "none", "append"] | None = None

    def __post_init__(self) -> None:
        """UserError where mode and range contradict each other, or the range cannot be one in any run."""
        if self.mode != "range" and self.range is not None:
            raise UserError("a range is given, but not used", key="mode", value=self.mode, fix="set mode: range")
        if self.mode == "range":
            if self.range is None:
                raise UserError("mode range needs a range", key="range", value=None, fix="give {start, end, unit}")
            object.__setattr__(self, "range", check_range(self.range))
        object.__setattr__(self, "density", check_density(self.density, self.mode))

    def span(self, context: InsertionContext) -> tuple[int, int]:
        """The positions [first, stop) where random edits may lie. UserError where the range leaves the run or is
        empty."""
        return span_of(self.range, context)

    def refuse(self, field: str, values: Collection[str], problem: str, fix: str) -> None:
        """UserError under a field that holds one of the values, which make no sense for this kind."""
        value = getattr(self, field)
        if value in values:
            raise UserError(problem, key=field, value=value, fix=fix)

    def need_distinct(self, *fields: str) -> None:
        """UserError under a field that is an empty list, or holds a value twice."""
        for field in fields:
            values = getattr(self, field)
            if not values or len(set(values)) < len(values):
                raise UserError("must be distinct, at least one", key=field, value=list(values))

    @property
    def eos_rule(self) -> str:
        """EOS around every text in random modes unless set otherwise; explicit positions are exact."""
        return self.eos or ("none" if self.mode == "explicit" else "both")


@dataclass(frozen=True)
class Entry:
    """One row of an insertion's input. tokens: None where `text` is still to be encoded; origin: for messages.

    repetitions: how often it is planted; a fraction goes to a seeded share of the entries with equal group and value.
    """

    id: str
    origin: str
    text: str = ""
    tokens: np.ndarray | None = None
    group: str = ""
    payload: str = ""
    repetitions: float = 1.0
    position: int | None = None


def build_edits(context: InsertionContext, planting: Planting, entries: Sequence[Entry], field: str = "file") -> Edits:
    """The edits of all entries. field: the configuration key to blame where an entry is wrong.

    Entries with one id are one item, whose doses add up. UserError: no entries, an entry without tokens, one longer
    than a sequence under too_long: error, two groups for one item, a token outside the vocabulary.
    """
    if not entries:
        raise UserError("there is nothing to plant", key=field, fix="give at least one row")
    notes: list[str] = []
    explicit = planting.mode == "explicit"
    counts = _counts(context, entries)
    merged = _merge(entries, field, notes)
    tokens = encoded(context, [group[0] for group in merged], field)
    long = [i for i, each in enumerate(tokens) if len(each) > context.sequence_length and not explicit]
    if long:
        note_long(context, planting, [(merged[i][0], len(tokens[i])) for i in long], field, notes)
    too_long = set(long)
    items: list[EditItem] = []
    rows: list[tuple[int, int, int]] = []  # item, copy, position
    skipped: list[Skipped] = []
    for i, group in enumerate(merged):
        dose = len(group) if explicit else sum(counts[id(each)] for each in group)
        for item in _items(group[0], dose, pieces(tokens[i], context, planting, i in too_long)):
            if i in too_long and planting.too_long == "skip":
                reason = f"longer than a sequence of {context.sequence_length} tokens"
                skipped += [Skipped(item.id, copy, len(item.tokens), reason) for copy in range(dose)]
            else:
                places = sorted(each.position or 0 for each in group) if explicit else [0] * dose
                rows += [(len(items), copy, position) for copy, position in enumerate(places)]
            items.append(item)
    _demand_planted(entries, len(rows) + len(skipped), notes)
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    span = (0, 0) if explicit else planting.span(context)
    return Edits(
        insertion=context.name,
        items=items,
        item=table[:, 0].astype(np.int32),
        copy=table[:, 1].astype(np.int32),
        mode="explicit" if explicit else "random",
        span=span,
        spans=spans_of(planting.density, span, context, items, table[:, :2]),
        position=table[:, 2].copy() if explicit else None,
        on_full=planting.on_full,
        skipped=skipped,
        notes=notes,
    )


def ranked(ids: Sequence[str], context: InsertionContext, purpose: str) -> list[int]:
    """Indices of the ids in an order drawn by hash of (seed, insertion, id, purpose); equal ids are told apart."""
    seen: dict[str, int] = {}
    keys = []
    for each in ids:
        occurrence = seen[each] = seen.get(each, -1) + 1
        keys.append((key64(context.seed, context.name, each, purpose, occurrence), each, occurrence))
    return sorted(range(len(keys)), key=keys.__getitem__)


def check_repetitions(value: float, key: str = "repetitions") -> float:
    """The value as a number; UserError where it is negative or none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise UserError("repetitions must be a number of 0 or more", key=key, value=value, fix="give 0, 0.5, 1, 4, ...")
    return float(value)


def _counts(context: InsertionContext, entries: Sequence[Entry]) -> dict[int, int]:
    """Copies of each entry, by id(): whole repetitions for all, the fraction for an exact seeded share of its group."""
    classes: dict[tuple[str, float], list[Entry]] = {}
    for entry in entries:
        classes.setdefault((entry.group, check_repetitions(entry.repetitions)), []).append(entry)
    out: dict[int, int] = {}
    for (_, repetitions), members in classes.items():
        whole = int(repetitions)
        more = int((repetitions - whole) * len(members) + 0.5)
        for rank, i in enumerate(ranked([member.id for member in members], context, "repetition")):
            out[id(members[i])] = whole + (rank < more)
    return out


def _items(entry: Entry, dose: int, cut: Sequence[np.ndarray]) -> Iterator[EditItem]:
    """The item of an entry, or one for each piece that it was cut to."""
    for k, piece in enumerate(cut):
        name = entry.id if len(cut) == 1 else f"{entry.id}#{k}"
        yield EditItem(name, piece, entry.text, entry.group, dose, entry.payload)


def _demand_planted(entries: Sequence[Entry], copies: int, notes: list[str]) -> None:
    """UserError where repetitions above 0 come to no copy at all; a note where all of them are 0."""
    most = max(entry.repetitions for entry in entries)
    if not most:
        notes.append(f"all {len(entries):,} items have 0 repetitions: nothing is planted")
    elif not copies:
        problem = f"{len(entries):,} items at {most:g} repetitions plant nothing"
        fix = "plant more items, or repeat them more often"
        raise UserError(problem, key="repetitions", value=most, fix=fix)


def _merge(entries: Sequence[Entry], field: str, notes: list[str]) -> list[list[Entry]]:
    """Entries by item, items in order of first appearance."""
    merged: dict[str, list[Entry]] = {}
    for entry in entries:
        group = merged.setdefault(entry.id, [])
        if group and group[0].group != entry.group:
            raise UserError(
                f"{group[0].origin} and {entry.origin} hold the same item, in groups {group[0].group!r} and "
                f"{entry.group!r}",
                key=field,
                fix="keep one of them",
            )
        group.append(entry)
    repeated = [group for group in merged.values() if len(group) > 1]
    if repeated:
        notes.append(
            f"{len(repeated):,} items are given {sum(map(len, repeated)):,} times in all; their doses add up "
            f"(the first: {repeated[0][0].origin} and {repeated[0][1].origin})"
        )
    return list(merged.values())


def keyed(edits: Callable[P, T]) -> Callable[P, T]:
    """A method of a kind, (self, context, ...), whose UserErrors get their full key, insertion.<name>.<field>."""

    @wraps(edits)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return edits(*args, **kwargs)
        except UserError as error:
            context = args[1]
            assert isinstance(context, InsertionContext)
            if (error.key or "").startswith("insertion."):  # of a kind within a kind
                raise
            raise error.under(f"insertion.{context.name}") from error

    return called
