"""Full ranges: packed to the last token, or refused with how full they are."""

from __future__ import annotations

import numpy as np
import pytest
from placed_edits import check, intervals
from plan_samples import PHASES, SPAN, WINDOW, S, edits

from pretrain_exp.errors import UserError
from pretrain_exp.plan import packing
from pretrain_exp.plan.audit import uniformity_tests
from pretrain_exp.plan.edits import Window
from pretrain_exp.plan.hashing import mix
from pretrain_exp.plan.placement import place
from pretrain_exp.plan.stretches import stretches


@pytest.mark.parametrize("fill", [0.6, 0.9, 0.95])
@pytest.mark.parametrize("seed", [0, 1])
def test_packing_fills_what_drawing_cannot(fill: float, seed: int) -> None:
    lengths = [3, 4, 5, 6, 7] * 400
    span = (0, int(sum(lengths) / fill) // S * S)
    window = Window(0, span[1] // (4 * S) + 1)
    requests = [
        edits("a", lengths[:1000], 1, span, on_full="pack"),
        edits("b", lengths[1000:], 1, span, on_full="pack"),
    ]
    placed = place(requests, PHASES, window, seed)
    check(requests, placed.positions)
    assert (placed.packed > 0) == (fill > 0.7)
    back = place(requests[::-1], PHASES, window, seed)
    assert [p.tolist() for p in placed.positions] == [p.tolist() for p in back.positions[::-1]]
    positions, length = np.concatenate(placed.positions), np.concatenate([r.lengths for r in requests])
    share = (stretches(span, PHASES).index(positions, length) + 0.5) / stretches(span, PHASES).starts(length)
    assert uniformity_tests(share)["ks_p"] > 0.001
    begins = (PHASES.locate(positions)[1] == 0).sum() / (span[1] / S)
    ends = (PHASES.locate(positions + length - 1)[1] == S - 1).sum() / (span[1] / S)
    assert max(begins, ends) < 0.9  # free room lies before, between and after the edits of a sequence
    assert abs(begins - ends) < 0.15


def test_free_room_is_spread_in_every_way_alike() -> None:
    """Two edits and two free places: six ways, each about a sixth of the time."""
    words = mix(np.arange(12_000, dtype=np.uint64), 0).tolist()
    gaps = packing._gaps(words, [2] * 6000, [2] * 6000).reshape(-1, 2)
    ways, counts = np.unique(gaps, axis=0, return_counts=True)
    assert ways.tolist() == [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 2]]
    assert counts.min() > 900
    assert packing._gaps(words, [3, 1], [0, 0]).tolist() == [0, 0, 0, 0]


def test_packing_moves_only_its_own_and_goes_to_the_last_token() -> None:
    """Whole sequences, halves and thirds fill 12 sequences exactly; an explicit edit stays and is packed around."""
    span, window = (0, 12 * S), Window(0, 3)
    fixed = edits("x", [8], 1, positions=[S + 8])
    requests = [edits("a", [S] * 4, 1, span, on_full="pack"), edits("b", [16] * 8 + [8] * 15, 1, span, on_full="pack")]
    placed = place([*requests, fixed], PHASES, window, 0)
    check([*requests, fixed], placed.positions)
    assert intervals([*requests, fixed], placed.positions)[:, 1].max() == 12 * S
    assert sum(map(len, placed.positions)) == 28


@pytest.mark.parametrize(
    ("lengths", "on_full", "said"),
    [
        ([10] * 21, "error", ["210 tokens asked of 192", "fill of 1.094", "more than there is", "21 edits of a"]),
        ([10] * 21, "pack", ["210 tokens asked of 192", "fill of 1.094"]),
        ([10] * 17, "error", ["170 tokens asked of 192", "fill of 0.885", "unplaced after 500 draws", "on_full: pack"]),
        ([17] * 7, "pack", ["119 tokens asked of 192", "fill of 0.620", "packing finds no room either"]),
    ],
)
def test_a_full_range_says_how_full_it_is(lengths: list, on_full: str, said: list) -> None:
    span = (SPAN[0], SPAN[0] + 6 * S)
    with pytest.raises(UserError) as caught:
        place([edits("a", lengths, 1, span, on_full=on_full)], PHASES, WINDOW, 0)
    assert caught.value.key == "insertion.a.on_full"
    assert caught.value.value == on_full
    for part in said:
        assert part in caught.value.render()


def test_insertions_that_fill_a_range_together_are_caught() -> None:
    span = (SPAN[0], SPAN[0] + 4 * S)
    requests = [edits("a", [8] * 10, 1, span), edits("b", [8] * 10, 1, (span[0], span[1] - S))]
    with pytest.raises(UserError, match="160 tokens asked of 128"):
        place(requests, PHASES, WINDOW, 0)


def test_an_edit_that_fits_no_sequence_of_its_range() -> None:
    with pytest.raises(UserError, match="2 edits of up to 20 tokens fit no sequence of their range") as caught:
        place([edits("a", [20, 4], 2, (SPAN[0] + 10, SPAN[0] + 27))], PHASES, WINDOW, 0)
    assert caught.value.key == "insertion.a.range"
