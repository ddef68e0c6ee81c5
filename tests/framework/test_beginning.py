"""Where a job goes on: never at a checkpoint that tells of other steps, never where the weights are gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from segments import G, Segment, metrics, reads, tensors

from pretrain_exp import provenance
from pretrain_exp.framework.huggingface import loop
from pretrain_exp.framework.worker import checkpoints
from pretrain_exp.framework.worker.checkpoints import Beginning, Checkpoints, find_beginning
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.journal import Origin
from pretrain_exp.framework.worker.ranks import Ranks
from pretrain_exp.store.claims import CLAIM, CLAIM_OWNER, ClaimLost, try_claim
from pretrain_exp.store.states import RELEASED, can_start, read_record, state_dir


def released(segment: Segment, step: int) -> None:
    (segment.state(step) / RELEASED).write_text("")
    shutil.rmtree(segment.state(step) / "checkpoint")


@pytest.fixture
def stop_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has the worker get SIGTERM while it computes a step, once."""
    train = loop.Training.train

    def stop_in(step: int) -> None:
        def signalled(self: loop.Training, batch: Any) -> None:
            if batch.step == step:
                monkeypatch.setattr(loop.Training, "train", train)
                os.kill(os.getpid(), signal.SIGTERM)
            train(self, batch)

        monkeypatch.setattr(loop.Training, "train", signalled)

    return stop_in


def test_a_checkpoint_whose_steps_begin_elsewhere_is_not_taken(
    make_segment: Any, stop_in: Callable[[int], None]
) -> None:
    """The folder of a job from step 0 to 6, stopped at 5, then serves the same run from its state at 3 on."""
    whole = make_segment(saves=(3, 6))
    whole.here()
    cut = make_segment(saves=(6,))
    stop_in(4)
    cut.here(status=75)
    progress = json.loads((cut.root / "resume/step5/progress.json").read_text())
    assert progress == {"schema": 2, "step": 5, "from": {"step": 0, "state": None}}
    cut.job["start"] = {"state": str(whole.state(3)), "step": 3}
    cut.here()
    assert [row["step"] for row in metrics(cut.state(6))] == [3, 4, 5]
    assert reads(cut.state(6)) == reads(whole.state(6))


def test_one_that_begins_elsewhere_does_not_stand_in_the_way_of_the_next(
    make_segment: Any, stop_in: Callable[[int], None]
) -> None:
    """Both jobs of the folder are stopped at the same step: the second finds its own checkpoint again."""
    whole = make_segment(saves=(3, 6))
    whole.here()
    cut = make_segment(saves=(6,))
    stop_in(4)
    cut.here(status=75)
    cut.job["start"] = {"state": str(whole.state(3)), "step": 3}
    stop_in(4)
    cut.here(status=75)
    progress = json.loads((cut.root / "resume/step5/progress.json").read_text())
    assert progress["from"] == {"step": 3, "state": "key-3"}
    assert find_beginning(Job.load(cut.write()), Ranks(0, 1, torch.device("cpu"))) == Beginning(
        5, cut.root / "resume/step5", Origin(3, "key-3"), resumed=True
    )
    cut.here()
    assert reads(cut.state(6)) == reads(whole.state(6))


def test_a_checkpoint_from_before_one_of_the_jobs_own_states_is_not_taken(
    make_segment: Any, stop_in: Callable[[int], None]
) -> None:
    """Stopped at 2 on the way to 3 and 6; the state at 3 then comes from another job."""
    other = make_segment(saves=(3,))
    other.here()
    cut = make_segment(saves=(3, 6))
    stop_in(1)
    cut.here(status=75)
    shutil.copytree(other.state(3), cut.state(3))
    cut.here()
    assert [row["step"] for row in metrics(cut.state(6))] == [3, 4, 5]


def test_a_state_keeps_what_was_changed_in_the_code_that_trained_it(
    make_segment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time it was trained; the same change has the same name."""
    segment = make_segment(saves=(3,))
    for patch in (b"first", b"second", b"second"):
        monkeypatch.setattr(provenance, "found", lambda patch=patch: ("c", patch))
        segment.here()
        released(segment, 3)
    assert sorted(path.read_bytes() for path in segment.state(3).glob("code-*.patch")) == [b"first", b"second"]


@pytest.mark.parametrize("saves", [(6,), (3, 6)])
def test_a_released_state_is_trained_again_and_keeps_its_logs(make_segment: Any, saves: tuple[int, ...]) -> None:
    segment = make_segment(saves=saves)
    segment.here()
    expected, created = (
        tensors(segment.state(saves[0])),
        read_record(segment.job["store"], f"key-{saves[0]}")["created"],
    )
    logs = (segment.state(saves[0]) / "metrics.jsonl").read_text()
    released(segment, saves[0])
    segment.here()
    assert can_start(segment.job["store"], f"key-{saves[0]}")
    found = tensors(segment.state(saves[0]))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (segment.state(saves[0]) / "metrics.jsonl").read_text() == logs
    assert read_record(segment.job["store"], f"key-{saves[0]}")["created"] == created


def test_a_job_does_not_begin_at_a_released_state(make_segment: Any) -> None:
    segment = make_segment(saves=(3, 6))
    segment.here()
    released(segment, 3)
    os.rename(segment.state(6), segment.root / "away")
    segment.here()
    assert [row["step"] for row in metrics(segment.state(6))] == [3, 4, 5]
    assert can_start(segment.job["store"], "key-3")


def test_only_the_first_rank_looks(make_segment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank whose file system is behind is told what the first one saw."""
    segment = make_segment(saves=(3, 6))
    segment.here()
    job, told = Job.load(segment.write()), []
    job_again = Job.load(make_segment(saves=(3, 6), store=segment.root / "other").write())

    class Wire(Ranks):
        def share(self, text: str) -> str:
            if self.first:
                told.append(text)
            return told[-1]

    device = torch.device("cpu")
    shutil.copytree(segment.state(3), state_dir(job_again.store, "key-3"))
    expected = Beginning(3, state_dir(job_again.store, "key-3"), Origin(3, "key-3"))
    assert find_beginning(job_again, Wire(0, 2, device)) == expected
    assert find_beginning(job, Wire(1, 2, device)) == expected, "its own store lacks nothing"
    assert find_beginning(job, Wire(0, 2, device)) is None
    assert find_beginning(job_again, Wire(1, 2, device)) is None


@pytest.mark.parametrize("stage", ["commit", "resume"])
def test_a_worker_that_lost_its_claim_writes_nothing(
    make_segment: Any, stop_in: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, stage: str, tmp_path: Path
) -> None:
    claim = try_claim(tmp_path, "k")
    assert claim is not None
    monkeypatch.setenv(CLAIM, str(claim.path))
    monkeypatch.setenv(CLAIM_OWNER, claim.owner)
    segment = make_segment(saves=(3, 6))
    segment.here()  # while it is held nothing is refused
    shutil.rmtree(segment.state(6))
    claim.path.with_name("2.json").write_text(json.dumps({"owner": "another"}))
    if stage == "resume":
        stop_in(4)
    segment.here(status=1)
    assert not segment.state(6).exists()
    assert not list(segment.root.glob("resume/*"))
    assert not (segment.root / "error.json").exists(), "the folder is another's"
    claim.release()


@pytest.mark.parametrize("there", [True, False])
def test_what_another_has_in_the_folder_stays(
    make_segment: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: bool
) -> None:
    """It took the claim, and has trained the state already, or removed what this one writes, which then crashes."""
    segment = make_segment(saves=(3,))
    segment.here()
    claim = try_claim(tmp_path, "k")
    assert claim is not None
    claim.path.with_name("2.json").write_text(json.dumps({"owner": "another"}))
    monkeypatch.setenv(CLAIM, str(claim.path))
    monkeypatch.setenv(CLAIM_OWNER, claim.owner)
    if there:
        job, journal = Job.load(segment.write()), SimpleNamespace(begin=lambda origin: None)
        (job.resume / "writing-4").mkdir(parents=True)
        with pytest.raises(ClaimLost):
            Checkpoints(job, Ranks(0, 1, torch.device("cpu")), cast(Any, None), cast(Any, journal)).save_state(
                job.saves[0]
            )
        assert (job.resume / "writing-4").is_dir()
    else:
        shutil.rmtree(segment.state(3))
        monkeypatch.delattr(loop.Training, "train")
        with pytest.raises(AttributeError):
            segment.here()
    assert not (segment.root / "error.json").exists()
    claim.release()


def test_a_state_that_a_kill_left_half_written_goes(make_segment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = make_segment(saves=(3,))
    with monkeypatch.context() as patched:
        patched.delattr(checkpoints, "commit")
        with pytest.raises(NameError):
            segment.here()
    assert list(segment.root.glob("resume/state-*/checkpoint"))
    segment.here()
    assert can_start(segment.job["store"], "key-3")
    assert not (segment.root / "resume").exists()
    assert [path.name for path in (segment.root / "store").iterdir()] == ["states"]


def test_two_ranks_begin_together(make_segment: Any) -> None:
    segment = make_segment(saves=(3, 6))
    segment.here()
    os.rename(segment.state(6), segment.root / "away")
    segment.run(ranks=2)
    assert reads(segment.state(6)).keys() == {(step, row) for step in (3, 4, 5) for row in range(G)}
    segment.run(ranks=2)  # nothing is missing: all ranks know, and leave


@pytest.mark.parametrize(("whole", "expected"), [((), 0), ((2,), 2)])
def test_a_checkpoint_that_was_half_removed_is_none(make_segment: Any, whole: tuple[int, ...], expected: int) -> None:
    """A kill within the removal of the one at 5 left its weights."""
    segment = make_segment(saves=(6,))
    for step in (*whole, 5):
        (segment.root / f"resume/step{step}/checkpoint").mkdir(parents=True)
    for step in whole:
        facts = {"schema": 2, "step": step, "from": {"step": 0, "state": None}}
        (segment.root / f"resume/step{step}/progress.json").write_text(json.dumps(facts))
    found = find_beginning(Job.load(segment.write()), Ranks(0, 1, torch.device("cpu")))
    assert found is not None
    assert found.step == expected


@pytest.mark.parametrize("minutes", [15.0, 1e-9])
def test_what_marks_a_checkpoint_as_whole_is_removed_first(
    make_segment: Any, stop_in: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, minutes: float
) -> None:
    """Of the one at 2, which goes when there is a newer one or a state: so that a kill right after leaves none."""
    segment = make_segment(saves=(6,), training={"resume_every_minutes": minutes})
    stop_in(1)
    segment.here(status=75)
    assert (segment.root / "resume/step2/progress.json").is_file()
    removed: list[list[Path]] = []
    monkeypatch.setattr(shutil, "rmtree", lambda folder, **_: removed.append([*Path(folder).rglob("progress.json")]))
    segment.here()
    assert any(removed) is False
    assert removed
