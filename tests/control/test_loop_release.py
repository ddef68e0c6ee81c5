"""What a loop leaves in the store: one plan, whoever is killed, late or twice; and every slice stays what it was."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pretrain_exp.control import loop as loops
from pretrain_exp.control import plan_slice
from pretrain_exp.control.base import Decision
from pretrain_exp.control.look import Looked
from pretrain_exp.control.loop import Loop
from pretrain_exp.control.plan_slice import Slice
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.kinds import check_kind
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import EditItem, Edits, Window
from pretrain_exp.plan.folder import Plan
from pretrain_exp.plan.overlay import Overlay
from pretrain_exp.store.keys import digest
from pretrain_exp.store.states import write_json

S, BATCH, EVERY, STEPS, NAME = 32, 4, 5, 23, "loop"
PHASES, WINDOW = Phases([Phase(0, BATCH, S)]), Window(0, STEPS)
LOOP = Loop("k", 0, STEPS, EVERY)
ASKED = {0: 3, 5: 2, 10: 4, 15: 0, 20: 2}  # texts by slice; one is planted without any


def encode(texts: list[str]) -> list[np.ndarray]:
    return [np.array([ord(c) for c in text], np.uint32) for text in texts]


class Zeros:
    sequence_length, num_sequences = S, 1000

    def read(self, slot: int) -> np.ndarray:
        return np.zeros(S, np.uint32)


class Killed(BaseException):
    pass


def kill(*_: Any, **__: Any) -> None:
    raise Killed


def kill_in_the_midst(path: Path, ignore_errors: bool = False) -> None:
    """Deletes one file of a folder."""
    next(file for file in Path(path).rglob("*") if file.is_file()).unlink()
    raise Killed


class Bench:
    """A loop beside other edits, in a store of its own; no model: the controller asks for what is written above."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        (folder / "texts.jsonl").write_text(
            "".join(json.dumps({"text": c * (4 + i)}) + "\n" for i, c in enumerate("abc"))
        )
        controller = {"_target_": "pretrain_exp.control.doubling.Doubling", "target": 0.1, "maximum": 8}
        self.node = {"_target_": "pretrain_exp.insertion.dynamic_control.DynamicControl", "every": EVERY, "eos": "none",
                     "controller": controller, "file": str(folder / "texts.jsonl"), "items": None,
                     "probes": str(folder / "probes.jsonl")}  # fmt: skip
        (folder / "probes.jsonl").write_text('{"prompt": "p", "target": "x"}\n')
        kind, context = check_kind(self.node, NAME), InsertionContext(NAME, 0, S, 0, WINDOW, PHASES, encode)
        item, n = EditItem("s", np.arange(50, 59, dtype=np.uint32), dose=20), np.arange(20, dtype=np.int32)
        beside = Edits("static", [item], np.zeros_like(n), n, span=(0, PHASES.position_of_step(STEPS)))
        edits = [kind.edits(context), beside]
        self.static = compile_plan(edits, PHASES, WINDOW, 0, "treated", self.store / "plans")
        self.prints = {NAME: digest(kind.fingerprint(context))}

    def job(self, step: int, role: str = "treated") -> Path:
        """job.json of the slice that begins at `step`, or of the look at the end."""
        folder = self.store / "jobs" / f"{role}{step}"
        folder.mkdir(parents=True, exist_ok=True)
        told = {**LOOP.to_json(), "role": role, "plan": str(self.static.folder), "seed": 0, "prints": self.prints,
                "insertions": {NAME: self.node}}  # fmt: skip
        save = {"step": LOOP.end(step), "key": f"at{LOOP.end(step)}", "record": {"base": "base", "parent": f"at{step}"}}
        values = {"store": str(self.store), "live": str(folder), "loop": told, "phases": PHASES.to_json(),
                  "training": {"sequence_length": S}, "eos_token_id": 0, "tokenizer": "", "order": {},
                  "start": {"state": str(self.store / "states" / f"at{step}"), "step": step},
                  "save": [save] if role == "treated" else []}  # fmt: skip
        write_json(folder / "job.json", values)
        return folder / "job.json"

    def run(self, step: int, role: str = "treated") -> dict[str, Any]:
        """The resolved job; {} of a look."""
        job = self.job(step, role)
        assert plan_slice.main(job) == 0
        resolved = job.with_name("resolved.json")
        return json.loads(resolved.read_text()) if resolved.is_file() else {}

    def records(self) -> list[dict[str, Any]]:
        return loops.records(self.store, LOOP)

    def plans(self) -> tuple[set[str], set[str]]:
        """The names in the loop's own folder, and in plans/."""
        own = self.store / "loops/k/plans"
        return ({path.name for path in own.iterdir()} if own.is_dir() else set(),
                {path.name for path in (self.store / "plans").iterdir()})  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def no_model() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plan_slice, "order_from_json", lambda values: Zeros())
        patched.setattr(plan_slice, "load", lambda folder: SimpleNamespace(encode=encode, vocab_size=1000))
        patched.setattr(Slice, "_look", lambda self, said=None: looked(self.step))
        yield


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(no_model: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, dict[int, dict[str, Any]]]:
    """A loop from its first slice to its end, and its resolved jobs."""
    bench = Bench(tmp_path_factory.mktemp("undisturbed"))
    resolved = {step: bench.run(step) for step in LOOP.boundaries}
    bench.run(STEPS, "end")
    return bench, resolved


def looked(step: int) -> Looked:
    decision = Decision({}, count=ASKED[step], target=0.1) if step in ASKED else Decision({})
    return Looked(step, LOOP, {NAME: ()}, {NAME: decision})


def read_in(overlay: Overlay, steps: range) -> list[list[int]]:
    slots = range(PHASES.first_slot(steps.start), PHASES.first_slot(steps.stop))
    return [overlay.apply(slot, np.zeros(S, np.uint32)).tolist() for slot in slots]


def test_a_loop_leaves_one_plan_and_the_edits_of_each_slice(bench: Bench) -> None:
    resolved = {}
    for number, step in enumerate(LOOP.boundaries):
        resolved[step] = bench.run(step)
        names = [record["plan"] for record in bench.records()]
        own, final = bench.plans()
        assert own | final == {bench.static.fingerprint, *names[-2:]}
        assert loops.plan_folder(bench.store, LOOP, names[-1]).is_dir()
        assert len(names) == number + 1
    bench.run(STEPS, "end")
    assert bench.plans() == (set(), {bench.static.fingerprint, names[-1]})
    last = Plan.open(bench.store / "plans" / names[-1])
    assert sum(row["insertion"] == NAME for row in last.ledger().to_pylist()) == sum(ASKED.values())
    assert len(resolved) == len({job["overlay"] for job in resolved.values()}) == 5
    for step, job in resolved.items():
        slice_ = range(step, LOOP.end(step))
        overlay = Overlay.open(job["overlay"])
        assert read_in(overlay, slice_) == read_in(last.overlay, slice_)
        others = [range(step), range(slice_.stop, STEPS)]
        assert not any(overlay.touches(slot) for steps in others for step in steps for slot in PHASES.slots(step))
        assert job["save"][0]["key"] == plan_slice.key_of({**job["save"][0], "step": LOOP.end(step)}, last)


@pytest.mark.parametrize("until", [10, 15, STEPS], ids=["the next but one", "still later", "the end"])
def test_a_slice_that_is_trained_again_reads_the_same(bench: Bench, until: int) -> None:
    """Also where its own overlay is gone: a later plan holds what it was made of."""
    first = {step: bench.run(step) for step in LOOP.boundaries if step <= until}
    if until == STEPS:
        bench.run(STEPS, "end")
    for step, before in first.items():
        assert bench.run(step) == before
        slice_ = range(step, LOOP.end(step))
        read = read_in(Overlay.open(before["overlay"]), slice_)
        shutil.rmtree(before["overlay"])
        assert bench.run(step) == before
        assert read_in(Overlay.open(before["overlay"]), slice_) == read


def deleting(how: Any) -> Any:
    return SimpleNamespace(rmtree=how)


@pytest.mark.parametrize(
    ("step", "what", "name", "how"),
    [
        (10, plan_slice, "refuse_failed_audit", kill),
        (10, loops, "write", kill),
        (10, loops, "release", kill),
        (10, loops, "os", SimpleNamespace(**{**vars(os), "rename": kill})),
        (10, loops, "shutil", deleting(kill)),
        (10, loops, "shutil", deleting(kill_in_the_midst)),
        (10, plan_slice, "write_window", kill),
        (10, loops, "link", kill),
        (20, loops, "write", kill),
    ],
    ids=["compiled", "decided", "recorded", "to be moved", "moved", "half deleted", "released", "overlay made",
         "decided, the last"],
)  # fmt: skip
def test_killed_between_any_two_files_it_comes_to_the_same(
    bench: Bench, undisturbed: Any, monkeypatch: pytest.MonkeyPatch, step: int, what: Any, name: str, how: Any
) -> None:
    other, expected = undisturbed
    for before in range(0, step, EVERY):
        bench.run(before)
    with monkeypatch.context() as patched:
        patched.setattr(what, name, how)
        with pytest.raises(Killed):
            bench.run(step)
    loops.release(bench.store, LOOP)  # of another controller, that comes late
    resolved = {each: bench.run(each) for each in LOOP.boundaries if each >= step}
    bench.run(STEPS, "end")
    assert bench.records() == other.records()
    assert bench.plans() == other.plans()
    for each, job in resolved.items():
        assert job["save"] == expected[each]["save"]
        assert Path(job["overlay"]).name == Path(expected[each]["overlay"]).name


def test_two_controllers_at_once_plan_a_slice_once(bench: Bench, undisturbed: Any) -> None:
    for step in (0, 5):
        bench.run(step)
    with ThreadPoolExecutor() as both:
        found = list(both.map(bench.run, [10, 10]))
    assert found[0] == found[1]
    for step in (15, 20):
        bench.run(step)
    bench.run(STEPS, "end")
    assert (bench.records(), bench.plans()) == (undisturbed[0].records(), undisturbed[0].plans())


@pytest.mark.parametrize("how", [kill_in_the_midst, kill])
def test_killed_at_the_end_the_look_is_made_again(bench: Bench, monkeypatch: pytest.MonkeyPatch, how: Any) -> None:
    for step in LOOP.boundaries:
        bench.run(step)
    with monkeypatch.context() as patched:
        patched.setattr(loops, "shutil", deleting(how))
        with pytest.raises(Killed):
            bench.run(STEPS, "end")
    assert len(bench.records()) == 5, "the job is not done"
    bench.run(STEPS, "end")
    assert (bench.plans()[0], len(bench.records())) == (set(), 6)


def test_texts_that_changed_meanwhile_are_not_planted(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.run(0)
    bench.prints = {NAME: "of other files"}
    bench.run(0)  # planned already
    job = bench.job(5)
    assert plan_slice.main(job) == 2
    assert "have changed since the run was planned" in capsys.readouterr().err
    error = json.loads(job.with_name("error.json").read_text())
    assert (error["kind"], error["step"]) == ("user", 5)
    assert len(bench.records()) == 1
