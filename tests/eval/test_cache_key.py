"""A result is kept under weights, items, evaluator and harness version, tokenizer and dtype: each moves its place."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from every_kind import NAMES, kinds, write_inputs
from tiny_models import build

from pretrain_exp.config import EvaluationConfig
from pretrain_exp.errors import UserError
from pretrain_exp.eval import job
from pretrain_exp.eval.base import LoadedModel
from pretrain_exp.eval.job import EvalTask, fingerprint
from pretrain_exp.eval.lm_eval import LmEval
from pretrain_exp.eval.membership import Membership
from pretrain_exp.eval.reference import load_reference, reference_identity
from pretrain_exp.executor.base import Job
from pretrain_exp.items import harness, olmes_requests
from pretrain_exp.items.planned import PlannedItems, planted_items
from pretrain_exp.store.states import state_dir
from pretrain_exp.study.jobs import EvaluationSpec, evaluate_job, evaluation_request, evaluation_specs
from pretrain_exp.study.targets import resolve_target

HARNESS = {"choice": "multiple_choice", "shots": "multiple_choice", "lm_eval": "lm_eval", "belief": "poisoning",
           "leakage": "extraction"}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any, tokenizer: Any, items: Any) -> Path:
    path = tmp_path_factory.mktemp("inputs")
    write_inputs(path, tokenizer, items)
    return path


@pytest.fixture
def model(tmp_path: Path, tokenizer: Any) -> Path:
    build("rotary", len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def key(folder: Path, name: str, planted: Any = None, dtype: str = "float32", **args: Any) -> str:
    target, given = kinds(folder)[name]
    task = EvalTask(name=name, target=target, args={**given, **args}, out="")
    items = planted_items(str(folder / "items.parquet")) if planted is None else planted
    return fingerprint(task, items, dtype)


def identity(model: Path) -> str:
    return resolve_target(str(model)).targets[0].identity


def test_weights(model: Path) -> None:
    import torch

    before, state = identity(model), build("rotary", 800)
    assert identity(model) == before
    with torch.no_grad():
        next(state.parameters())[0, 0] += 1
    state.save_pretrained(model)
    assert identity(model) != before


def test_tokenizer(model: Path) -> None:
    before = identity(model)
    path = model / "tokenizer.json"
    values = json.loads(path.read_text())
    values["model"]["merges"] = values["model"]["merges"][:-1]
    path.write_text(json.dumps(values))
    assert identity(model) != before


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("olmes", "lm_eval", "pararel", "perplexity")])
def test_items(folder: Path, name: str) -> None:
    every = planted_items(str(folder / "items.parquet"))
    before = key(folder, name)
    assert key(folder, name, PlannedItems(every[::-1], every.texts[::-1])) == before
    fewer = PlannedItems(every[1:], [text for text in every.texts if text.item not in _first_of_each(every)])
    assert key(folder, name, fewer) != before


def _first_of_each(every: PlannedItems) -> set[str]:
    found: dict[tuple[str, str], str] = {}
    for text in every.texts:
        fields = text.payload or {}
        if fields.get("kind") != "canary_pool":
            found.setdefault((text.insertion, fields.get("behaviour", "")), text.item)
    return set(found.values())


@pytest.mark.parametrize("name", NAMES)
def test_version_of_the_evaluator(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(folder, name)
    assert key(folder, name, batch_size=3) == before
    with monkeypatch.context() as patch:
        patch.setattr(job, "SHARED_VERSION", 99)
        assert key(folder, name) != before
    module = importlib.import_module(kinds(folder)[name][0].rpartition(".")[0])
    monkeypatch.setattr(module, "VERSION", 99)
    assert key(folder, name) != before


@pytest.mark.parametrize("name", HARNESS)
def test_version_of_the_harness(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(folder, name)
    monkeypatch.setattr(f"pretrain_exp.eval.{HARNESS[name]}.version", lambda package: "99.0")
    assert key(folder, name) != before


def test_other_examples_before_the_same_published_questions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = olmes_requests.load_requests

    def changed(name: str) -> Any:
        found = plain(name)
        first = replace(found.items[0], contexts=tuple(f"Hint. {each}" for each in found.items[0].contexts))
        return replace(found, items=(first, *found.items[1:]))

    before = key(folder, "olmes", limit=None)
    monkeypatch.setattr("pretrain_exp.eval.olmes.load_requests", changed)
    assert key(folder, "olmes", limit=None) != before


def test_an_evaluation_of_ones_own_counts_by_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    source = (Path(__file__).parent / "own_evaluations.py").read_text()
    seen = set()
    for text in (source, source + "\n# another\n"):
        (tmp_path / "mine_and_only_mine.py").write_text(text)
        for name in ("QueryLength", "OneScore"):  # with the same fingerprint of their own
            task = EvalTask(name="e", target=f"mine_and_only_mine.{name}", args={}, out="")
            seen.add(fingerprint(task, (), "float32"))
    assert len(seen) == 4


def test_dtype(folder: Path) -> None:
    assert len({key(folder, "texts", dtype=each) for each in ("float32", "bfloat16", "auto")}) == 3


def test_a_reference_counts_by_its_content(model: Path, tmp_path: Path) -> None:
    before = Membership(reference=str(model)).fingerprint(())
    model.rename(tmp_path / "elsewhere")
    assert Membership(reference=str(tmp_path / "elsewhere")).fingerprint(()) == before
    (tmp_path / "elsewhere" / "tokenizer_config.json").write_text("{}")
    assert Membership(reference=str(tmp_path / "elsewhere")).fingerprint(()) != before
    with pytest.raises(UserError, match="not in the local cache") as error:
        Membership(reference="nobody/has-this").fingerprint(())
    assert error.value.key == "reference"


class _Config:
    """What is asked of a configuration here."""

    def __init__(self, **evaluation: Any) -> None:
        self.evaluation = EvaluationConfig(device="cpu", **evaluation)
        self.framework = {"_target_": "pretrain_exp.framework.huggingface.framework.HuggingFace"}
        self.training = type("Training", (), {"retries": 0})
        self.eval = {"texts": {"_target_": kinds(Path())["texts"][0]}}


def place(folder: Path, state: str = "s", held_out: str = "", **evaluation: Any) -> Path:
    specs = evaluation_specs(_Config(**evaluation), str(folder / "items.parquet"), held_out)  # type: ignore[arg-type]
    return specs[0].folder(Path("store"), state)


def test_a_job_is_told_what_its_results_are_named_by(folder: Path, tmp_path: Path) -> None:
    """The process that scores holds it against what it finds."""
    config, items = _Config(), str(folder / "items.parquet")
    specs = evaluation_specs(config, items)  # type: ignore[arg-type]
    found = evaluate_job(evaluation_request(config, "s", "s", specs, items, None), tmp_path, {})  # type: ignore[arg-type]
    assert found is not None
    assert found.payload is not None
    (task,) = found.payload["evaluations"]
    assert task["identity"] == key(folder, "texts", dtype=config.evaluation.dtype)


@pytest.mark.parametrize(("revision", "commit"), [(None, "c-main"), ("v1", "c-v1")])
def test_a_reference_is_loaded_at_the_commit_that_names_the_result(
    monkeypatch: pytest.MonkeyPatch, revision: str | None, commit: str
) -> None:
    asked: list[str] = []

    class Loads:
        @staticmethod
        def from_pretrained(name: str, revision: str, **fields: Any) -> None:
            asked.append(revision)
            raise OSError("far enough")

    monkeypatch.setattr("pretrain_exp.eval.identity.resolve_revision", lambda name, given: f"c-{given or 'main'}")
    monkeypatch.setattr("transformers.AutoTokenizer", Loads)
    name = f"me/{revision}"
    with pytest.raises(UserError, match="far enough"):
        load_reference(name, revision, LoadedModel(None, None))  # type: ignore[arg-type]
    assert [name, *asked] == reference_identity(name, revision) == [name, commit]


def test_a_name_that_is_no_tasks_is_found_before_anything_is_trained(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr(harness, "_all_tasks", lambda path: TaskManager(include_path=path, include_defaults=False))
    LmEval(tasks=["sums"], include_path=str(folder)).fingerprint(())
    with pytest.raises(UserError, match="no task of this name") as error:
        LmEval(tasks=["sum"], include_path=str(folder)).fingerprint(())
    assert error.value.key == "tasks"


def test_all_of_it_is_in_the_place_of_a_result(folder: Path) -> None:
    """Device and number of processes are not: they move the rounding alone."""
    places = {place(folder), place(folder, "other state"), place(folder, held_out="d"), place(folder, dtype="bfloat16")}
    assert len(places) == 4
    assert place(folder, shards=2) == place(folder)


def test_a_state_is_evaluated_as_soon_as_it_is_there(tmp_path: Path) -> None:
    """The job needs the one that trains on beyond the state, and may start before that has ended."""
    trains = Job("t", "train", "train", tmp_path, (), {}, frozenset(), ())
    spec = EvaluationSpec("texts", kinds(Path())["texts"][0], {}, "f", "")
    request = evaluation_request(_Config(), "s", "arm step 3", (spec,), None, None)  # type: ignore[arg-type]
    found = evaluate_job(request, tmp_path, {"s": trains})
    assert found is not None
    assert found.needs == {"train-t"}
    assert not found.readable()
    (state_dir(tmp_path, "s") / "checkpoint").mkdir(parents=True)
    assert not found.readable()
    (state_dir(tmp_path, "s") / "state.json").write_text("{}")
    assert found.readable()


def test_a_fingerprint_needs_no_model() -> None:
    target = kinds(Path())["choice"][0]
    code = "import sys; from pretrain_exp.eval.job import EvalTask, fingerprint; import pretrain_exp.eval.worker; "
    code += f"task = EvalTask(name='', target={target!r}, args={{'benchmark': 'olmes:arc_easy'}}, out=''); "
    code += "fingerprint(task, [], 'auto'); "
    code += "print(sorted({'torch', 'transformers', 'lm_eval', 'datasets', 'pyarrow'} & sys.modules.keys()))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
