"""Whether the most that closed loops may plant finds a place beside all else, known before anything is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain_exp.control.room import Demand, check_room, items_to_come, rooms
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.errors import UserError
from pretrain_exp.insertion.base import Entry, InsertionContext, Planting, build_edits
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import EditItem, Edits, Window
from pretrain_exp.plan.folder import Plan

S, BATCH, EVERY = 32, 4, 5
PHASES, WINDOW = Phases([Phase(0, BATCH, S)]), Window(10, 22)  # segments of 5, 5 and 2 steps: 640, 640, 256 tokens


def context(name: str = "loop") -> InsertionContext:
    return InsertionContext(name, 0, S, 0, WINDOW, PHASES, lambda texts: [])


def demand(lengths: list[int], most: int | None, name: str = "loop", **fields: str) -> Demand:
    """Of a loop whose pool are texts of these lengths; a text of n tokens is the same text wherever it stands."""
    pool = [Entry(f"t{n}", "", tokens=np.arange(1, n + 1, dtype=np.uint32)) for n in lengths]
    planting = Planting(eos="none", **fields)  # type: ignore[arg-type]
    return Demand.of(context(name), EVERY, most, pool, build_edits(context(name), planting, pool) if pool else None)


def others(folder: Path, *spans: tuple[int, int]) -> Plan:
    """A plan with edits at these spans of positions."""
    items = [EditItem(f"o{i}", np.ones(stop - first, np.uint32), dose=1) for i, (first, stop) in enumerate(spans)]
    n, at = np.arange(len(spans), dtype=np.int32), np.array([first for first, _ in spans], dtype=np.int64)
    edits = Edits("others", items, n, np.zeros_like(n), "explicit", position=at)
    return compile_plan([edits], PHASES, WINDOW, 0, "treated", folder)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 20))
def test_the_most_tokens_of_so_many_texts_in_a_row(lengths: list[int], count: int) -> None:
    found = demand(lengths, count).tokens(count)
    assert found == max(sum(lengths[(start + i) % len(lengths)] for i in range(count)) for start in range(len(lengths)))


def test_texts_in_pieces_skipped_ones_and_no_texts_at_all() -> None:
    split = demand([70, 4], 1, too_long="split")
    assert split.lengths.tolist() == [70, 4]
    assert [(text, name, n) for text, name, n in split.items] == [
        (0, "t70#0", 32), (0, "t70#1", 32), (0, "t70#2", 6), (1, "t4", 4)
    ]  # fmt: skip
    assert demand([70, 4], 1, too_long="skip").lengths.tolist() == [0, 4]
    assert demand([], 5).tokens(5) == 0
    check_room([demand([], None)])


def test_what_others_take_is_no_room(tmp_path: Path) -> None:
    first = PHASES.position_of_step(10)
    plan = others(tmp_path, (first, first + 2 * S), (first + 3 * S + 8, first + 3 * S + 18))
    found = rooms(EVERY, context(), plan)
    assert [(room.first_step, room.last_step, room.tokens, room.taken) for room in found] == [
        (10, 15, 640, 74), (15, 20, 640, 0), (20, 22, 256, 0)
    ]  # fmt: skip
    assert [(room.free, room.filled) for room in found] == [(640 - 64, 10), (640, 0), (256, 0)]
    assert [room.left(pack=False) for room in found] == [288 - 10, 320, 128]
    assert [room.left(pack=True) for room in found] == [576 - 10, 640, 256]


@pytest.mark.parametrize(("pack", "most"), [("error", 12), ("pack", 25)])
def test_a_loop_is_refused_where_the_tightest_segment_cannot_hold_it(tmp_path: Path, pack: str, most: int) -> None:
    """Texts of 10 tokens; the last segment has 256, the first only 640 - 512 that nobody takes."""
    check_room([demand([10], most, on_full=pack)])
    with pytest.raises(UserError, match="can be planted") as error:
        check_room([demand([10], most + 1, on_full=pack)])
    assert error.value.key == "insertion.loop.controller.maximum"
    assert (error.value.fix or "").startswith(f"at most {most}, ")
    first = PHASES.position_of_step(10)
    plan = others(tmp_path, *((first + i * S, first + (i + 1) * S) for i in range(16)))
    check_room([demand([10], most // 2, on_full=pack)], plan)
    with pytest.raises(UserError, match="steps 10 to 15, reads 640, of which other insertions take 512") as error:
        check_room([demand([10], most, on_full=pack)], plan)
    assert (error.value.fix or "").startswith(f"at most {most // 2}, ")


def test_loops_of_a_run_share_their_segments() -> None:
    check_room([demand([10], 6, "a"), demand([10], 6, "b"), demand([10], None, "c")])
    with pytest.raises(UserError, match="which other insertions take 50; 78 more") as error:
        check_room([demand([10], 5, "a"), demand([10], 9, "b")])
    assert error.value.key == "insertion.b.controller.maximum"


def test_what_is_to_come_is_what_the_loop_can_reach() -> None:
    pool = [4, 5, 6, 70, 7]
    assert items_to_come([demand(pool, 1, too_long="split")]) == {("loop", f"t{n}"): n for n in (4, 5, 6)}
    everything = items_to_come([demand(pool, 2, too_long="split"), demand([8], None, "other")])
    assert everything == {
        **{("loop", f"t{n}"): n for n in (4, 5, 6, 7)},
        **{("loop", f"t70#{k}"): n for k, n in enumerate((32, 32, 6))},
    }
