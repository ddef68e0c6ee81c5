"""`scan_holdouts`: what a plan holds out is found in the data of the run, and in what edits put there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pretrain_exp.data.order import ShuffledOrder
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.data.token_files import TokenFile, TokenFiles
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import EditItem, Edits, Window
from pretrain_exp.plan.folder import Plan
from pretrain_exp.study.scanning import scanned_holdouts

S, PHASES, WINDOW = 32, Phases([Phase(0, 4, 32)]), Window(0, 20)
SLOTS = range(80)


@pytest.fixture
def order(tmp_path: Path) -> ShuffledOrder:
    """200 sequences of range(n), as they stand; the run reads the first 80."""
    np.arange(200 * S, dtype=np.uint16).tofile(tmp_path / "stream.bin")
    file = TokenFile(str(tmp_path / "stream.bin"), "uint16", 0, 200 * S, "digest", "stream.bin")
    return ShuffledOrder(TokenFiles((file,), 65000, None), S, None)


def plan(root: Path, held: list[int], base: bool = False) -> Plan:
    none = np.zeros(0, np.int32)
    asked = [Edits("held", [EditItem("h", np.array(held, np.uint32))], none, none, span=(0, 80 * S))]
    if base:
        one, item = np.zeros(1, np.int32), EditItem("b", np.zeros(0, np.uint32), dose=1)
        place = {"position": np.array([5 * S]), "length": np.array([S]), "source": np.array([[150, 0]])}
        asked.append(Edits("swap", [item], one, one, "explicit", kind="base", **place))  # type: ignore[arg-type]
    return compile_plan(asked, PHASES, WINDOW, 0, "treated", root)


@pytest.mark.parametrize(
    ("first", "base", "said"),
    [
        (10 * S + 3, False, ["1 of 1 holdout items of held stand whole in the 80 sequences of data"]),
        (150 * S + 3, False, ["none of the 1 holdout items"]),
        (
            150 * S + 3,
            True,
            ["none of the 1 holdout items", "1 of 1 holdout items of held stand whole in the 1 sequences"],
        ),
        (5 * S + 3, True, ["none of the 1 holdout items", "none of the 1 holdout items"]),  # replaced, so never read
    ],
)
def test_where_it_is_read(tmp_path: Path, order: ShuffledOrder, first: int, base: bool, said: list[str]) -> None:
    made = plan(tmp_path / "plans", [65000, *range(first, first + 20), 65000], base)
    found = scanned_holdouts(made, order, SLOTS, 65000, tmp_path / "cache")
    assert len(found) == len(said)
    for finding, words in zip(found, said, strict=True):
        assert finding["message"].startswith(words)
        assert finding["level"] == ("warning" if "stand whole" in words else "note")


def test_the_data_are_read_once(tmp_path: Path, order: ShuffledOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(tmp_path / "plans", list(range(700, 720)))
    first = scanned_holdouts(made, order, SLOTS, 65000, tmp_path / "cache")
    monkeypatch.setattr(order, "read", lambda slot: pytest.fail("the data are read again"))
    assert scanned_holdouts(made, order, SLOTS, 65000, tmp_path / "cache") == first
