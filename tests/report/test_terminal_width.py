"""Tables in a narrow terminal: no heading and no value is cut; what does not fit is named."""

import pytest
from rich.console import Console

from pretrain_exp.report.tables import Cell, Column, Table
from pretrain_exp.report.terminal import narrowed, rich_table

LABELS = ("Noise", "Times read", "Scope", "Mean", "TPR at 1 % FPR")
VALUES = [("planted", "1", f"seed {i}", "−0.36 (−0.66 to −0.07)", "0.018 (0.003 to 0.094)") for i in range(3)]


def made() -> Table:
    rows = [[Cell(text, text) for text in row] for row in VALUES]
    return Table("noise", [Column(label) for label in LABELS], rows, "The caption.")


@pytest.mark.parametrize(
    ("width", "shown", "caption"),
    [
        (200, LABELS, "The caption."),
        (68, LABELS, "The caption."),
        (60, ("Noise", "Times read", "Scope", "Mean"), "TPR at 1 % FPR: 0.018 (0.003 to 0.094). The caption."),
        (20, ("Noise", "Scope"), "Times read: 1. Mean: −0.36 (−0.66 to −0.07). TPR"),
    ],
)
def test_what_says_nothing_goes_first(width: int, shown: tuple[str, ...], caption: str) -> None:
    table = narrowed(made(), width)
    assert tuple(column.label for column in table.columns) == shown
    assert caption in table.caption


@pytest.mark.parametrize("width", [40, 45, 60, 80])
def test_nothing_is_cut(width: int) -> None:
    varied = made()
    varied.rows[0][3] = Cell("−1.36 (−1.66 to −1.07)", 0)
    varied.rows[0][4] = Cell("1.018 (0.003 to 0.094)", 0)
    varied.rows[0][0], varied.rows[0][1] = Cell("fresh", 0), Cell("2", 0)
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(rich_table(varied, width))
    said = console.export_text()
    assert "…" not in said
    kept = [column.label for column in narrowed(varied, width).columns]
    assert kept[0] == "Noise"
    assert all(label in kept or label in " ".join(said.split()) for label in LABELS)
