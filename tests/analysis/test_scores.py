"""The item table as vectors: alignment by item, shared controls, and what is refused."""

import numpy as np
import pyarrow as pa
import pytest
from tiny import items, results, study

from pretrain_exp.analysis.scores import Series, Unit, in_order, read_doses, read_scores
from pretrain_exp.analysis.study import RESULTS, StudyData

ACC = Series("multiple_choice", "planted", "acc")


def test_scores_are_found_by_item_whatever_the_order_of_rows() -> None:
    table = results({("", "treated", 0): [0, 1, 2, 3], ("", "control", 0): [4, 5, 6]}, "margin")
    mixed = table.take(np.random.default_rng(0).permutation(len(table)))
    scores = read_scores(mixed)
    series = ACC._replace(metric="margin")
    treated, control = (scores.get(series, Unit("", 0), arm, 100) for arm in ("treated", "control"))
    by_item = {name: (t, c) for name, t, c in zip(scores.items, treated, control, strict=True)}
    assert by_item["i2"] == (2, 6)
    assert by_item["i3"][0] == 3
    assert np.isnan(by_item["i3"][1])


def test_binary_is_what_holds_only_zeros_and_ones_in_every_run() -> None:
    table = pa.concat_tables(
        [
            results({("", "treated", 0): [0, 1]}),
            results({("", "treated", 0): [0, 1], ("", "control", 0): [0, 0.5]}, "margin"),
        ]
    )
    assert read_scores(table).binary == {ACC: True, ACC._replace(metric="margin"): False}


def test_scores_that_are_not_finite_are_counted_and_left_out() -> None:
    scores = read_scores(results({("", "treated", 0): [1.5, float("inf"), float("nan")]}))
    assert scores.invalid[ACC] == 2
    assert np.isnan(scores.get(ACC, Unit("", 0), "treated", 100)).sum() == 2


@pytest.mark.parametrize(
    ("controls", "unit", "run"),
    [
        ([("", 0), ("", 1)], Unit("", 1), Unit("", 1)),  # its own
        ([("r=4", 0), ("", 0)], Unit("r=4", 0), Unit("r=4", 0)),
        ([("", 0), ("", 1)], Unit("r=4", 1), Unit("", 1)),  # that of its seed, without a member
        ([("r=1", 0), ("r=1", 1)], Unit("r=4", 1), None),  # that of another variant is not lent
        ([("r=1", 0)], Unit("r=4", 0), None),
        ([("r=1", 0)], Unit("r=1", 3), Unit("r=1", 0)),  # the only one there is
        ([("", 0)], Unit("r=4", 7), Unit("", 0)),
        ([("", 0), ("", 1)], Unit("", 7), None),
        ([("r=1", 0), ("r=2", 0)], Unit("r=4", 0), None),
    ],
)
def test_the_control_that_stands_for_a_run(controls: list[tuple[str, int]], unit: Unit, run: Unit | None) -> None:
    table = results({(member, "control", seed): [1.0] for member, seed in controls})
    assert read_scores(table).run_of("control", unit) == run


def test_one_control_under_several_names_is_known_by_its_scores() -> None:
    runs = {("", "control", 0): [1, 0], ("", "control", 1): [1, 0], ("r=4", "control", 0): [0, 0]}
    runs |= {("", "treated", 0): [1, 0]}
    more = results({("", "control", 0): [0.5], ("", "control", 2): [0.5], ("r=4", "control", 0): [0.5]}, "margin")
    originals = read_scores(pa.concat_tables([results(runs), more])).originals
    first, other = Unit("", 0), Unit("r=4", 0)
    assert originals == {first: first, Unit("", 1): first, Unit("", 2): first, other: other}

    begun = results({("", "control", seed): [1, 0] for seed in (0, 1)}, step=0)
    ended = results({("", "control", 1): [1, 0]}, step=100)
    assert len(set(read_scores(pa.concat_tables([begun, ended])).originals.values())) == 2  # one began like the other


def test_a_placebo_is_never_borrowed() -> None:
    scores = read_scores(results({("", "placebo", 0): [1.0]}))
    assert scores.run_of("placebo", Unit("r=4", 0)) is None


def test_one_item_scored_twice_is_an_error() -> None:
    table = results({("", "treated", 3): [0, 1]})
    with pytest.raises(ValueError, match=r"item 'i0' has two values of multiple_choice/planted/acc in treated.*seed 3"):
        read_scores(pa.concat_tables([table, table]))


def test_one_item_with_two_doses_is_an_error() -> None:
    planned = items({("", 0): [0, 1]})
    with pytest.raises(ValueError, match="'i0' is twice in insertion 'plant'"):
        read_doses(pa.concat_tables([planned, planned]), np.array(["i0", "i1"]))


def test_doses_may_differ_by_seed() -> None:
    doses = read_doses(items({("", 0): [0, 4], ("", 1): [4, 0]}), np.array(["i1", "i0"]))
    assert doses.dose[Unit("", 0), "plant"].tolist() == [4, 0]
    assert doses.dose[Unit("", 1), "plant"].tolist() == [0, 4]
    assert doses.of(Unit("", 1), "plant") == [0, 4]


def test_what_was_planned_and_not_scored_or_planned_twice_is_counted() -> None:
    both = pa.concat_tables([items({("", 0): [0, 1, 4]}), items({("", 0): [1]}, insertion="other")])
    doses = read_doses(both, np.array(["i0", "i1"]))
    assert (doses.unscored, doses.shared) == ({"plant": (1, 3)}, 1)


@pytest.mark.parametrize(
    ("probe", "groups", "expected"),
    [
        ([False, False, True, True], None, {"plant": (1, 2)}),  # texts of facts are planted, their probes are scored
        ([False, False, False, True], ["", "", "", "pool"], {"plant": (2, 3)}),  # a pool is drawn from
        ([False, False, True, False], None, {}),
    ],
)
def test_only_what_should_have_been_scored_is_missed(
    probe: list[bool], groups: list[str] | None, expected: dict[str, tuple[int, int]]
) -> None:
    plan = items({("", 0): [1, 1, 1, 1]}, groups).append_column("probe", pa.array(probe))
    assert read_doses(plan, np.array(["i2"])).unscored == expected


def test_variants_are_ordered_by_the_numbers_in_their_labels() -> None:
    units = [Unit("r=16", 0), Unit("r=4", 1), Unit("r=4", 0), Unit("lr=1e-3", 0), Unit("lr=3e-4", 0), Unit("", 0)]
    assert [u.member for u in in_order(units)] == ["", "lr=3e-4", "lr=1e-3", "r=4", "r=4", "r=16"]


def test_an_empty_study_has_no_runs() -> None:
    scores = read_scores(RESULTS.empty_table())
    assert scores.series == []
    assert scores.units("treated") == []


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"item": ["a"]}), "columns .*'evaluation'.* are missing"),
        (results({("", "treatment", 0): [1.0]}), "unknown arms .*treatment"),
    ],
)
def test_a_study_refuses_what_it_cannot_read(table: pa.Table, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StudyData(title="t", question="q", results=table)


def test_columns_come_in_any_order_and_integer_width_and_others_are_kept() -> None:
    planned = items({("", 0): [0, 1]})
    narrow = planned.set_column(5, "dose", planned["dose"].cast(pa.int32())).append_column("note", pa.array(["x", "y"]))
    data = study(results({("", "treated", 0): [0, 1]}), narrow.select(narrow.column_names[::-1]))
    assert data.items.schema.field("dose").type == pa.int64()
    assert data.items["note"].to_pylist() == ["x", "y"]
