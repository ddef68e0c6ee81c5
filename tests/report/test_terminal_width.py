"""Tables in a narrow terminal: no heading and no value is cut; what does not fit is named."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from pretrain_exp.analysis.scores import Scores
from pretrain_exp.analysis.separations import MINUS
from pretrain_exp.report.finding_tables import _membership
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


@pytest.mark.parametrize(
    ("width", "keep", "shown"),
    [
        (90, (1, 1, 1, 1, 1), (0, 1, 2, 3, 4)),
        (40, (2, 0, 2, 2, 1), (0, 2, 3)),  # the count goes, then what does not answer
        (40, (2, 2, 0, 1, 2), (0, 1, 4)),
        (45, (2, 1, 0, 1, 1), (0, 1, 3, 4)),
        (20, (0, 2, 2, 2, 1), (0, 3)),  # the first always stays, and of equals the widest
    ],
)
def test_what_answers_stays_and_counts_go_first(width: int, keep: tuple[int, ...], shown: tuple[int, ...]) -> None:
    cells = [[Cell(f"{text}{i}") for text in ("name", "1,00", "seed ", "−0.36 to −0.1", "0.018 to 0.09")] for i in "ab"]
    columns = [Column(f"c{i}", keep=each) for i, each in enumerate(keep)]
    kept = [column.label for column in narrowed(Table("t", columns, cells), width).columns]
    assert kept == [f"c{i}" for i in shown]


def test_a_table_of_membership_keeps_its_auc() -> None:
    """At 80 columns, with the names that it has."""
    made = SimpleNamespace(
        panel="", insertion="canaries", evaluation="membership", group="repeated", dose=16, seed=None, scores="treated",
        measure="auc", fpr=None, members=96, others=96, estimate=0.7123, low=0.6012, high=0.8099, flag="",
        method="m", resampling_seed=0,
    )  # fmt: skip
    rows = [
        SimpleNamespace(**(vars(made) | {"metric": metric, "scores": scores, "group": group, "estimate": 0.5 + i / 99}))
        for i, (metric, scores, group) in enumerate(
            product(("neg_zlib", "min_k_pp"), ("treated", MINUS, "control"), ("repeated", "rare"))
        )
    ]
    table = _membership(rows, Scores(np.empty(0, str), {}, {}, {}))
    kept = [column.label for column in narrowed(table, 80).columns]
    assert "AUC, treated" in kept
    assert "Attack" in kept
    assert "Read / not read" not in kept


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
