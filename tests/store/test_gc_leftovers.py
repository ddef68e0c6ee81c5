"""What gc frees beside weights: what killed writers left, and the overlays of a loop that has come to its end."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pretrain_exp.store.gc import collect
from pretrain_exp.store.process import mark
from pretrain_exp.store.states import commit, stage
from pretrain_exp.study.registry import write_member, write_study

ONE_DAY = 86400
LIVING = mark()
DEAD = re.sub(r"-\d+-(\w+)$", r"-1-\1", mark())  # of a process that had this pid before
ELSEWHERE = re.sub(r"\w+$", "0badf00d", mark())
NAMELESS = "0123abcd"  # as older versions named what they wrote


def left(store: Path) -> set[str]:
    return {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}


def put(store: Path, name: str, age: float = 0) -> str:
    """A file in a folder of this name, both as old as that."""
    path = store / name / "file"
    path.parent.mkdir(parents=True)
    path.write_text("text")
    for each in (path, path.parent):
        os.utime(each, (each.stat().st_mtime - age,) * 2)
    return f"{name}/file"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store/states").mkdir(parents=True)
    return tmp_path / "store"


@pytest.mark.parametrize("place", ["plans/.p.", "data/tokens/k.parts/.00000.", "loops/k/plans/.p.", "staging/hf-a-"])
@pytest.mark.parametrize(
    ("end", "age", "goes"),
    [
        (LIVING, 0, False),
        (LIVING, 2 * ONE_DAY, False),
        (DEAD, 0, True),
        (ELSEWHERE, 0, False),
        (ELSEWHERE, 2 * ONE_DAY, True),
        (NAMELESS, 0, False),
        (NAMELESS, 2 * ONE_DAY, True),
    ],
    ids=["living", "living, long idle", "dead", "elsewhere", "elsewhere, idle", "of nobody", "of nobody, idle"],
)
def test_only_what_no_living_writer_can_own(
    store: Path, capsys: pytest.CaptureFixture[str], place: str, end: str, age: float, goes: bool
) -> None:
    name = put(store, f"{place}{end}", age)
    collect(store, [], apply=False)
    assert (f"would release {Path(name).parent}, 4 B" in capsys.readouterr().out) == goes
    assert left(store) == {name}
    collect(store, [], apply=True)
    assert [path for path in left(store) if not path.startswith("claims/")] == ([] if goes else [name])


def test_a_writer_that_is_still_at_it_elsewhere_keeps_its_folder(store: Path) -> None:
    """What is old is the folder; a file in it has just grown."""
    name = put(store, f"plans/.p.{ELSEWHERE}", 2 * ONE_DAY)
    os.utime(store / name)
    collect(store, [], apply=True)
    assert name in left(store)


def test_nothing_that_stands_or_can_be_gone_on_with(store: Path) -> None:
    stays = {
        put(store, name, 2 * ONE_DAY)
        for name in (
            "plans/0123abcd",
            "data/tokens/todo.parts/00000",
            "data/tokens/done",
            "data/.cache",
            "loops/k/plans/p",
        )
    }
    (store / "data/tokens/done/meta.json").write_text("{}")
    stays.add("data/tokens/done/meta.json")
    put(store, "data/tokens/done.parts/00000")  # its writer was killed when it had merged them
    put(store, f"data/tokens/done.parts/.00001.{DEAD}")
    put(store, f"data/tokens/todo.parts/.00001.{DEAD}")
    put(store, "loops/k/plans/.p.released")
    (store / f"data/.tokens.{DEAD}").write_text("a file")
    collect(store, [], apply=True)
    assert {path for path in left(store) if not path.startswith("claims/")} == stays


@pytest.mark.parametrize(
    ("trained", "ended", "goes"),
    [({"one"}, [True], False), ({"one", "two"}, [False], False), ({"one", "two"}, [True], True),
     ({"one", "two"}, [True, False], False), ({"one", "two"}, [True, True], True)],
    ids=["an arm is not trained", "under way", "ended", "another is under way", "both ended"],
)  # fmt: skip
def test_the_overlays_of_a_loop_go_when_no_study_trains_it(
    tmp_path: Path, store: Path, trained: set[str], ended: list[bool], goes: bool
) -> None:
    for key in trained:
        commit(store, stage(store, key), key, {"step": 1, "parent": None})
    loop = {"key": "k", "first_step": 0, "last_step": 1, "every": 1}
    arms = {
        arm: {"last": last, "keep": [last], "states": {"1": last}, "plan": None, "loop": {**loop, "role": arm}}
        for arm, last in (("treated", "one"), ("placebo", "two"))
    }
    studies = []
    for number, over in enumerate(ended):
        folder = tmp_path / f"study{number}"
        write_member(folder, {"plan": None, "arms": {**arms, "control": {**arms["treated"], "loop": None}}})
        record = {"store": str(store), "members": [str(folder)], "jobs": []}
        write_study(folder, record | ({"ended": 1.0} if over else {}))
        studies.append(folder)
    overlay, plan = put(store, "loops/k/overlays/step0-a"), put(store, "loops/k/plans/p")
    collect(store, studies, apply=False)
    assert overlay in left(store)
    collect(store, studies, apply=True)
    assert (overlay in left(store)) != goes
    assert plan in left(store)
