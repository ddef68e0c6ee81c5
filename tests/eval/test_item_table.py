"""The item table: what goes in comes out, once; aggregates are computed from it."""

import math

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain_exp.eval.base import Score
from pretrain_exp.eval.table import SCHEMA, summarize, to_table, write_table

SCORES = [Score("t", "a", "acc", 1.0), Score("t", "b", "acc", 0.0), Score("u", "a", "acc", 1.0)]


@given(
    st.dictionaries(
        st.tuples(st.text(max_size=3), st.text(max_size=3), st.text(max_size=3)), st.floats(-9, 9), min_size=1
    )
)
def test_scores_come_back_as_they_went_in(tmp_path_factory, scores):
    scores = [Score(*key, value) for key, value in scores.items()]
    path = tmp_path_factory.mktemp("table") / "items.parquet"
    write_table(path, to_table("e", scores))
    table = pq.read_table(path)
    assert table.schema == SCHEMA
    assert [Score(*row) for row in zip(*(table[name].to_pylist() for name in Score._fields), strict=True)] == scores
    assert [file.name for file in path.parent.iterdir()] == ["items.parquet"]


def test_no_scores_make_an_empty_table():
    assert to_table("e", []).schema == SCHEMA
    assert summarize(to_table("e", [])) == {}


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([*SCORES, SCORES[0]], r"e gave 2 scores for \('t', 'a', 'acc'\)"),
        ([*SCORES, Score("t", "c", "nll", math.nan)], "1 of 4 scores are not finite, the first is .*item='c'"),
        ([*SCORES, Score("t", "c", "nll", math.inf)], "1 of 4 scores are not finite"),
    ],
)
def test_scores_that_cannot_be_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        to_table("e", scores)


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
