"""Placement: which position each edit takes. Nothing is read; the cost grows with the edits, never with the run.

    explicit edits --------------------------> taken as they are (two that overlap: error)
    random edits   whole sequences first, then the rest; round 0, 1, 2, ... of each:
        candidate = hash(seed, insertion, item, copy, round) -> one of all valid starts of the edit's span, uniformly
        - candidates on a taken position lose
        - among the rest, smallest hash first; what overlaps a better one loses
        - losers draw again in the next round
    still unplaced after the last round: an error with the fill, or `on_full: pack` (packing.py)

The draws of an edit depend on its own names only. So adding, removing or reordering other insertions moves an edit only
where it really collides with theirs. Drawing again jams above a fill of about 0.55. Short edits everywhere would leave
no sequence free: so those that need a whole one draw before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pretrain_exp.data.phases import Phases
from pretrain_exp.errors import UserError
from pretrain_exp.plan.edits import Edits, Window
from pretrain_exp.plan.hashing import key64, mix
from pretrain_exp.plan.occupancy import Occupancy, greedy
from pretrain_exp.plan.packing import pack
from pretrain_exp.plan.stretches import Stretches, stretches

Intervals = tuple[np.ndarray, np.ndarray]  # starts and stops
MAX_ATTEMPTS = 500
_PRIORITY = 1 << 32  # counters beyond any attempt: draws for another purpose
_WAY_OUT = "more steps (training.num_steps) or a wider range, or fewer repetitions or items of any insertion in it"
_OR_PACK = "; or on_full: pack, where it has that field"


@dataclass(frozen=True)
class Placement:
    """positions: int64 (n,) for every Edits, in the order given. rounds: how many were drawn; packed: edits packed."""

    positions: list[np.ndarray]
    rounds: int
    packed: int


@dataclass
class _Pool:
    """The random edits of all insertions as columns; owner: index of the Edits, which: index of the distinct span."""

    owner: np.ndarray
    which: np.ndarray
    length: np.ndarray
    key: np.ndarray
    position: np.ndarray


def place(
    requests: Sequence[Edits], phases: Phases, window: Window, seed: int, max_attempts: int = MAX_ATTEMPTS,
    taken: Intervals | None = None,
) -> Placement:  # fmt: skip
    """Places all edits of a run. Deterministic, and the same for every order of `requests`.

    taken: sorted starts and stops of positions that are taken already. UserError: explicit edits outside the window or
    overlapping, an edit longer than any sequence of its span, a full span.
    """
    occupancy = Occupancy()
    if taken is not None:
        occupancy.add(*taken)
    _take_explicit(requests, phases, window, occupancy)
    fixed = occupancy.intervals()
    pool, spans = _gather(requests, seed)
    cuts = [stretches(span, phases) for span in spans]
    _check_fill(requests, spans, cuts, pool, occupancy)
    longest = np.array([cut.longest for cut in cuts], dtype=np.int64)
    whole = pool.length >= longest[pool.which]
    pending, rounds = np.zeros(0, dtype=np.int64), 0
    for tier in (np.flatnonzero(whole), np.flatnonzero(~whole)):
        left, drawn = _draw(pool, cuts, occupancy, max_attempts, tier)
        pending, rounds = np.concatenate([pending, left]), max(rounds, drawn)
    packed = 0
    if len(pending):
        packing = np.array([request.on_full == "pack" for request in requests])
        jammed = pending[~packing[pool.owner[pending]]]
        if len(jammed):
            _raise_full(requests, pool, jammed, spans, cuts, f"{len(jammed):,} unplaced after {rounds} draws")
        packed = _pack(pool, pending, spans, cuts, packing, fixed, requests)
    positions = []
    for i, request in enumerate(requests):
        explicit = request.mode == "explicit"
        positions.append(np.asarray(request.position, np.int64) if explicit else pool.position[pool.owner == i])
    return Placement(positions, rounds, packed)


def edit_keys(request: Edits, seed: int) -> np.ndarray:
    """The 64-bit word of every row of an insertion, from which all its draws come, uint64 (n,)."""
    items = np.array([key64(seed, request.insertion, item.id, "place") for item in request.items], dtype=np.uint64)
    return mix(items[request.item], request.copy) if len(request) else items[:0]


def _gather(requests: Sequence[Edits], seed: int) -> tuple[_Pool, list[tuple[int, int]]]:
    """The pool, and the distinct spans in ascending order."""
    random = [(i, request) for i, request in enumerate(requests) if request.mode == "random" and len(request)]
    sizes = [len(request) for _, request in random]
    n = sum(sizes)
    empty = [np.zeros(0, dtype=np.int64)]
    ranges = [request.ranges() for _, request in random]
    spans = sorted({span for found, _ in ranges for span in found})
    which = [np.array([spans.index(span) for span in found])[mine] for found, mine in ranges]
    pool = _Pool(
        owner=np.repeat(np.array([i for i, _ in random], dtype=np.int32), sizes),
        which=np.concatenate(which or empty).astype(np.int32),
        length=np.concatenate([request.lengths for _, request in random] or empty),
        key=np.concatenate([edit_keys(request, seed) for _, request in random] or [np.zeros(0, dtype=np.uint64)]),
        position=np.full(n, -1, dtype=np.int64),
    )
    return pool, spans


def _draw(
    pool: _Pool, cuts: list[Stretches], occupancy: Occupancy, max_attempts: int, pending: np.ndarray
) -> tuple[np.ndarray, int]:
    """Draws until all are placed or the attempts are used up; returns the indices still pending and the rounds."""
    rounds = 0
    while len(pending) and rounds < max_attempts:
        words = mix(pool.key[pending], rounds)
        start = _candidates(pool, cuts, pending, words)
        order = np.argsort(start)
        start, ids = start[order], pending[order]
        stop = start + pool.length[ids]
        free = np.flatnonzero(~occupancy.meets(start, stop))
        priority = mix(words[order[free]], _PRIORITY)
        taken = free[greedy(start[free], stop[free], priority)]
        occupancy.add(start[taken], stop[taken])
        pool.position[ids[taken]] = start[taken]
        pending = pending[pool.position[pending] < 0]
        rounds += 1
    return pending, rounds


def _candidates(pool: _Pool, cuts: list[Stretches], pending: np.ndarray, words: np.ndarray) -> np.ndarray:
    out = np.empty(len(pending), dtype=np.int64)
    for i, cut in enumerate(cuts):
        here = slice(None) if len(cuts) == 1 else np.flatnonzero(pool.which[pending] == i)
        lengths = pool.length[pending[here]]
        # a run has fewer than 2^43 tokens: reducing 64 bits modulo the starts is biased by less than 2^-21
        out[here] = cut.position(words[here] % cut.starts(lengths).astype(np.uint64), lengths)
    return out


def _take_explicit(requests: Sequence[Edits], phases: Phases, window: Window, occupancy: Occupancy) -> None:
    explicit = [request for request in requests if request.mode == "explicit" and len(request)]
    if not explicit:
        return
    first, stop = phases.position_of_step(window.first_step), phases.position_of_step(window.last_step)
    for request in explicit:
        start = np.asarray(request.position, np.int64)
        outside = (start < first) | (start + request.lengths > stop)
        if outside.any():
            low, high = int(start[outside].min()), int((start + request.lengths)[outside].max())
            raise UserError(
                f"{int(outside.sum()):,} of {len(request):,} edits lie outside the run: positions {low:,} to {high:,}, "
                f"but it reads positions {first:,} to {stop:,} (steps {window.first_step:,} to {window.last_step:,})",
                key=f"insertion.{request.insertion}",
                fix="leave these rows out, or train the steps that read them",
            )
    starts = np.concatenate([np.asarray(request.position, np.int64) for request in explicit])
    stops = starts + np.concatenate([request.lengths for request in explicit])
    order = np.argsort(starts, kind="stable")
    starts, stops = starts[order], stops[order]
    _refuse_taken(explicit, starts, stops, occupancy)
    clash = np.flatnonzero(stops[:-1] > starts[1:])
    if len(clash):
        names = [(request.insertion, request.items[i].id) for request in explicit for i in request.item]
        i = int(clash[0])
        (one, one_item), (two, two_item) = names[order[i]], names[order[i + 1]]
        raise UserError(
            f"{len(clash):,} explicit edits overlap the next; the first: item {one_item} of insertion {one}, positions "
            f"{starts[i]:,} to {stops[i]:,}, and item {two_item} of insertion {two}, positions {starts[i + 1]:,} to "
            f"{stops[i + 1]:,}",
            key=f"insertion.{one}",
            fix="move or drop one of them",
        )
    occupancy.add(starts, stops)


def _refuse_taken(explicit: list[Edits], starts: np.ndarray, stops: np.ndarray, occupancy: Occupancy) -> None:
    """UserError where the places of explicit edits are those of the plan that they are laid upon."""
    there = np.flatnonzero(occupancy.meets(starts, stops))
    if len(there):
        i = int(there[0])
        names = ", ".join(sorted({request.insertion for request in explicit}))
        raise UserError(
            f"{len(there):,} explicit edits lie where the plan has edits already, the first at positions "
            f"{starts[i]:,} to {stops[i]:,}",
            key=f"insertion.{explicit[0].insertion}",
            value=names,
            fix="move or drop them",
        )


def _check_fill(
    requests: Sequence[Edits], spans: list[tuple[int, int]], cuts: list[Stretches], pool: _Pool, occupancy: Occupancy
) -> None:
    """What no drawing can mend: an edit longer than any sequence of its span, or more tokens than the span has."""
    for i, (span, cut) in enumerate(zip(spans, cuts, strict=True)):
        too_long = np.flatnonzero((pool.which == i) & (pool.length > cut.longest))
        if len(too_long):
            raise UserError(
                f"{len(too_long):,} edits of up to {pool.length[too_long].max():,} tokens fit no sequence of their "
                f"range: positions {span[0]:,} to {span[1]:,} hold {cut.longest:,} tokens in a row at most",
                key=f"insertion.{requests[pool.owner[too_long[0]]].insertion}.range",
                fix="widen the range, or too_long: truncate or split",
            )
        inside = [j for j, other in enumerate(spans) if span[0] <= other[0] and other[1] <= span[1]]
        asked = np.flatnonzero(np.isin(pool.which, inside))
        if int(pool.length[asked].sum()) > cut.tokens - occupancy.tokens_in(*span):
            _raise_full(requests, pool, asked, spans, cuts, "more than there is", which=i)


def _pack(
    pool: _Pool, pending: np.ndarray, spans: list[tuple[int, int]], cuts: list[Stretches], packing: np.ndarray,
    fixed: Intervals, requests: Sequence[Edits],
) -> int:  # fmt: skip
    """Packs what is pending, span by span; edits of `on_full: pack` with that span may move, all others stay."""
    for i in np.unique(pool.which[pending]):
        movable = np.flatnonzero((pool.which == i) & packing[pool.owner])
        staying = Occupancy()
        staying.add(*fixed)
        others = np.setdiff1d(np.arange(len(pool.key)), movable)
        others = others[pool.position[others] >= 0]
        staying.add(pool.position[others], pool.position[others] + pool.length[others])
        found = pack(cuts[i], *staying.intervals(), pool.length[movable], pool.key[movable], pool.position[movable])
        if found is None:
            left = pending[pool.which[pending] == i]
            full = f"{len(left):,} unplaced, and packing finds no room either"
            _raise_full(requests, pool, left, spans, cuts, full)
        pool.position[movable] = found
    return len(pending)


def _raise_full(
    requests: Sequence[Edits], pool: _Pool, left: np.ndarray, spans: list[tuple[int, int]], cuts: list[Stretches],
    what: str, which: int | None = None,
) -> None:  # fmt: skip
    """The error of a full range: its tokens, what is asked of it in all, and who asks."""
    which = int(pool.which[left[0]]) if which is None else which
    span, cut = spans[which], cuts[which]
    inside = [j for j, other in enumerate(spans) if span[0] <= other[0] and other[1] <= span[1]]
    random = int(pool.length[np.isin(pool.which, inside)].sum())
    explicit = sum(_tokens_in_span(request, span) for request in requests if request.mode == "explicit")
    names = sorted({requests[i].insertion for i in np.unique(pool.owner[left])})
    asked = next(request.on_full for request in requests if request.insertion == names[0])
    raise UserError(
        f"the range is full: {random + explicit:,} tokens asked of {cut.tokens:,} "
        f"(positions {span[0]:,} to {span[1]:,}), a fill of {(random + explicit) / cut.tokens:.3f}; {what} "
        f"({len(left):,} edits of {', '.join(names)})",
        key=f"insertion.{names[0]}.on_full",
        value=asked,
        fix=_WAY_OUT if asked == "pack" else _WAY_OUT + _OR_PACK,
    )


def _tokens_in_span(request: Edits, span: tuple[int, int]) -> int:
    start = np.asarray(request.position, np.int64)
    stop = start + request.lengths
    return int(np.maximum(np.minimum(stop, span[1]) - np.maximum(start, span[0]), 0).sum())
