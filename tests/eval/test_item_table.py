"""The item table: what goes in comes out, once; aggregates are computed from it."""

import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain_exp.eval.base import Score
from pretrain_exp.eval.table import SCHEMA, join_plan, read_tables, summarize, to_table, write_table

SCORES = [Score("t", "a", "acc", 1.0), Score("t", "b", "acc", 0.0), Score("u", "a", "acc", 1.0)]
PLAN = pa.table(
    {
        "insertion": ["x", "x", "y"],
        "item": ["a", "b", "a"],
        "group": ["g0", "g1", "g2"],
        "dose": pa.array([0, 4, 16], pa.int32()),
        "tokens": [[1], [2], [1]],
    }
)


@given(
    st.dictionaries(
        st.tuples(st.text(max_size=3), st.text(max_size=3), st.text(max_size=3)), st.floats(-9, 9), min_size=1
    )
)
def test_scores_come_back_as_they_went_in(tmp_path_factory, scores):
    scores = [Score(*key, value) for key, value in scores.items()]
    path = tmp_path_factory.mktemp("table") / "items.parquet"
    write_table(path, to_table("e", scores))
    table = read_tables([path, path])
    assert table.schema == SCHEMA
    assert [Score(*row) for row in zip(*(table[name].to_pylist() for name in Score._fields), strict=True)] == scores * 2
    assert [file.name for file in path.parent.iterdir()] == ["items.parquet"]


def test_no_files_make_an_empty_table():
    assert read_tables([]).schema == SCHEMA


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "e returned no scores"),
        ([*SCORES, SCORES[0]], r"e gave 2 scores for \('t', 'a', 'acc'\)"),
        ([*SCORES, Score("t", "c", "nll", math.nan)], "1 of 4 scores are not finite, the first is .*item='c'"),
        ([*SCORES, Score("t", "c", "nll", math.inf)], "1 of 4 scores are not finite"),
    ],
)
def test_scores_that_cannot_be_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        to_table("e", scores)


def test_a_result_joins_every_insertion_of_its_item_and_keeps_what_was_not_planted():
    results = to_table("e", [*SCORES[:2], Score("t", "unplanted", "acc", 0.5)])
    rows = join_plan(results, PLAN).select(["item", "value", "insertion", "group", "dose"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("a", 1.0, "x", "g0", 0),
        ("a", 1.0, "y", "g2", 16),
        ("b", 0.0, "x", "g1", 4),
        ("unplanted", 0.5, None, None, None),
    ]


def test_columns_added_by_others_survive_the_join():
    results = to_table("e", SCORES).append_column("seed", pa.array([3, 3, 3]))
    assert join_plan(results, PLAN)["seed"].to_pylist() == [3] * 5


def test_the_summary_is_the_mean_over_items():
    assert summarize(to_table("e", SCORES)) == {"t": {"acc": 0.5, "items": 2.0}, "u": {"acc": 1.0, "items": 1.0}}


def test_the_perplexity_of_a_domain_is_that_of_its_whole_text():
    documents = {"a": {"nll": 8.0, "tokens": 2, "bytes": 4}, "b": {"nll": 2.0, "tokens": 3, "bytes": 16}}
    scores = [Score("d", item, metric, value) for item, row in documents.items() for metric, value in row.items()]
    summary = summarize(to_table("e", scores))["d"]
    assert summary == {
        "nll": pytest.approx(2.0),
        "perplexity": pytest.approx(math.exp(2.0)),
        "bits_per_byte": pytest.approx(10 / math.log(2) / 20),
        "tokens": 5,
        "bytes": 20,
        "items": 2,
    }
