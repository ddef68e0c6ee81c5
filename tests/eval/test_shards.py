"""One checkpoint evaluated by several processes: the table of one process, and what is done is never done again."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pretrain_exp.config import EvaluationConfig
from pretrain_exp.eval import shards, worker
from pretrain_exp.eval.base import EvalContext, Shard
from pretrain_exp.eval.job import EvalJob, EvalTask, Outcome
from pretrain_exp.eval.multiple_choice import MultipleChoice
from pretrain_exp.plan.ledger import ITEMS_SCHEMA

KIND = "pretrain_exp.eval.{}.{}"
# every evaluation in shards, in one process: test_every_evaluation.py
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "choice": (KIND.format("multiple_choice", "MultipleChoice"), {}),
    "texts": (KIND.format("planted_texts", "PlantedTexts"), {}),
    "verbatim": (KIND.format("verbatim", "Verbatim"), {"prefix": 2, "suffix": 2}),
    "perplexity": (KIND.format("perplexity", "Perplexity"), {}),
    "whole": ("own_evaluations.OneScore", {}),  # does not say that it can be divided
}


@pytest.fixture(scope="module")
def inputs(models, items, tmp_path_factory) -> dict[str, Any]:
    """A checkpoint, a plan's items, documents; the fields of a job that say where they are."""
    folder = tmp_path_factory.mktemp("inputs")
    models["rotary"].model.save_pretrained(folder / "model")
    models["rotary"].tokenizer.save_pretrained(folder / "model")
    rows = [("choice", item.id, "", 1, "", [1], item.to_json(), False) for item in items]
    rows += [("poems", str(i), "", i % 2, "", [0, *range(5 + i, 12 + 2 * i), 0], "", False) for i in range(9)]
    table = pa.Table.from_pylist([dict(zip(ITEMS_SCHEMA.names, row, strict=True)) for row in rows], ITEMS_SCHEMA)
    pq.write_table(table, folder / "items.parquet")
    texts = [{"text": f"Ice number {i} melts. " * (i + 1)} for i in range(6)]
    (folder / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    paths = {"items": str(folder / "items.parquet"), "held_out": str(folder / "held.jsonl")}
    return {"model": str(folder / "model"), "device": "cpu", "threads": 1, **paths}


@pytest.fixture(autouse=True)
def own_module(monkeypatch: pytest.MonkeyPatch) -> None:
    here = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("PYTHONPATH", here)


def run(folder: Path, inputs: dict[str, Any], names: list[str], **fields: Any) -> tuple[int, EvalJob]:
    folder.mkdir(exist_ok=True)
    tasks = tuple(
        EvalTask(name=name, target=KINDS[name][0], args=KINDS[name][1], out=str(folder / name)) for name in names
    )
    job = EvalJob(evaluations=tasks, **inputs, **fields)
    job.write(folder / "job.json")
    return worker.main([str(folder / "job.json")]), job


def values(out: str) -> dict[tuple[str, str, str], float]:
    rows = pq.read_table(Path(out) / "items.parquet").to_pylist()
    return {(row["task"], row["item"], row["metric"]): row["value"] for row in rows}


def test_two_processes_leave_the_table_of_one(inputs: dict[str, Any], tmp_path: Path) -> None:
    names = list(KINDS)
    assert run(tmp_path / "one", inputs, names)[0] == 0
    status, job = run(tmp_path / "two", inputs, names, shards=2, progress=str(tmp_path / "progress.json"))
    assert status == 0
    for task in job.evaluations:
        alone, shared = values(str(tmp_path / "one" / task.name)), values(task.out)
        assert shared.keys() == alone.keys(), task.name
        assert alone
        for key, value in alone.items():
            assert shared[key] == pytest.approx(value, abs=1e-4, rel=1e-5), key
        one, two = (Outcome.read(out).record for out in (str(tmp_path / "one" / task.name), task.out))
        assert one is not None
        assert two is not None
        assert (two["n"], two["fingerprint"], two["dtype"]) == (one["n"], one["fingerprint"], one["dtype"])
        assert two["shards"] == (1 if task.name == "whole" else 2)
        assert two["summary"].keys() == one["summary"].keys()
    assert sorted(path.name for path in (tmp_path / "two").iterdir() if path.is_dir()) == sorted(names)  # no parts left


def test_items_are_dealt_once_each() -> None:
    parts = [Shard(number, 3) for number in range(3)]
    names = [str(i) for i in range(300)]
    held = [[name for name in names if part.holds(name)] for part in parts]
    assert sorted(name for some in held for name in some) == sorted(names)
    assert min(map(len, held)) > 60
    assert Shard().holds("anything")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process of a job runs to its end in this one, where torch is loaded already."""

    class Process:
        def __init__(self, command: list[str]) -> None:
            self.status = worker.main(command[-1:])

        def poll(self) -> int:
            return self.status

        kill = wait = poll

    monkeypatch.setattr(shards, "subprocess", SimpleNamespace(Popen=Process))


@pytest.mark.usefixtures("here")
def test_a_finished_shard_is_not_computed_again(inputs: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    """The first process was killed after one of its evaluations, the second had ended."""
    status, job = run(tmp_path / "whole", inputs, ["texts", "verbatim"])
    assert status == 0
    folder = tmp_path / "shared"
    folder.mkdir()
    tasks = [replace(task, out=str(folder / task.name)) for task in job.evaluations]
    job = replace(job, evaluations=tuple(tasks), shards=2)
    done = []
    for number in (0, 1):
        mine = [replace(task, out=f"{task.out}.shard{number}of2") for task in tasks]
        part = replace(job, shard=number, evaluations=tuple(mine[: 1 if number == 0 else 2]))
        part.write(folder / "part.json")
        assert worker.main([str(folder / "part.json")]) == 0
        done += [task.out for task in part.evaluations]
    before = {out: os.stat(Path(out) / "eval.json").st_mtime_ns for out in done}
    loaded = []
    plain = worker.load_model
    monkeypatch.setattr(worker, "load_model", lambda job: loaded.append(job.shard) or plain(job))
    kept: list[dict[str, int]] = []
    merge = shards._merge

    def looked(job: EvalJob, task: EvalTask) -> bool:
        if not kept:
            kept.append({out: os.stat(Path(out) / "eval.json").st_mtime_ns for out in done})
        return merge(job, task)

    monkeypatch.setattr(shards, "_merge", looked)
    job.write(folder / "job.json")
    assert worker.main([str(folder / "job.json")]) == 0
    assert loaded == [0]  # only the first one had something left
    assert kept == [before]
    for task in tasks:
        assert values(task.out).keys() == values(str(tmp_path / "whole" / task.name)).keys()


@pytest.mark.usefixtures("here")
def test_one_that_cannot_say_what_it_reads_fails_alone(
    inputs: dict[str, Any], tmp_path: Path, monkeypatch: Any
) -> None:
    """Also where its shards have results already, of an attempt that was cut off."""
    names = ["texts", "perplexity"]
    with monkeypatch.context() as patch:
        patch.setattr(shards, "_merge", lambda job, task: False)
        run(tmp_path / "out", inputs, names, shards=2)
    monkeypatch.setattr("pretrain_exp.eval.perplexity.Perplexity.fingerprint", lambda self, items: 1 / 0)
    status, job = run(tmp_path / "out", inputs, names, shards=2)
    texts, perplexity = (Outcome.read(task.out) for task in job.evaluations)
    assert status == 1
    assert texts.record is not None
    assert perplexity.error is not None
    assert "ZeroDivisionError" in perplexity.error["message"]


@pytest.mark.usefixtures("here")
def test_a_shard_that_fails_is_told_and_the_others_stay(inputs: dict[str, Any], tmp_path: Path) -> None:
    broken = {**inputs, "held_out": str(tmp_path / "gone.jsonl")}
    status, job = run(tmp_path / "out", broken, ["texts", "perplexity"], shards=2)
    assert status == 1
    texts, perplexity = (Outcome.read(task.out) for task in job.evaluations)
    assert texts.record is not None
    assert perplexity.error is not None
    assert "gone.jsonl" in perplexity.error["message"]
    assert not (tmp_path / "out" / "perplexity").exists()
    Path(broken["held_out"]).write_text('{"text": "Ice melts."}\n')
    status, job = run(tmp_path / "out", broken, ["texts", "perplexity"], shards=2)
    assert status == 0
    assert Outcome.read(job.evaluations[1].out).error is None


@pytest.mark.usefixtures("here")
def test_silence_of_all_shards_is_a_failure(inputs: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(KINDS, "silent", ("own_evaluations.Silent", {}))
    monkeypatch.setattr("own_evaluations.Silent.divisible", True, raising=False)
    status, job = run(tmp_path / "out", inputs, ["silent"], shards=2)
    assert status == 1
    error = Outcome.read(job.evaluations[0].out).error
    assert error is not None
    assert "returned no scores, and no note" in error["message"]


def test_examples_are_those_of_the_whole_benchmark(models: Any, items: Any) -> None:
    """A shard's few-shot examples come from all items, so its prompts are those of one process."""
    evaluation = MultipleChoice(num_fewshot=2)
    whole = {s[:3]: s.value for s in evaluation.run(models["rotary"], EvalContext(items=items))}
    for number in range(3):
        some = evaluation.run(models["rotary"], EvalContext(items=items, shard=Shard(number, 3)))
        assert some
        for score in some:
            assert score.value == pytest.approx(whole[score[:3]], abs=1e-4, rel=1e-5)


def test_shards_share_no_single_device() -> None:
    with pytest.raises(ValueError, match="2 shards on one device"):
        EvaluationConfig(shards=2, device="cuda:1")
    assert EvaluationConfig(shards=2, device="cuda").shards == 2
