"""What variants are called, and what they say of each other: the verdict follows the adjusted p."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pretrain_exp.analysis.agreement import agreements
from pretrain_exp.analysis.design import panels_of
from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.outcomes import Relevance
from pretrain_exp.analysis.place import compared, short_variant
from pretrain_exp.analysis.scores import Doses, Scores, Unit
from pretrain_exp.analysis.variants import MOST, scale_answers, variant_answers

SCORES = Scores(np.empty(0, str), {}, {}, {})
ROW = Estimate(
    contrast="treated_vs_control", evaluation="e", task="t", metric="acc", insertion="i", panel="lr=1", dose=16,
    scope="seeds", seeds=3, n=90, estimate=0.5, low=0.4, high=0.6, method="t interval over 3 seeds",
)  # fmt: skip


def against(other: str, estimate: float, p: float, **given: Any) -> Estimate:
    """A variant less the first."""
    fields = {"contrast": "member_vs_member", "panel": f"{other} − lr=1", "estimate": estimate, "p": p}
    return replace(ROW, **{**fields, "low": estimate - 0.1, "high": estimate + 0.1, **given})


@pytest.mark.parametrize(
    ("label", "short"),
    [
        ("", ""),
        ("insertion.one.repetitions=[0,4]", "repetitions=[0,4]"),
        ("one.range=1, two.range=2", "one.range=1, two.range=2"),
        ("range={start:0.0,end:0.3333,unit:share}", "range=0 to 33.33 % of the run"),
        ("insertion.i.range={start:10,end:20,unit:steps}, lr=1e-3", "range=steps 10 to 20, lr=1e-3"),
        ("range={start:0,end:2,unit:tokens,more:1}", "range={start:0,end:2,unit:tokens,more:1}"),
    ],
)
def test_a_variant_is_called_as_one_would_say_it(label: str, short: str) -> None:
    assert short_variant(label) == short


TELLS = "Variants differ in what reading an item 16 times does to accuracy on it. "
NONE = "No variant can be told from lr=1 in what reading an item 16 times does to accuracy on it. "
PASSAGES: dict[str, tuple[list[Estimate], list[str]]] = {
    "one variant": ([], []),
    "told": (
        [
            against("lr=2", 0.3, 0.01), against("lr=3", 0.05, 0.6),
            against("lr=3", -0.25, math.nan, panel="lr=3 − lr=2", low=math.nan, high=math.nan, flag="no variance"),
        ],
        [
            f"{TELLS}Effects: +30.0 points with lr=2 less lr=1 (+20.0 to +40.0; told apart), +5.0 points with lr=3 "
            "less lr=1 (−5.0 to +15.0), −25.0 points with lr=3 less lr=2 (no interval: no variance) (95 % t interval "
            "over 3 seeds; intervals are of single comparisons, told after Benjamini-Hochberg over 3)."
        ],
    ),
    "not told": (
        [against("lr=2", 0.05, 0.6)],
        [f"{NONE}Less its effect: +5.0 points with lr=2 (−5.0 to +15.0) (95 % t interval over 3 seeds)."],
    ),
    "a p that does not outlive adjustment": (
        [against("lr=2", 0.12, 0.04), against("lr=3", 0.05, 0.6)],
        [
            f"{NONE.replace('lr=1', 'another')}Effects: +12.0 points with lr=2 less lr=1 (+2.0 to +22.0), +5.0 points "
            "with lr=3 less lr=1 (−5.0 to +15.0) (95 % t interval over 3 seeds; intervals are of single comparisons, "
            "told after Benjamini-Hochberg over 2)."
        ],
    ),
    "other doses, metrics, groups and single seeds": (
        [
            against("lr=2", 0.05, 0.6), against("lr=2", 0.9, 0.001, dose=4), against("lr=2", 0.9, 0.001, group="g"),
            against("lr=2", 0.9, 0.001, metric="margin"), against("lr=2", 0.9, 0.001, scope="run", seed=0),
        ],
        [f"{NONE}Less its effect: +5.0 points with lr=2 (−5.0 to +15.0) (95 % t interval over 3 seeds)."],
    ),
    "the next metric too": (
        [against("lr=2", 0.05, 0.6), replace(ROW, metric="gold_ce"), against("lr=2", -0.3, 0.01, metric="gold_ce")],
        [
            f"{NONE}Less its effect: +5.0 points with lr=2 (−5.0 to +15.0) (95 % t interval over 3 seeds).",
            "Variants differ in what reading an item 16 times does to cross-entropy of the right answer on it. Less "
            "the effect with lr=1: −0.300 nats per token with lr=2 (−0.400 to −0.200; told from it) (95 % t interval "
            "over 3 seeds).",
        ],
    ),
    "no interval": (
        [against("lr=2", 0.05, math.nan, low=math.nan, high=math.nan, flag="no variance")],
        [f"{NONE}Less its effect: +5.0 points with lr=2 (no interval: no variance) (95 % t interval over 3 seeds)."],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PASSAGES)
def test_what_variants_say_of_each_other(name: str) -> None:
    rows, expected = PASSAGES[name]
    labels = ["lr=1", "lr=2", "lr=3"] if any("lr=3" in row.panel for row in rows) else ["lr=1", "lr=2"]
    rows = [ROW, *rows]
    assert variant_answers(rows, SCORES, Relevance(rows), labels) == expected


@pytest.mark.parametrize(
    ("labels", "pairs"),
    [
        ([""], []),
        (["b", "a"], ["a − b"]),
        (["b", "a", "d", "c"], ["a − b", "d − b", "c − b", "d − a", "c − a", "c − d"]),
        (["b", "a", "d", "c", "e"], ["a − b", "d − b", "c − b", "e − b"]),
    ],
)
def test_few_variants_are_compared_by_pairs_and_many_with_the_first_typed(labels: list[str], pairs: list[str]) -> None:
    assert list(compared(labels)) == pairs


def test_single_runs_are_said_to_be_such_and_many_are_cut() -> None:
    run = replace(ROW, scope="run", seed=0, seeds=1, method="paired t interval over items")
    rows = [run, *(replace(against(f"lr={i}", 0.3, 0.001), scope="run", seed=0) for i in range(2, MOST + 4))]
    (passage,) = variant_answers(rows, SCORES, Relevance(rows), [f"lr={i}" for i in range(1, MOST + 4)])
    assert passage.count("told from it)") == MOST
    assert "; 2 more in the tables (one run; 95 % " in passage


def scale(panel: str, *effects: float) -> list[Estimate]:
    return [replace(ROW, panel=panel, dose=dose, estimate=effect) for dose, effect in enumerate(effects, start=1)]


@pytest.mark.parametrize(
    ("rows", "beginning"),
    [
        (scale("model=a", 1, 2, 3), None),
        (scale("model=a", 1, 2) + scale("model=b", 1, 2), None),
        (
            scale("model=a", 1, 2, 3) + scale("model=b", 1, 3, 2),
            "Two scales order 67 % of 3 pairs of conditions alike in accuracy: model=a and model=b 2 of 3 "
            "(Spearman 0.50). ",
        ),
        (
            scale("model=b", 1, 2, 3) + scale("model=a", 3, 2, 1) + scale("model=c", 1, 2, 4),
            "Two scales order 0 % to 100 % of 3 pairs of conditions alike in accuracy: model=b and model=a 0 of 3 "
            "(Spearman −1.00), model=b and model=c 3 of 3 (Spearman 1.00), model=a and model=c 0 of 3 "
            "(Spearman −1.00). ",
        ),
    ],
)  # fmt: skip
def test_scales_are_said_to_agree_or_not(rows: list[Estimate], beginning: str | None) -> None:
    found = scale_answers(agreements(rows), SCORES, rows[0])
    assert bool(found) == (beginning is not None)
    assert all(text.startswith(str(beginning)) for text in found)


def test_variants_stand_in_the_order_of_the_sweep() -> None:
    units = [Unit(f"model={name}", seed) for name in ("tiny_64", "tiny", "tiny_256") for seed in (1, 0)]
    doses = Doses({(unit, "i"): np.zeros(1) for unit in units}, {}, {}, 0)
    assert doses.units == units
    panels = panels_of(doses, [Unit("model=other", 0), *units])
    assert [panel.label for panel in panels] == ["model=tiny_64", "model=tiny", "model=tiny_256", "model=other"]
    assert [panel.seeds for panel in panels] == [[0, 1], [0, 1], [0, 1], [0]]
