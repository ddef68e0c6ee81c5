"""A picture in a report: what is drawn and its data in, PNG, SVG and CSV files and an inline SVG out.

Files have a white ground and stand on their own. The inline SVG has none: its ink, grid and arm colours are CSS
variables, so that one drawing serves light, dark and paper. Colours are those of Okabe and Ito (2008), which
colour-blind readers tell apart; markers and line styles tell the arms apart without colour.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import pyarrow as pa
import pyarrow.csv
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, FAINT, GRID, PAPER = "#222222", "#6b6f76", "#dcdcdc", "#ffffff"
ARM_COLOUR = {"treated": "#d55e00", "control": "#0072b2", "placebo": "#009e73"}
ARM_MARKER = {"treated": "o", "control": "s", "placebo": "^"}
ARM_LINE = {"treated": "-", "control": "--", "placebo": ":"}
VARIANT_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
VARIANT_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    **{colour: f"var(--{arm})" for arm, colour in ARM_COLOUR.items()},
}
WIDTH = 6.4  # inches
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "savefig.facecolor": PAPER,
}


@dataclass(frozen=True)
class Picture:
    """name: of its files; section: of the report; draw: fills the axes (rows x columns); data: what is shown."""

    name: str
    section: str
    title: str
    caption: str
    data: pa.Table
    draw: Callable[[Sequence[Axes]], None]
    columns: int = 1
    heights: tuple[float, ...] = (3.5,)  # inches of each row; rows share the x axis


@dataclass(frozen=True)
class Saved:
    """A picture whose files are written; svg: to be set into a page."""

    picture: Picture
    svg: str

    def file(self, suffix: str) -> str:
        return f"figures/{self.picture.name}.{suffix}"


def save(picture: Picture, folder: Path) -> Saved:
    """Writes <name>.png (200 dpi), <name>.svg and <name>.csv; the same picture gives the same bytes."""
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": picture.name}):
        figure = Figure(figsize=(WIDTH, sum(picture.heights)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(
            len(picture.heights), picture.columns, squeeze=False, sharex=len(picture.heights) > 1,
            height_ratios=picture.heights,
        )  # fmt: skip
        picture.draw(list(axes.flat))
        figure.draw_without_rendering()  # lays the axes out, once for both files
        figure.set_layout_engine("none")
        figure.savefig(folder / f"{picture.name}.png", dpi=200, metadata={"Software": None})
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    svg = drawn.getvalue()
    ground = f'<rect width="100%" height="100%" fill="{PAPER}"/>'
    whole = re.sub(r"(<svg [^>]*>)", rf"\1{ground}", svg, count=1)
    (folder / f"{picture.name}.svg").write_text(whole, encoding="utf-8")
    pyarrow.csv.write_csv(picture.data, folder / f"{picture.name}.csv")
    return Saved(picture, _inline(svg, picture))


def _inline(svg: str, picture: Picture) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    label = picture.title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return re.sub(
        r'<svg ([^>]*?)width="[^"]*" height="[^"]*"|<svg ', rf'<svg role="img" aria-label="{label}" \1', svg, count=1
    )


def slug(*parts: str) -> str:
    """A file name of these parts, empty ones left out."""
    return "-".join(re.sub(r"[^A-Za-z0-9._=]+", "_", part).strip("_") for part in parts if part)


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> pa.Table:
    """Rows as a table with these columns, in this order, be there rows or not."""
    return pa.table({column: [row[column] for row in rows] for column in columns})
