"""Holdout items among what is read: every shared run is found, none else; what an edit covers is not read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_samples import PHASES, SPAN, WINDOW, S, edits

from pretrain_exp.plan import holdouts as search
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import EditItem, Edits
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.holdouts import NGRAM, Holdouts, holdout_findings, stream_findings
from pretrain_exp.plan.items import Items
from pretrain_exp.plan.ledger import ITEMS_SCHEMA

EOS = 9


def table(*items: tuple[str, list[int], int]) -> Items:
    """(insertion, tokens, dose) of each item."""
    rows = [
        {
            "insertion": name,
            "item": str(i),
            "tokens": tokens,
            "dose": dose,
            "group": "",
            "text": "",
            "payload": "",
            "probe": False,
        }
        for i, (name, tokens, dose) in enumerate(items)
    ]
    return Items.of(pa.Table.from_pylist(rows, ITEMS_SCHEMA))


def naive(held: list[list[int]], rows: list[list[int]]) -> set[tuple[int, int, int, bool]]:
    """(item, row, column, whole) by comparing every place."""
    found = set()
    for i, item in enumerate(held):
        size = min(NGRAM, len(item))
        for k in range(len(item) - size + 1):
            for r, row in enumerate(rows):
                for c in range(len(row) - size + 1):
                    if row[c : c + size] == item[k : k + size]:
                        found.add((i, r, c, k == 0 and row[c : c + len(item)] == item))
    return found


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_shared_run_is_found(data: st.DataObject) -> None:
    """Two kinds of tokens, so that runs repeat; items of all lengths, some cut out of the rows."""
    size = data.draw(st.integers(1, 50))
    rows = data.draw(st.lists(st.lists(st.integers(0, 1), min_size=size, max_size=size), min_size=1, max_size=3))
    held = data.draw(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=30), min_size=1, max_size=3))
    held.append(rows[0][: data.draw(st.integers(1, size))])
    holdouts = Holdouts.of(table(*(("a", item, 0) for item in held)))
    with patch.object(search, "_BLOCK", data.draw(st.sampled_from([1, 7, 1 << 16]))):  # windows at once
        found = holdouts.search(np.array(rows, np.uint32), np.arange(len(rows)))
    columns = (found[name].tolist() for name in ("item", "slot", "column", "whole"))
    whole_at = {(i, r, c) for i, r, c, whole in naive(held, rows) if whole}
    assert {(i, r, c) for i, r, c, whole in zip(*columns, strict=True) if whole} == whole_at
    columns = (found[name].tolist() for name in ("item", "slot", "column"))
    assert set(zip(*columns, strict=True)) == {each[:3] for each in naive(held, rows)}


LONG = list(range(100, 140))


@pytest.mark.parametrize(
    ("held", "planted", "level", "said"),
    [
        ([EOS, *LONG, EOS], [1, *LONG, 2], "warning", "1 of 1 holdout items of a stand whole in the 1 texts"),
        (LONG, [*range(50), *LONG[5:18], 7], "note", "1 of 1 holdout items of a share 13 tokens in a row"),
        (LONG, [*range(50), *LONG[5:17], 7], "note", "none of the 1 holdout items of a shares 13 tokens"),
        ([EOS, 5, 6, EOS], [4, 5, 6, 7], "warning", "1 of 1 holdout items of a stand whole"),
        ([EOS, 5, 6, EOS], [4, 5, 7, 6], "note", "none of the 1"),
        (LONG[:13], [*LONG[:12], 7, *LONG[:13]], "warning", "1 of 1 holdout items of a stand whole"),
    ],
)
def test_what_is_said(held: list[int], planted: list[int], level: str, said: str) -> None:
    (finding,) = holdout_findings(table(("a", held, 0), ("b", planted, 2)), EOS)
    assert (finding["level"], finding["check"]) == (level, "holdout")
    assert finding["message"].startswith(said)


def test_runs_do_not_cross_from_one_text_into_the_next() -> None:
    found = holdout_findings(table(("a", LONG, 0), ("b", LONG[:20], 1), ("b", LONG[20:], 1)))
    assert "1 of 1 holdout items of a share 13" in found[0]["message"]  # each half shares, none holds it whole
    halves = table(("a", LONG[:13], 0), ("b", LONG[:6], 1), ("b", LONG[6:13], 1))
    assert "none of the 1" in holdout_findings(halves)[0]["message"]


def test_each_insertion_has_a_finding_and_equals_are_left_to_the_audit() -> None:
    items = table(("a", LONG, 0), ("b", [1, 2, 3], 0), ("b", LONG, 1), ("c", [8, 7], 4))
    assert [each["message"].split(" of ")[2].split()[0] for each in holdout_findings(items)] == ["b"]
    assert holdout_findings(table(("a", LONG, 1))) == []


class Numbers:
    """Slot s reads s * 32 to s * 32 + 31."""

    sequence_length = S

    def read(self, slot: int) -> np.ndarray:
        return np.arange(slot * S, slot * S + S, dtype=np.uint32)


def stream(plan: Plan | None, held: list[list[int]]) -> list[str]:
    holdouts = Holdouts.of(table(*(("a", run, 0) for run in held)))
    slots = np.arange(40, 240)
    found = holdouts.search(np.stack([Numbers().read(slot) for slot in slots.tolist()]), slots)
    findings = stream_findings(holdouts, found, None if plan is None else plan.overlay, len(slots))
    return [each["message"] for each in findings]


def test_the_data_are_searched_less_what_edits_cover(tmp_path: Path) -> None:
    at = SPAN[0] + 3 * S  # slot 43
    run = list(range(at + 2, at + 22))
    (said,) = stream(None, [run, [5, 4]])
    assert said == "1 of 2 holdout items of a stand whole in the 200 sequences of data that the run reads"
    for position, covered in ((at + 2, True), (at + 21, True), (at, False), (at + 22, False)):
        asked = edits("a", [2], 1, positions=[position])
        plan = compile_plan([asked], PHASES, WINDOW, 0, "treated", tmp_path)
        messages = stream(plan, [list(range(at + 2, at + 15)), list(range(at + 9, at + 22))])
        count = 1 if covered else 2
        assert messages == [
            f"{count} of 2 holdout items of a stand whole in the 200 sequences of data that the run reads"
        ]
    one, none = np.zeros(1, np.int32), EditItem("n", np.zeros(0, np.uint32), dose=1)
    place = {"position": np.array([at]), "length": np.array([S]), "sigma": np.ones(1, np.float32)}
    noise = Edits("n", [none], one, one, "explicit", kind="noise", **place)  # type: ignore[arg-type]
    plan = compile_plan([noise], PHASES, WINDOW, 0, "treated", tmp_path)
    assert "1 of 1" in stream(plan, [run])[0]  # noise leaves the tokens


def test_a_plan_says_it_of_its_own_items(tmp_path: Path) -> None:
    asked = edits("a", [30, 20], [3, 0])
    inside = replace(asked.items[1], tokens=asked.items[0].tokens[4:24])
    plan = compile_plan([replace(asked, items=[asked.items[0], inside])], PHASES, WINDOW, 0, "treated", tmp_path)
    assert plan.audit["ok"]
    assert [(each["check"], each["level"]) for each in plan.audit["findings"]] == [("holdout", "warning")]
