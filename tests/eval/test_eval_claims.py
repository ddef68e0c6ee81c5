"""An evaluation whose claim another process took over writes nothing: neither a result nor a failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pretrain_exp.eval import state, worker
from pretrain_exp.eval.base import LoadedModel
from pretrain_exp.eval.job import EvalJob, EvalTask
from pretrain_exp.store.claims import CLAIM, CLAIM_OWNER, claimed


@pytest.fixture(autouse=True)
def _own_evaluations(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture
def job(tmp_path, monkeypatch) -> Path:
    """job.json of two evaluations, one of which fails; the model is not loaded, since they ask nothing of it."""

    class Model:
        dtype, device = "torch.float32", "cpu"

    monkeypatch.setattr(worker, "load_model", lambda job: LoadedModel(Model(), None))
    out = tmp_path / "evals"
    tasks = [
        EvalTask(name="long", target="own_evaluations.OneScore", args={}, out=str(out / "long")),
        EvalTask(name="raises", target="own_evaluations.Raises", args={}, out=str(out / "raises")),
    ]
    EvalJob(model="m", evaluations=tuple(tasks)).write(tmp_path / "job.json")
    return tmp_path / "job.json"


def hold(monkeypatch, claim) -> None:
    monkeypatch.setenv(CLAIM, claim.environment()[CLAIM])
    monkeypatch.setenv(CLAIM_OWNER, claim.environment()[CLAIM_OWNER])


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_results_and_failures_are_written_under_a_claim_that_is_held(tmp_path, job, monkeypatch):
    with claimed(tmp_path, "evaluate-x") as claim:
        hold(monkeypatch, claim)
        assert worker.main([str(job)]) == 1
    assert written(tmp_path / "evals") == ["long/eval.json", "long/items.parquet", "raises.error.json"]


def test_nothing_is_written_once_the_claim_is_anothers(tmp_path, job, monkeypatch):
    with claimed(tmp_path, "evaluate-x") as claim:
        hold(monkeypatch, claim)
        (claim.path.parent / "2.json").write_text(json.dumps({"owner": "another"}))
        assert worker.main([str(job)]) == 1
        assert written(tmp_path / "evals") == []
        assert state._failed(tmp_path, "no") == 1
        assert not (tmp_path / "error.json").exists()


def test_a_framework_that_cannot_be_made_is_the_users_to_mend(tmp_path):
    """So that nobody tries it again: its package may be gone from the environment since the study was run."""
    values = {"live": str(tmp_path), "framework": {"_target_": "gone.Framework"}, "state": str(tmp_path / "state")}
    (tmp_path / "job.json").write_text(json.dumps(values))
    assert state.main(tmp_path / "job.json") == 1
    error = json.loads((tmp_path / "error.json").read_text())
    assert error["kind"] == "user"
    assert "gone" in error["message"]
