"""Effects of studies that are small enough to check by hand."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from tiny import design, items, one, results, study

from pretrain_exp.analysis.analyse import analyse
from pretrain_exp.analysis.effects import effects
from pretrain_exp.analysis.estimate import Estimate, to_table
from pretrain_exp.analysis.means import t_interval, welch
from pretrain_exp.analysis.paired import mcnemar_exact
from pretrain_exp.analysis.proportions import newcombe
from pretrain_exp.analysis.separations import separations

# eight items: the first four are held out, the others planted 4 times
DOSES = [0, 0, 0, 0, 4, 4, 4, 4]


TREATED = [1, 0, 0, 0, 1, 1, 1, 0]


CONTROL = [0, 1, 0, 0, 0, 0, 1, 0]


def single() -> list[Estimate]:
    scores = results({("", "treated", 0): TREATED, ("", "control", 0): CONTROL})
    return effects(design(study(scores, items({("", 0): DOSES}))))


def test_one_seed_against_control() -> None:
    row = one(single(), contrast="treated_vs_control", dose=4)
    assert (row.n, row.estimate, row.value, row.reference) == (4, 0.5, 0.75, 0.25)
    assert (row.b, row.c, row.p) == (2, 0, mcnemar_exact(2, 0))
    assert (row.scope, row.seed, row.step) == ("run", 0, 100)
    holdout = one(single(), contrast="treated_vs_control", dose=0)
    assert (holdout.estimate, holdout.b, holdout.c) == (0.0, 1, 1)


def test_one_seed_against_holdout() -> None:
    row = one(single(), contrast="dose_vs_holdout")
    assert (row.dose, row.n, row.estimate) == (4, 8, 0.5)
    assert (row.low, row.high) == pytest.approx(newcombe(3, 4, 1, 4))


def test_difference_in_differences() -> None:
    row = one(single(), contrast="difference_in_differences")
    expected = welch([1, 1, 0, 0], [1, -1, 0, 0])
    assert row.estimate == expected.mean == 0.5
    assert (row.low, row.high) == pytest.approx((expected.low, expected.high))


def test_nothing_over_seeds_from_one_seed() -> None:
    assert {row.scope for row in single()} == {"run"}


def seeds(metrics: Sequence[str] = ("acc",)) -> list[Estimate]:
    rng = np.random.default_rng(0)
    scores, doses = {}, {}
    for seed in (0, 1, 2):
        order = rng.permutation(8)
        doses["", seed] = np.array(DOSES)[order].tolist()
        scores["", "treated", seed] = (np.array(TREATED)[order] if seed < 2 else np.ones(8)).tolist()
        scores["", "control", seed] = np.array(CONTROL)[order].tolist()
    table = pa.concat_tables([results(scores, metric) for metric in metrics])
    return effects(design(study(table, items(doses)), resamples=200))


def test_the_seed_is_the_unit_and_doses_follow_their_seed() -> None:
    rows = seeds()
    row = one(rows, contrast="treated_vs_control", dose=4, scope="seeds")
    expected = t_interval([0.5, 0.5, 0.75])
    expected_row = [float(x) for x in (expected.mean, expected.low, expected.high, expected.p)]
    assert [row.estimate, row.low, row.high, row.p] == pytest.approx(expected_row)
    assert (row.n, row.seeds, row.method) == (12, 3, "t interval over 3 seeds")
    pooled = one(rows, contrast="treated_vs_control", dose=4, scope="pooled")
    assert (pooled.b, pooled.c) == (7, 0)
    assert "descriptive" in pooled.flag
    assert np.isnan(pooled.low)
    bootstrap = one(rows, contrast="treated_vs_control", dose=4, scope="bootstrap")
    assert bootstrap.resampling_seed == 0
    assert bootstrap.low < bootstrap.estimate < bootstrap.high


@pytest.mark.parametrize(
    ("metrics", "drawn"), [(("acc", "acc_norm"), {"acc"}), (("own", "zown"), {"own"}), (("acc", "primary"), None)]
)
def test_a_bootstrap_is_of_the_metrics_that_are_shown_first(metrics: tuple[str, ...], drawn: set[str] | None) -> None:
    """A user's own is shown where there is no other; every metric has all other rows."""
    rows = [row for row in seeds(metrics) if row.contrast == "treated_vs_control"]
    assert {row.metric for row in rows if row.scope == "bootstrap"} == (drawn or set(metrics))
    assert {row.metric for row in rows if row.scope == "seeds"} == set(metrics)


def test_equal_effects_in_all_seeds_are_flagged() -> None:
    scores = {("", arm, s): values for s in (0, 1) for arm, values in (("treated", TREATED), ("control", CONTROL))}
    rows = effects(design(study(results(scores), items({("", 0): DOSES, ("", 1): DOSES}))))
    row = one(rows, contrast="treated_vs_control", dose=4, scope="seeds")
    assert np.isnan([row.low, row.high, row.p]).all()
    assert row.flag == "no variance"


def test_item_groups_apart_when_they_cross_doses() -> None:
    scores = results({("", "treated", 0): TREATED, ("", "control", 0): CONTROL})
    crossed = effects(design(study(scores, items({("", 0): DOSES}, groups=list("ababaabb")))))
    a, b = (one(crossed, contrast="treated_vs_control", dose=4, group=group) for group in "ab")
    assert (a.n, a.estimate, b.n, b.estimate) == (2, 1.0, 2, 0.0)
    assert one(crossed, contrast="treated_vs_control", dose=4, group="").n == 4
    by_dose = effects(design(study(scores, items({("", 0): DOSES}, groups=list("hhhhpppp")))))
    assert {row.group for row in by_dose} == {""}


@pytest.mark.parametrize(
    ("groups", "cells"),
    [
        (["", "a", "", "a", "", "a", "", "a"], {(0, ""), (4, ""), (0, "a"), (4, "a")}),
        (["", "removed", "kept", "kept", "kept", "kept", "kept", ""], {(0, "removed"), (0, "kept"), (4, "kept")}),
    ],
)
def test_no_group_is_no_group_of_its_own(groups: list[str], cells: set[tuple[int, str]]) -> None:
    scores = results({("", "treated", 0): TREATED, ("", "control", 0): CONTROL})
    data = study(scores, items({("", 0): DOSES}, groups=groups))
    rows = [row for row in effects(design(data)) if row.contrast == "treated_vs_control"]
    assert sorted((row.dose, row.group) for row in rows) == sorted(cells)
    assert any("items have no group, where others have" in remark.text for remark in analyse(data).remarks)


def test_a_sweep_over_doses_is_one_dose_response() -> None:
    """Variants hold doses 1 and 4; the control stands for both, and the holdouts of both are averaged by item."""
    scores = {
        ("repetitions=1", "treated", 0): [1, 0, 1, 0],
        ("repetitions=4", "treated", 0): [0, 0, 1, 1],
        ("", "control", 0): [0, 0, 0, 0],
    }
    data = study(results(scores), items({("repetitions=1", 0): [0, 0, 1, 1], ("repetitions=4", 0): [0, 0, 4, 4]}))
    assert [panel.label for panel in design(data).panels] == [""]
    rows = effects(design(data))
    assert one(rows, contrast="treated_vs_control", dose=1).estimate == 0.5
    assert one(rows, contrast="treated_vs_control", dose=4).estimate == 1.0
    holdout = one(rows, contrast="treated_vs_control", dose=0)
    assert (holdout.n, holdout.estimate) == (2, 0.25)  # item 0: right in one of two runs
    assert holdout.b is None
    assert "means of 2 runs" in holdout.method
    assert {row.contrast for row in rows if row.panel} == set()


DOSE_SWEEP = {1: [0, 0, 1, 1], 4: [0, 0, 4, 4]}


@pytest.mark.parametrize(
    ("doses", "panels"),
    [
        ({"repetitions=1": 1, "repetitions=4": 4}, [""]),
        ({"repetitions=[0, 1]": 1, "repetitions=[0, 4]": 4}, [""]),
        ({"repetitions=1, lr=0.1": 1, "repetitions=4, lr=0.1": 4}, [""]),
        ({"repetitions=1": 1, "repetitions=4": 1}, ["repetitions=1", "repetitions=4"]),
        ({"lr=1": 1, "lr=2": 4}, ["lr=1", "lr=2"]),
        ({"mode=random": 1, "fraction=0.5": 4}, ["mode=random", "fraction=0.5"]),  # as they were swept
        ({"lr=1, repetitions=1": 1, "lr=2, repetitions=4": 4}, ["lr=1, repetitions=1", "lr=2, repetitions=4"]),
        (
            {"lr=1, repetitions=1": 1, "lr=1, repetitions=4": 4, "lr=2, repetitions=1": 1, "lr=2, repetitions=4": 4},
            ["lr=1", "lr=2"],
        ),
    ],
)
def test_variants_share_a_panel_only_where_nothing_but_their_dose_differs(
    doses: dict[str, int], panels: list[str]
) -> None:
    scores = results({(member, "treated", 0): [0, 1, 0, 1] for member in doses})
    data = study(scores, items({(member, 0): DOSE_SWEEP[dose] for member, dose in doses.items()}))
    assert [panel.label for panel in design(data).panels] == panels
    assert sum(len(panel.units) for panel in design(data).panels) == len(doses)


def test_dose_sweeps_under_two_conditions_are_compared_at_each_dose() -> None:
    scores: dict[tuple[str, str, int], list[int]] = {("", "control", 0): [0, 0, 0, 0]}
    doses = {}
    for rate, right in ((1, {1: [0, 0, 1, 0], 4: [0, 0, 1, 1]}), (2, {1: [1, 0, 0, 0], 4: [0, 0, 0, 1]})):
        for dose, values in right.items():
            scores[f"lr={rate}, repetitions={dose}", "treated", 0] = values
            doses[f"lr={rate}, repetitions={dose}", 0] = DOSE_SWEEP[dose]
    rows = effects(design(study(results(scores), items(doses))))
    compared = {row.dose: row.estimate for row in rows if row.contrast == "member_vs_member"}
    assert compared == {0: 0.25, 1: -0.5, 4: -0.5}
    assert {row.panel for row in rows if row.contrast == "member_vs_member"} == {"lr=2 − lr=1"}


def test_variants_at_the_same_dose_are_compared() -> None:
    scores = {
        ("lr=1", "treated", 0): TREATED,
        ("lr=2", "treated", 0): [1, 0, 0, 0, 1, 1, 1, 1],
        ("", "control", 0): CONTROL,
    }
    rows = effects(design(study(results(scores), items({("lr=1", 0): DOSES, ("lr=2", 0): DOSES}))))
    row = one(rows, contrast="member_vs_member", dose=4)
    assert (row.panel, row.n, row.estimate) == ("lr=2 − lr=1", 4, 0.25)
    assert one(rows, contrast="treated_vs_control", dose=4, panel="lr=2").estimate == 0.75


def test_only_the_last_step_counts_and_pairs_need_the_same_step() -> None:
    early = results({("", "treated", 0): [0] * 8, ("", "control", 0): [1] * 8}, step=10)
    late = results({("", "treated", 0): TREATED})
    rows = effects(design(study(pa.concat_tables([early, late]), items({("", 0): DOSES}))))
    assert {row.contrast for row in rows} == {"dose_vs_holdout"}
    assert {row.step for row in rows} == {100}


COARSE = "3 others: the smallest rate above 0 is 33.3%"


@pytest.mark.parametrize(
    ("groups", "flags"),
    [(None, {COARSE}), (list("hhhababa"), {COARSE, "held against the holdout of all conditions"})],
)
def test_what_an_attack_in_one_run_is_flagged_for_it_is_over_seeds(groups: list[str] | None, flags: set[str]) -> None:
    rng = np.random.default_rng(0)
    scores = {("", "treated", seed): rng.normal(0, 1, 8).tolist() for seed in (0, 1)}
    planted = items({("", seed): [0] * 3 + [4] * 5 for seed in (0, 1)}, groups=groups)
    rows = separations(design(study(results(scores, "min_k"), planted), resamples=20))
    over = [row.flag for row in rows if row.seed is None and row.group == ("a" if groups else "")]
    assert flags <= {part for flag in over for part in flag.split("; ")} <= flags | {"", "no variance"}


def test_adjusted_over_metric_and_group_within_a_question() -> None:
    table = pa.concat_tables(
        [
            results({("", "treated", 0): TREATED, ("", "control", 0): CONTROL}),
            results({("", "treated", 0): np.arange(8) ** 1.5, ("", "control", 0): np.arange(8)}, "margin"),
        ]
    )
    rows = [r for r in analyse(study(table, items({("", 0): DOSES}))).estimates if r.contrast == "treated_vs_control"]
    assert len(rows) == 4
    ordered = sorted(rows, key=lambda r: r.p)
    assert ordered[0].p_adjusted == pytest.approx(min(4 * ordered[0].p, 2 * ordered[1].p, 4 / 3 * ordered[2].p, 1))
    assert all(row.p_adjusted >= row.p for row in rows)


def test_the_table_of_estimates_has_a_name_and_nulls_for_what_cannot_be_said() -> None:
    table = to_table(single())
    assert (
        table["name"][0].as_py()
        == "multiple_choice/planted/acc · plant · dose 0 · treated − control, on the same items"
    )
    assert table.column("resampling_seed").null_count == len(table)
    assert table.column("p_adjusted").null_count == len(table)
