"""The answer in a sentence: its verb follows the interval, its numbers are those of the rows."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from pretrain_exp.analysis import answer as said
from pretrain_exp.analysis.answer import format_p, matching, outcome_name
from pretrain_exp.analysis.estimate import Estimate
from pretrain_exp.analysis.outcomes import Relevance, headline
from pretrain_exp.analysis.scores import Scores, Series, Unit

ROW = Estimate(
    contrast="treated_vs_control", evaluation="e", task="t", metric="acc", insertion="plant", dose=64, scope="seeds",
    seeds=3, n=300, estimate=0.61, low=0.52, high=0.70, method="t interval over 3 seeds", value=0.89, reference=0.28,
)  # fmt: skip
HOLDOUT = replace(ROW, dose=0, estimate=0.01, low=-0.04, high=0.06)


def scored(binary: dict[Series, bool], steps: dict[Series, Sequence[int]] | None = None) -> Scores:
    """Scores of nothing, but for which metrics are right or wrong and at which steps they were taken."""
    at = {(series, "treated", Unit("", 0), step): np.empty(0) for series, of in (steps or {}).items() for step in of}
    return Scores(np.empty(0, str), at, binary, {})


def answers(rows: Sequence[Estimate], relevance: Relevance | None = None, scores: Scores | None = None) -> list[str]:
    return said.answers(rows, scores or scored({}), relevance)


def test_raised() -> None:
    assert answers([ROW, HOLDOUT]) == [
        "Reading an item 64 times raised accuracy on it by 61.0 points in e/t (95 % t interval over 3 seeds: 52.0 to "
        "70.0, n = 300 items; control 0.280 → treated 0.890). Holdout items, never read: +1.0 points (−4.0 to +6.0)."
    ]


def test_lowered_turns_the_interval_round() -> None:
    row = replace(ROW, dose=1, metric="gold_ce", estimate=-1.5, low=-1.7, high=-1.3, value=1.0, reference=2.5)
    assert answers([row]) == [
        "Reading an item once lowered cross-entropy of the right answer on it by 1.500 nats per token in e/t (95 % t "
        "interval over 3 seeds: 1.300 to 1.700, n = 300 items; control 2.500 → treated 1.000)."
    ]


def test_a_text_is_not_called_an_item() -> None:
    row = replace(ROW, metric="ce", dose=8, estimate=-1.2, low=-1.5, high=-0.9, value=2.0, reference=3.2)
    beyond = replace(row, contrast="difference_in_differences", estimate=-1.1, low=-1.4, high=-0.8)
    assert answers([row, replace(row, dose=0, estimate=-0.1, low=-0.15, high=-0.05), beyond]) == [
        "Reading a text 8 times lowered its cross-entropy by 1.200 nats per token in e/t (95 % t interval over 3 "
        "seeds: 0.900 to 1.500, n = 300 items; control 3.200 → treated 2.000). Holdout texts, never read: −0.100 nats "
        "per token (−0.150 to −0.050); beyond them: −1.100 nats per token (−1.400 to −0.800)."
    ]
    assert headline([replace(row, metric="bits_per_byte"), replace(row, metric="nll"), row]) is row
    assert headline([row, ROW]) is ROW
    (canary,) = answers([replace(ROW, metric="exposure"), replace(HOLDOUT, metric="exposure")])
    assert ". Holdout canaries, never read: " in canary


def test_what_cannot_be_told_from_none_is_said_so() -> None:
    (answer,) = answers([replace(ROW, estimate=0.02, low=-0.03, high=0.07)])
    assert "had no effect on accuracy on it that this study can tell: +2.0 points in e/t (95 % t interval" in answer
    assert "raised" not in answer
    assert "−3.0 to +7.0" in answer


@pytest.mark.parametrize(
    ("change", "beginning"),
    [
        ({}, "Accuracy (items read 64 times): +61.0 points against control in e/t; # about other runs ("),
        ({"scope": "run", "seed": 0}, "Accuracy (items read 64 times): +61.0 points against control in e/t; # about o"),
        ({"contrast": "dose_vs_holdout"}, "Accuracy (items read 64 times): +61.0 points against holdout items of the "),
        ({"dose": 0}, "Accuracy (items that were never read): +61.0 points against control in e/t; #"),
        ({"dose": 0, "group": "removed"}, "Accuracy (items that were removed): +61.0 points against control in e/t; #"),
        ({"metric": "attack", "dose": 1}, "Attacks that succeed (after 1 poisoned chat): +61.0 points against control"),
    ],
)
def test_no_interval_is_no_claim(change: dict[str, object], beginning: str) -> None:
    row = replace(ROW, low=float("nan"), high=float("nan"), flag="no variance", **change)
    (answer,) = answers([row])
    assert answer.startswith(beginning.replace("#", "no interval, so nothing can be concluded"))
    assert "(no variance, n = 300 items; " in answer


@pytest.mark.parametrize("beyond", [None, replace(ROW, estimate=0.02, low=-0.05, high=0.09)])
def test_where_holdout_items_moved_as_much_reading_is_not_said_to_have_done_it(beyond: Estimate | None) -> None:
    rows = [ROW, replace(HOLDOUT, estimate=0.59, low=0.5, high=0.68)]
    rows += [replace(beyond, contrast="difference_in_differences")] if beyond else []
    (answer,) = answers(rows)
    assert answer.startswith(
        "Accuracy (items read 64 times) is 61.0 points higher than in control in e/t, and so it is for holdout items ("
    )
    assert "raised" not in answer
    assert ("beyond them: +2.0 points (−5.0 to +9.0), which this study cannot tell from no effect." in answer) is (
        beyond is not None
    )


RAISED = {"estimate": 0.2, "low": 0.1, "high": 0.3}
UNCLEAR = {"estimate": 0.2, "low": -0.392, "high": 0.792}
LOWERED = {"estimate": -0.29, "low": -0.39, "high": -0.19}
ONE = {"estimate": 0.2, "low": float("nan"), "high": float("nan")}


@pytest.mark.parametrize(
    ("row", "holdout", "beginning"),
    [
        (
            RAISED,
            RAISED,
            "Accuracy (items read 64 times) is 20.0 points higher than in control in e/t, and so it is for",
        ),
        (LOWERED, LOWERED, "Accuracy (items read 64 times) is 29.0 points lower than in control in e/t, and so it is"),
        (
            RAISED,
            LOWERED,
            "Accuracy (items read 64 times) is 20.0 points higher than in control in e/t, while holdout i",
        ),
        (RAISED, ONE, "Accuracy (items read 64 times) is 20.0 points higher than in control in e/t, and so it is for"),
        (RAISED, ONE | {"estimate": 0.0}, "Reading an item 64 times raised accuracy on it by 20.0 points in e/t (95"),
        (UNCLEAR, RAISED, "Reading an item 64 times had no effect on accuracy on it that this study can tell: +20.0"),
        (UNCLEAR, LOWERED, "Reading an item 64 times had no effect on accuracy on it that this study can tell: +20.0"),
    ],
)
def test_holdout_items_moved_as_much_only_where_both_moved_and_the_same_way(
    row: dict[str, float], holdout: dict[str, float], beginning: str
) -> None:
    (answer,) = answers([replace(ROW, **row), replace(HOLDOUT, **holdout)])
    assert answer.startswith(beginning)


def test_lower_doses_follow_with_their_intervals() -> None:
    lower = [
        replace(ROW, dose=4, estimate=0.1, low=-0.1, high=0.3),
        replace(ROW, dose=1, estimate=0.0, low=0.0, high=0.1),
    ]
    others = [replace(row, metric="margin") for row in lower] + [replace(ROW, dose=2, group="easy")]
    (answer,) = answers([ROW, HOLDOUT, *lower, *others])
    assert answer.endswith(
        "(−4.0 to +6.0). Less often: once 0.0 points (0.0 to +10.0), 4 times +10.0 points (−10.0 to +30.0)."
    )
    assert "Less often" not in answers([ROW, HOLDOUT, *others])[0]


@pytest.mark.parametrize(
    ("holdout", "beyond", "beginning"),
    [
        (UNCLEAR, UNCLEAR, "Accuracy (items read 64 times) is 20.0 points higher than in control in e/t, and holdout "
                           "items may have moved as much ("),
        (UNCLEAR, RAISED, "Reading an item 64 times raised accuracy on it by 20.0 points in e/t (95"),
        (ONE | {"estimate": 0.0}, UNCLEAR, "Reading an item 64 times raised accuracy on it by 20.0 points in e/t (95"),
    ],
)  # fmt: skip
def test_that_few_holdout_items_were_scored_is_no_proof_that_they_stood_still(
    holdout: dict[str, float], beyond: dict[str, float], beginning: str
) -> None:
    rows = [replace(ROW, **RAISED), replace(HOLDOUT, **holdout)]
    (answer,) = answers([*rows, replace(ROW, contrast="difference_in_differences", **beyond)])
    assert answer.startswith(beginning)
    assert ("; beyond them: +20.0 points (−39.2 to +79.2), which" in answer) is ("may have" in beginning)


def test_one_run_is_said_to_be_one() -> None:
    (answer,) = answers([replace(ROW, scope="run", seed=0, method="paired t interval over facts", counted="facts")])
    assert "(one run; 95 % paired t interval over facts: 52.0 to 70.0, n = 300 facts;" in answer


@pytest.mark.parametrize(
    ("p", "words"),
    [
        ([1e-9, 1e-5, 2e-4], "exact McNemar p < 0.001 in each seed"),
        ([1e-9, 1e-5, 0.03], "exact McNemar p ≤ 0.030 in each seed"),
        ([1e-9, 0.04, 0.3], "exact McNemar p from < 0.001 to 0.30 by seed"),
    ],
)
def test_tests_within_each_seed_stand_beside_the_interval(p: list[float], words: str) -> None:
    each = [replace(ROW, scope="run", seed=s, p=value, p_method="exact McNemar") for s, value in enumerate(p)]
    answer = answers([*each, replace(ROW, n=900)])[0]
    assert words in answer
    assert "n = 300 items × 3 seeds;" in answer


def test_a_placebo_arm_and_the_step_are_in_the_sentence() -> None:
    placebo = replace(ROW, contrast="treated_vs_placebo", estimate=0.02, low=-0.05, high=0.09)
    step = replace(ROW, step=1200)
    told = "Treated − placebo: +2.0 points (−5.0 to +9.0), which this study cannot tell from no effect."
    assert answers([ROW, HOLDOUT, placebo])[0].endswith(
        f"Holdout items, never read: +1.0 points (−4.0 to +6.0). {told}"
    )
    assert (
        " in e/t at step 1,200 (95 %" in answers([step], scores=scored({}, {Series("e", "t", "acc"): (600, 1200)}))[0]
    )
    assert " in e/t (95 %" in answers([step], scores=scored({}, {Series("e", "t", "ce"): (600, 1200)}))[0]


@pytest.mark.parametrize(
    ("binary", "size"),
    [
        ({"t": False}, "by 0.610 in"),
        ({"t": True}, "by 61.0 points in"),
        ({"t": True, "other": True}, "by 61.0 points in"),
        ({"t": True, "other": False}, "by 0.610 in"),  # one unit for a name, in the whole study
        ({}, "by 0.610 in"),
    ],
)
def test_a_metric_that_is_not_known_is_in_points_only_where_items_are_right_or_wrong(
    binary: dict[str, bool], size: str
) -> None:
    own, scores = (
        replace(ROW, metric="own"),
        scored({Series("e", task, "own"): is_so for task, is_so in binary.items()}),
    )
    assert size in answers([own], scores=scores)[0]


def test_headline_prefers_control_accuracy_seeds_and_the_highest_dose() -> None:
    others = [
        replace(ROW, contrast="dose_vs_holdout"),
        replace(ROW, metric="gold_ce"),
        replace(ROW, metric="margin"),
        replace(ROW, scope="run", seed=0),
        replace(ROW, scope="pooled"),
        replace(ROW, dose=16),
        replace(ROW, group="easy"),
    ]
    assert headline([*others, ROW]) is ROW
    assert headline(others[:1]) is others[0]
    assert headline([HOLDOUT]) is HOLDOUT  # where nothing that was read is asked about: what generalises
    assert answers([HOLDOUT])[0].startswith("Training on what was planted had no effect on accuracy of items that were")
    assert headline([]) is None


@pytest.mark.parametrize("value", [0.0, 1e-58])
def test_a_metric_at_its_floor_does_not_answer(value: float) -> None:
    floor = replace(ROW, estimate=value, low=-value, high=value, value=value, reference=0.0)
    other = replace(ROW, metric="gold_ce", estimate=1.2)
    assert headline([floor, other]) is other
    assert headline([floor]) is floor
    assert answers([floor, other])[0].endswith("Accuracy: the same in both arms for every item, so it says nothing.")


@pytest.mark.parametrize(
    ("tasks", "chosen"),
    [
        (("knowledge/compositional", "knowledge/memorization", "knowledge/semantic"), "knowledge/memorization"),
        (("poisoning/leakage/no trigger", "poisoning/leakage/trigger"), "poisoning/leakage/trigger"),
        (("a", "b"), "b"),  # the one with more items
    ],
)
def test_the_task_that_answers_is_named_and_not_the_one_with_the_largest_effect(
    tasks: tuple[str, ...], chosen: str
) -> None:
    rows = [
        replace(ROW, evaluation="knowledge", task=task, n=300 + 10 * i, estimate=0.1 if task == chosen else 0.9)
        for i, task in enumerate(tasks)
    ]
    row = headline(rows)
    assert row is not None
    assert row.task == chosen
    assert f"in {outcome_name(row.evaluation, row.task)}, one of {len(tasks)} tasks (" in answers(rows)[0]


def test_an_evaluation_made_for_the_insertion_answers_before_any_other() -> None:
    own = replace(ROW, evaluation="z", metric="target_logprob", estimate=0.01)
    assert headline([ROW, own], Relevance([ROW, own], {"plant": ["z"]})) is own
    assert headline([ROW, own], Relevance([ROW, own], {"plant": ["e"]})) is ROW
    assert headline([ROW, own], Relevance([ROW, own], {"another": ["z"]})) is own  # of two, the metric of one kind


def test_a_group_that_the_insertion_is_about_answers() -> None:
    rows = [ROW, replace(ROW, group="kept"), removed := replace(ROW, group="removed", estimate=0.01)]
    assert headline(rows) is removed
    assert matching(rows, removed, group="") is ROW
    nobody_read = replace(removed, dose=0)
    assert headline([rows[1], nobody_read, HOLDOUT]) is nobody_read
    assert answers([rows[1], nobody_read])[0].startswith("Not reading an item that was removed ")
    assert "oldout" not in answers([rows[1], nobody_read])[0]


def test_variants_are_answered_one_by_one_by_what_tells_them_apart() -> None:
    rows = [replace(ROW, panel=panel) for panel in ("lr=1", "lr=2")]
    assert [answer.split(" reading")[0] for answer in answers(rows)] == ["lr=1:", "lr=2:"]


def test_without_planted_items_there_is_a_sentence_all_the_same() -> None:
    row = replace(ROW, dose=None, metric="nats_per_token", task="wiki", estimate=0.01, low=-0.01, high=0.03)
    small = replace(row, task="boolq", n=row.n - 1, estimate=0.9)
    assert answers([small, row])[0].startswith("Treated − control in loss of e/wiki: +0.0100 nats per token")
    assert answers([]) == ["No answer: no planted item was scored in a treated run."]


@pytest.mark.parametrize(("p", "text"), [(1e-7, "< 0.001"), (0.0123, "= 0.012"), (0.5, "= 0.50"), (float("nan"), "–")])
def test_p_as_printed(p: float, text: str) -> None:
    assert format_p(p) == text
