"""Sets of byte spans [start, stop): joined, subtracted, cut into pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Span = tuple[int, int]  # [start, stop), in bytes


def join(spans: Iterable[Span]) -> list[Span]:
    """The same bytes as sorted spans that neither overlap nor touch; empty ones are gone."""
    out: list[Span] = []
    for start, stop in sorted(span for span in spans if span[0] < span[1]):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(stop, out[-1][1]))
        else:
            out.append((start, stop))
    return out


def subtract(spans: Iterable[Span], without: Iterable[Span]) -> list[Span]:
    """The bytes of `spans` that are not in `without`, as sorted spans."""
    out: list[Span] = []
    holes = join(without)
    first = 0
    for start, stop in join(spans):
        while first < len(holes) and holes[first][1] <= start:
            first += 1
        at = first
        while at < len(holes) and holes[at][0] < stop:
            if start < holes[at][0]:
                out.append((start, holes[at][0]))
            start = holes[at][1]
            at += 1
        if start < stop:
            out.append((start, stop))
    return out


def pieces(spans: Iterable[Span], size: int) -> Iterator[Span]:
    """Each span in pieces of `size` bytes, the last one shorter."""
    for start, stop in spans:
        for at in range(start, stop, size):
            yield at, min(at + size, stop)


def total(spans: Iterable[Span]) -> int:
    return sum(stop - start for start, stop in spans)
