"""Closed loops: what each controller was to reach, what the model gave, and what was planted; picture and table.

Rows of control/table.py in, one a loop and boundary. The texts of a row are planted in the segment that follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from pretrain_exp.analysis.place import short_variant
from pretrain_exp.control.table import COLUMNS
from pretrain_exp.report.axes import named, which
from pretrain_exp.report.pictures import ARM_COLOUR, ARM_LINE, INK, Picture, slug
from pretrain_exp.report.pictures import table as data_table
from pretrain_exp.report.tables import DASH, Cell, Column, Table, whole

_MOST_OPEN = 40  # rows of a table that are shown at once
_WORDS = {"member": "Variant", "seed": "Seed", "insertion": "Insertion"}

Row = Mapping[str, Any]
Draw = Callable[[Sequence[Axes]], None]


def control_pictures(rows: Sequence[Row]) -> Iterator[Picture]:
    """One for each variant and insertion, with all its seeds."""
    places = _apart(rows, "member", "insertion")
    for place, mine in places.items():
        own = [short_variant(part) for part in which(place, list(places))]
        seen = any(row["target"] is not None or row["achieved"] is not None for row in mine)
        above = "Above: the target, and what the model gave before each segment. Below: " if seen else ""
        caption = f"{above}texts planted in each segment. A line a seed."
        data = data_table([dict(row) for row in mine], COLUMNS)
        heights = (2.6, 1.7) if seen else (2.2,)
        title = f"Target, achieved and planted{named(own)}"
        yield Picture(slug("closed_loop", *own), "control", title, caption, data, _drawing(mine), heights=heights)


def _drawing(rows: Sequence[Row]) -> Draw:
    seeds = list(_apart(rows, "seed").values())

    def draw(all_axes: Sequence[Axes]) -> None:
        if len(all_axes) > 1:
            _probed(all_axes[0], seeds)
        planted = all_axes[-1]
        for mine in seeds:
            texts = [row["texts"] for row in mine if row["texts"] is not None]
            steps = [row["step"] for row in mine][: len(texts) + 1]
            texts += texts[-1:] * (len(steps) - len(texts))  # to the end of the last segment
            if texts:
                planted.plot(steps, texts, color=ARM_COLOUR["treated"], lw=1.4, alpha=0.8, drawstyle="steps-post")
        planted.set_ylim(0, None)
        planted.set_ylabel("texts planted\nin the segment")
        planted.set_xlabel("step")
        planted.locator_params(axis="y", nbins=4, integer=True)

    return draw


def _probed(axes: Axes, seeds: Sequence[Sequence[Row]]) -> None:
    for i, mine in enumerate(seeds):
        for name, line, colour in (("target", ARM_LINE["control"], INK), ("achieved", "o-", ARM_COLOUR["treated"])):
            known = [(row["step"], row[name]) for row in mine if row[name] is not None]
            steps, values = [step for step, _ in known], [value for _, value in known]
            axes.plot(steps, values, line, color=colour, lw=1.3, ms=4, alpha=0.8, label=None if i else name)
    axes.set_ylim(0, None)
    axes.set_ylabel("mean probability\nof the targets")
    axes.legend(loc="upper left")


def control_tables(rows: Sequence[Row]) -> list[Table]:
    """One table of all loops; none where there are none."""
    if not rows:
        return []
    own = [name for name in _WORDS if len({row[name] for row in rows}) > 1]
    columns = [
        *(Column(_WORDS[name], number=name == "seed") for name in own), Column("Step"), Column("Target"),
        Column("Achieved"), Column("Texts planted next"), Column("Copies", keep=0), Column("Tokens", keep=0),
    ]  # fmt: skip
    cells = [
        [
            *(Cell(str(row[name]), row[name]) for name in own), whole(row["step"]), _given(row["target"]),
            _given(row["achieved"]), *(whole(row[name]) for name in ("texts", "copies", "tokens")),
        ]
        for row in rows
    ]  # fmt: skip
    caption = (
        "Before each segment and at the end: the mean over the probes of the probability of the whole target, and what "
        "the controller then planted. All in control.csv."
    )
    return [Table("Target against achieved", columns, cells, caption, folded=len(rows) > _MOST_OPEN)]


def _given(value: float | None) -> Cell:
    """Three digits, however small; a controller may name none."""
    return Cell(DASH, -1.0) if value is None else Cell(f"{value:.3g}".replace("-", "−"), value)


def _apart(rows: Sequence[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found
