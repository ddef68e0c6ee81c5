"""Members that were each run by a controller of their own, as one study: told apart, and nothing missing in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pretrain_exp.errors import UserError
from pretrain_exp.store.states import write_json
from pretrain_exp.study.gather import gathered
from pretrain_exp.study.registry import read_study, write_member, write_study


@pytest.fixture
def sweep(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)  # where the newest study is noted
    (tmp_path / "sweep").mkdir()
    return tmp_path / "sweep"


def member(sweep: Path, number: int, *overrides: str, seed: int = 0, **study: Any) -> Path:
    """A study of one member, as a job of Hydra's launcher leaves it."""
    folder = sweep / str(number)
    named = {"placement": seed, "order": seed}
    record = {"label": "", "seed": seed, "seeds": named, "overrides": overrides, "plan": None, "plan_fingerprint": None}
    write_member(folder, {**record, "arms": {}})
    job = {"id": f"train-{number}", "kind": "train", "adopted": number > 0}
    told = {"title": "t", "question": "q", "command": "c", "versions": {}, "failures": [], "status": "done"}
    told |= {"store": str(sweep.parent / "store"), "members": [str(folder)], "jobs": [job], "reused": [f"s{number}"]}
    told |= {"cost": {"tokens trained": 10, "seconds": 1.5}, "started": 100.0 + number, "ended": 200.0 + number}
    write_study(folder, {**told, **study})
    (folder / "proof").mkdir(exist_ok=True)
    write_json(folder / "proof/0-treated.json", {"member": "", "seed": seed, "arm": "treated", "ok": True})
    return folder


def test_members_are_told_apart_and_their_records_joined(sweep):
    member(sweep, 0, "a.repetitions=1", "x=1", seed=0)
    member(sweep, 1, "a.repetitions=4", "x=1", seed=0)
    member(sweep, 10, "a.repetitions=4", "x=1", seed=1)
    for number in (2, 3, 4, 5, 6, 7, 8, 9):
        member(sweep, number, f"a.repetitions={number * 10}", "x=1")
    study = read_study(gathered(sweep))
    assert [json.loads((Path(one) / "member.json").read_text())["label"] for one in study["members"]] == [
        "repetitions=1",
        "repetitions=4",
        *(f"repetitions={number * 10}" for number in range(2, 10)),
        "repetitions=4",
    ]
    assert study["failures"] == []
    assert (study["status"], study["started"], study["ended"]) == ("done", 100.0, 210.0)
    assert study["cost"] == {"tokens trained": 110, "seconds": 16.5}
    assert len(study["jobs"]) == len(study["reused"]) == 11
    proof = json.loads((sweep / "proof/10-treated.json").read_text())
    assert (proof["member"], proof["seed"]) == ("repetitions=4", 1)


def test_what_a_member_did_not_come_to_is_said_and_mended_when_it_has(sweep):
    member(sweep, 0, "r=1")
    member(sweep, 2, "r=3", status="running", ended=None)
    member(sweep, 3, "r=4", status="failed", failures=["train x: failed"])
    for name in ("77_0", "77_1", "77_4"):
        (sweep / ".submitit" / name).mkdir(parents=True)
    study = read_study(gathered(sweep))
    assert study["failures"] == [
        "member 1 of the sweep has left no study",
        "member 4 of the sweep has left no study",
        "r=3 seed 0: has not ended (running)",
        "r=4 seed 0: train x: failed",
    ]
    assert (study["status"], study["ended"]) == ("failed", None)
    for number in range(5):
        member(sweep, number, f"r={number + 1}")
    member(sweep, 3, "r=4", status="running", ended=None)
    study = read_study(gathered(sweep))
    assert (study["status"], study["failures"]) == ("running", ["r=4 seed 0: has not ended (running)"])
    member(sweep, 3, "r=4")
    study = read_study(gathered(sweep))
    assert (study["status"], study["failures"]) == ("done", [])


def test_a_record_of_another_version_names_its_file_and_what_it_lacks(sweep):
    folder = member(sweep, 0)
    record = json.loads((folder / "member.json").read_text())
    write_member(folder, {name: value for name, value in record.items() if name != "seeds"})
    with pytest.raises(UserError, match=r"0/member\.json was written by another version: it has no seeds"):
        gathered(sweep)
    (folder / "study.json").write_text('{"title": ')
    with pytest.raises(UserError, match=r"study\.json is damaged"):
        read_study(folder)


def test_a_study_of_one_controller_stays_as_it_is(sweep):
    """Its members lie in numbered folders too, which hold no study of their own."""
    write_member(sweep / "0", {"label": "x"})
    write_study(sweep, {"store": "s", "members": [str(sweep / "0")]})
    before = (sweep / "study.json").read_text()
    assert gathered(sweep) == sweep
    assert (sweep / "study.json").read_text() == before
    assert not (sweep / "members").exists()


def test_members_of_different_stores_or_the_same_experiment_are_refused(sweep):
    member(sweep, 0, "r=1")
    member(sweep, 1, "r=1")
    with pytest.raises(UserError, match="the same experiment"):
        gathered(sweep)
    member(sweep, 1, "r=2", store="elsewhere")
    with pytest.raises(UserError, match="different stores"):
        gathered(sweep)
    with pytest.raises(UserError, match=r"no study\.json"):
        read_study(gathered(sweep.parent / "nothing"))
