"""Whether a study may take a folder: what counts as the same study, and what is said of another."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from pretrain_exp.errors import UserError
from pretrain_exp.store.process import describe_process
from pretrain_exp.study.registry import write_member, write_study
from pretrain_exp.study.same_study import refuse_another


def member(seed: int = 0, arms: tuple[str, ...] = ("treated", "control"), **config: Any) -> dict[str, Any]:
    """member.json of a run of 8 steps."""
    plans = {"treated": "plans/p0", "control": None, "placebo": "plans/p1"}
    facts = {arm: {"base": f"base{seed}", "plan": plans[arm], "loop": None} for arm in arms}
    default = {"seed": {"all": seed}, "training": {"num_steps": 8}, "tracking": {"wandb": False}, "eval": {}}
    return {"seed": seed, "arms": facts, "last_step": 8, "config": default | config}


def other(what: dict[str, Any], *path: str, value: Any) -> dict[str, Any]:
    """The record with one value replaced."""
    changed = copy.deepcopy(what)
    node = changed
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value
    return changed


TWO = [member(0), member(1)]
LONGER = other(member(training={"num_steps": 12}), "last_step", value=12)
SAME = {  # there, here
    "the same again": ([member()], [member()]),
    "other evaluations and tracking": ([member()], [member(eval={"sciq": {}}, tracking={"wandb": True})]),
    "one more seed": ([member()], TWO),
    "members in another order": (TWO, TWO[::-1]),
    "one more arm": ([member()], [member(arms=("treated", "control", "placebo"))]),
    "a store that was moved": ([member()], [other(member(), "arms", "treated", "plan", value="/moved/plans/p0")]),
}
OTHER = {  # there, here, what is said
    "another number of steps": ([member()], [LONGER], "training.num_steps (8 there, 12 here)"),
    "another seed alone": ([member()], [member(1)], "seed.all (0 there, 1 here)"),
    "a seed fewer": (TWO, TWO[:1], "seed.all (1 there, 0 here)"),
    "an arm fewer": ([member()], [member(arms=("treated",))], "arms control, treated; begun 1970-01-0"),
    "other texts in its file": (
        [member()],
        [other(member(), "arms", "treated", "plan", value="plans/p2")],
        "files that were read",
    ),
    "another loop": (
        [member()],
        [other(member(), "arms", "treated", "loop", value={"key": "x"})],
        "by: pretrain-exp a",
    ),
}


def stand(folder: Path, members: list[dict[str, Any]], **more: Any) -> None:
    """A study of these members in the folder."""
    places = [folder / str(number) for number in range(len(members))]
    for place, its in zip(places, members, strict=True):
        write_member(place, its)
    study = {"title": "one", "command": "pretrain-exp a=b", "started": 43200.0, "status": "done"}
    write_study(folder, {**study, "members": [*map(str, places)], "store": str(folder / "store"), **more})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "study"


@pytest.mark.parametrize("name", SAME)
def test_the_same_study_goes_on(name: str, folder: Path) -> None:
    there, here = SAME[name]
    refuse_another(folder, here, folder / "store", "hydra.run.dir")  # nothing is there
    stand(folder, there)
    refuse_another(folder, here, folder / "store", "hydra.run.dir")
    (folder / "0" / "member.json").unlink()  # a member that was deleted is written again
    refuse_another(folder, here, folder / "store", "hydra.run.dir")


@pytest.mark.parametrize("name", OTHER)
def test_another_study_is_refused(name: str, folder: Path) -> None:
    there, here, says = OTHER[name]
    stand(folder, there)
    before = (folder / "study.json").read_bytes()
    with pytest.raises(UserError) as found:
        refuse_another(folder, here, folder / "store", "hydra.sweep.dir")
    assert (found.value.key, found.value.value) == ("hydra.sweep.dir", str(folder))
    assert says in found.value.problem
    assert "another folder; or the settings of the study that is there" in str(found.value.fix)
    assert (folder / "study.json").read_bytes() == before


@pytest.mark.parametrize("refused", [True, False])
def test_a_study_that_runs_here_with_another_store_is_refused(refused: bool, folder: Path) -> None:
    stand(folder, [member()], status="running", controller=describe_process() if refused else None)
    refuse_another(folder, [member()], folder / "store", "hydra.run.dir")  # its claim is seen
    if refused:
        with pytest.raises(UserError, match="another process runs a study here"):
            refuse_another(folder, [member()], folder / "elsewhere", "hydra.run.dir")
    else:
        refuse_another(folder, [member()], folder / "elsewhere", "hydra.run.dir")
