"""Where a placebo's text comes from: unread slots of the epoch of the run, the same for all copies of an item."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiled_plans import compiled, requests, rows
from plan_samples import PHASES, S, edits

from pretrain_exp.errors import UserError
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Window
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.placebo import placebo_plan


class TestPlacebo:
    def test_same_spans_other_text(self, tmp_path: Path) -> None:
        plan = compiled(tmp_path)
        placebo = placebo_plan(plan, 400, tmp_path)
        spans = [
            {(slot, column + i) for slot, column, length in _spans(each) for i in range(length)}
            for each in (plan, placebo)
        ]
        assert spans[0] == spans[1]
        assert placebo.audit["ok"], placebo.audit["findings"]
        sources = placebo.overlay.arrays["ref"]
        assert (sources >= PHASES.first_slot(60)).all()
        assert (sources < 400).all()
        assert placebo.items().equals(plan.items())
        assert placebo.arm == "placebo"

    def test_copies_of_an_item_share_their_text_and_items_do_not(self, tmp_path: Path) -> None:
        placebo = placebo_plan(compiled(tmp_path), 400, tmp_path)
        sources: dict[tuple, set] = {}
        for row in rows(placebo):
            if row["insertion"] != "c":
                sources.setdefault((row["insertion"], row["item"], row["length"]), set()).add(
                    (row["source_slot"], row["source_column"])
                )
        assert all(len(each) == 1 for each in sources.values())
        taken = [(slot, column + i) for (*_, n), each in sources.items() for slot, column in each for i in range(n)]
        assert len(taken) == len(set(taken))

    def test_another_insertion_moves_no_source(self, tmp_path: Path) -> None:
        both, one = (
            placebo_plan(compiled(tmp_path, asked), 40_000, tmp_path) for asked in (requests()[1:], requests()[1:2])
        )
        found = [{(r["item"], r["source_slot"], r["source_column"]) for r in rows(p)} for p in (both, one)]
        assert found[1] < found[0]

    @pytest.mark.parametrize(
        ("num_sequences", "sources"),
        [
            (400, (240, 400)),  # the run reads slots 40 to 240 of its epoch
            (248, (240, 248)),
            (244, (0, 40)),  # 128 tokens are left after it: too little
            (240, (0, 40)),
        ],
    )
    @pytest.mark.parametrize("epoch", [0, 1, 7])
    def test_sources_lie_in_the_epoch_of_the_run(
        self, tmp_path: Path, num_sequences: int, sources: tuple[int, int], epoch: int
    ) -> None:
        earlier = epoch * num_sequences // 4
        window = Window(10 + earlier, 60 + earlier)
        span = (PHASES.position_of_step(window.first_step), PHASES.position_of_step(window.last_step))
        asked = edits("a", [30, 32, 30, 31, 20, 12], [3, 1, 20, 2, 2, 0], span)
        plan = compile_plan([asked], PHASES, window, 0, "treated", tmp_path)
        placebo = placebo_plan(plan, num_sequences, tmp_path)
        found = placebo.overlay.arrays["ref"] - epoch * num_sequences
        assert (found >= sources[0]).all()
        assert (found < sources[1]).all()

    def test_without_unread_text(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"slots 40 to 240, which lie in 2 epochs of 239 sequences"):
            placebo_plan(compiled(tmp_path), 239, tmp_path)
        full = [edits("a", [S] * 60)]
        with pytest.raises(UserError, match=r"epoch 0, which leaves 320 tokens after it and 1,280 before it.*1,920"):
            placebo_plan(compiled(tmp_path, full), 250, tmp_path)


def _spans(plan: Plan) -> list[tuple[int, int, int]]:
    return list(zip(*(plan.overlay.arrays[name].tolist() for name in ("slot", "column", "length")), strict=True))
