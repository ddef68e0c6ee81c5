"""An insertion class of one's own that does not do what it owes: what is said, with its key, class and line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HEAD = """\
from dataclasses import dataclass

import numpy as np

from pretrain_exp.errors import UserError
from pretrain_exp.plan.edits import EditItem, Edits


@dataclass(frozen=True)
class Mine:
    times: int = 2

"""
WHOLE = """\
    def edits(self, context):
        items = [EditItem(id="a", tokens=TOKENS, dose=self.times)]
        copies = np.arange(self.times, dtype=np.int32)
        span = (0, context.phases.position_of_step(context.window.last_step))
        return Edits(insertion=NAME, items=ITEMS, item=np.zeros_like(copies) + ROW, copy=COPIES, span=span)
"""
VALUES = {"TOKENS": "np.arange(1, 4)", "NAME": "context.name", "ITEMS": "items", "ROW": "0", "COPIES": "copies"}


def whole(**values: str) -> str:
    """The class, with some of its values replaced."""
    text = WHOLE
    for name, value in (VALUES | values).items():
        text = text.replace(name, value)
    return text


CLASSES = {  # the class's body, what is said of it (None: it is planned)
    "one that is right": (whole(), None),
    "without edits": ("    pass\n", "{module}.Mine has no method edits(context), which returns Edits"),
    "nothing returned": ("    def edits(self, context):\n        pass\n", "must return Edits, and returned NoneType"),
    "no tokens": (whole(TOKENS="np.zeros(0, np.uint32)"), "item 'a' has none"),
    "tokens of two dimensions": (whole(TOKENS="np.ones((2, 2), np.uint32)"), "item 'a' as an array of whole numbers"),
    "tokens outside the vocabulary": (whole(TOKENS="np.array([7, 10**6])"), "tokens of 7 to 1000000, outside"),
    "items that are none": (whole(ITEMS="[*items, 'a']"), "item 1 is str"),
    "rows of no item": (whole(ROW="-1"), "rows of items -1 to -1, and there are 1"),
    "rows beyond the items": (whole(ROW="1"), "failed: IndexError: list index out of range ({file}:17)"),
    "a copy too few": (whole(COPIES="copies[1:]"), "item and copy of equal lengths"),
    "another name": (whole(NAME="'else'"), "must name its Edits 'mine' (context.name), and named them 'else'"),
    "an error of its own": (
        "    def edits(self, context):\n        raise UserError('too few times', key='times')\n",
        "insertion.mine.times: too few times",
    ),
    "an exception": (
        "    def edits(self, context):\n        return 1 / 0\n",
        "{module}.Mine failed: ZeroDivisionError: division by zero ({file}:14)",
    ),
    "an exception in a library": (
        "    def edits(self, context):\n        return np.concatenate([])\n",
        "failed: ValueError: need at least one array to concatenate ({file}:14)",
    ),
    "an exception where it is made": (
        "    def __post_init__(self):\n        {}['a']\n",
        "{module}.Mine failed: KeyError: 'a' ({file}:14)",
    ),
    "an exception where it names its files": (
        "    def files(self):\n        return self.path\n",
        "{module}.Mine failed: AttributeError: 'Mine' object has no attribute 'path' ({file}:14)",
    ),
    "an exception on import": ("    times: int = 1 // 0\n", "cannot be imported: ZeroDivisionError: "),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all, so that data are prepared once."""
    return tmp_path_factory.mktemp("store")


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_of_ones_own(
    name: str, command: Callable[..., tuple[int, str]], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, says = CLASSES[name]
    module = f"own_insertion_{list(CLASSES).index(name)}"
    file = tmp_path / f"{module}.py"
    file.write_text(HEAD + body)
    monkeypatch.syspath_prepend(str(tmp_path))
    chosen = ["insertion=none", f"+insertion.mine={{_target_: {module}.Mine}}", "eval=planted_texts"]
    try:
        status, said = command("plan", "experiment=smoke", "tracking=none", f"store={store}", *chosen)
    finally:
        sys.modules.pop(module, None)
    assert "Traceback" not in said
    assert status == (0 if says is None else 2), said
    if says is not None:
        assert "insertion.mine" in said
        assert says.format(module=module, file=file) in said
