"""What a plan holds to be scored: questions and texts told apart, nothing lost."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pretrain_exp.errors import UserError
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.items.planned import planted_items
from pretrain_exp.plan.ledger import ITEMS_SCHEMA

QUESTION = ChoiceItem.create("b", "1 + 1 =", ("2", "3"), 0)


@pytest.fixture
def plan(tmp_path):
    rows = [
        ("one", QUESTION.id, "", 4, "", [5, 6], QUESTION.to_json()),
        ("two", QUESTION.id, "", 0, "", [5, 6], QUESTION.to_json()),
        ("one", "a", "g", 0, "a text", [1, 2, 3], ""),
        ("two", "a", "", 8, "a text", [0, 1, 2, 3, 0], ""),
        ("two", "b", "", 8, "", [4_000_000_000], None),
        ("two", "p", "h", 8, "", [7], '{"kind": "probe", "answer": 3}', True),
        ("two", "slot9", "", 1, "", [], ""),
    ]
    path = tmp_path / "items.parquet"
    rows = [(*row, False)[: len(ITEMS_SCHEMA)] for row in rows]
    table = pa.Table.from_pylist([dict(zip(ITEMS_SCHEMA.names, row, strict=True)) for row in rows], ITEMS_SCHEMA)
    pq.write_table(table, path)
    return str(path)


def test_a_question_is_there_once_and_a_text_once_an_insertion(plan):
    found = planted_items(plan)
    assert list(found) == [QUESTION]
    texts = {(text.insertion, text.item): text.tokens.tolist() for text in found.texts if not text.probe}
    assert texts == {("one", "a"): [1, 2, 3], ("two", "a"): [0, 1, 2, 3, 0], ("two", "b"): [4_000_000_000]}
    probe = found.texts[-1]
    assert (probe.item, probe.group, probe.dose, probe.probe) == ("p", "h", 8, True)
    assert probe.payload == {"kind": "probe", "answer": 3}
    assert [text.payload for text in found.texts[:-1]] == [None] * 3
    assert all(text.tokens.dtype == np.uint32 for text in found.texts)


def test_no_plan_holds_nothing():
    found = planted_items(None)
    assert (len(found), found.texts) == (0, ())


def test_items_of_a_plan_that_its_loop_released_are_asked_for_anew(tmp_path):
    with pytest.raises(UserError, match="which has planned more since"):
        planted_items(str(tmp_path / "items.parquet"))
