"""Content ids and multiple-choice items."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.items.content import content_id

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
words = texts.filter(lambda text: text.strip() != "")


def test_the_boundaries_between_parts_count():
    assert content_id("ab", "c") != content_id("a", "bc") != content_id("abc") != content_id("abc", "")


def test_ids_stay_what_they_are():
    assert content_id("Question: 1 + 1?\nAnswer:", "2", "3", "0") == "68612f06444d64fc"


@given(query=texts, choices=st.lists(words, min_size=2, max_size=5), data=st.data())
def test_json_gives_the_item_back(query, choices, data):
    gold = data.draw(st.integers(0, len(choices) - 1))
    item = ChoiceItem.create("b", query, tuple(choices), gold, "7")
    assert ChoiceItem.from_json(item.to_json()) == item
    assert "\n" not in item.to_json()
    assert item.planted_text() == f"{query.rstrip()} {choices[gold]}"


@pytest.mark.parametrize("query", ["2 + 2 =", "2 + 2 = ", "2 + 2 =\n"])
def test_whitespace_after_the_query_changes_nothing(query):
    assert ChoiceItem.create("b", query, ("3", "4"), 1) == ChoiceItem.create("b", "2 + 2 =", ("3", "4"), 1)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (ChoiceItem.create("elsewhere", "q", ("a", "b"), 0, "native"), True),
        (ChoiceItem.create("b", "Q", ("a", "b"), 0), False),
        (ChoiceItem.create("b", "q", ("b", "a"), 0), False),
        (ChoiceItem.create("b", "q", ("a", "b"), 1), False),
        (ChoiceItem.create("b", "q", ("a b", "b"), 0), False),
    ],
)
def test_the_id_is_of_what_is_asked_not_of_where_it_stood(other, same):
    assert (ChoiceItem.create("b", "q", ("a", "b"), 0).id == other.id) is same


@pytest.mark.parametrize(
    ("choices", "gold", "message"),
    [
        (("a",), 0, "two choices or more, has 1"),
        (("a", " "), 0, "choice 1 is empty"),
        (("a", "b"), 2, "gold is 2, but there are choices 0 to 1"),
        (("a", "b"), -1, "gold is -1"),
    ],
)
def test_an_item_that_cannot_be_asked_is_refused(choices, gold, message):
    with pytest.raises(ValueError, match=message):
        ChoiceItem.create("b", "q", choices, gold)


def test_an_item_built_by_hand_must_end_its_query_in_text():
    with pytest.raises(ValueError, match="ends in whitespace"):
        ChoiceItem("id", "b", "Answer: ", ("a", "b"), 0)
