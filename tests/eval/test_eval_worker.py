"""The evaluation process: one load serves all, a failure is told and stops none of the others."""

import dataclasses
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pretrain_exp.errors import Problems, UserError
from pretrain_exp.eval import worker
from pretrain_exp.eval.base import EvalContext, instantiate
from pretrain_exp.eval.job import EvalJob, EvalTask, Outcome, fingerprint
from pretrain_exp.eval.multiple_choice import MultipleChoice
from pretrain_exp.eval.perplexity import Perplexity
from pretrain_exp.eval.table import to_table
from pretrain_exp.plan.ledger import ITEMS_SCHEMA
from pretrain_exp.provenance import versions

HERE = Path(__file__).parent
KINDS = {"multiple_choice": {}, "planted_texts": {}, "lm_eval": {"tasks": ["arc_easy"]}, "perplexity": {}}


@pytest.fixture(autouse=True)
def own_module(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture
def checkpoint(hf_folder):
    return hf_folder


@pytest.fixture
def planted(tmp_path, items):
    """A plan's items.parquet, with items that are not multiple choice and one that two insertions plant."""
    rows = [("choice", item.id, "", 1, "", [1], item.to_json()) for item in [*items, items[0]]]
    rows += [("poems", "a", "", 4, "", [0, 7, 8, 9, 0], ""), ("poems", "b", "", 0, "", [0, 9, 8, 0], "")]
    rows = [dict(zip(ITEMS_SCHEMA.names, (*row, False), strict=True)) for row in rows]
    pq.write_table(pa.Table.from_pylist(rows, ITEMS_SCHEMA), tmp_path / "items.parquet")
    return str(tmp_path / "items.parquet")


@pytest.fixture
def job(tmp_path, checkpoint, planted):
    """Runs evaluations {name: (target, args)} in this process; returns the exit status and the outcomes."""

    def run(evaluations, identity="", **fields):
        tasks = tuple(
            EvalTask(name=name, target=target, args=args, out=str(tmp_path / "out" / str(name)), identity=identity)
            for name, (target, args) in evaluations.items()
        )
        fields = {"model": str(checkpoint), "items": planted, "device": "cpu", "threads": 1} | fields
        EvalJob(evaluations=tasks, **fields).write(tmp_path / "job.json")
        return worker.main([str(tmp_path / "job.json")]), {task.name: Outcome.read(task.out) for task in tasks}

    return run


CHOICE = ("pretrain_exp.eval.multiple_choice.MultipleChoice", {})
LENGTH = ("own_evaluations.QueryLength", {"scale": 2.0})
TEXTS = ("pretrain_exp.eval.planted_texts.PlantedTexts", {})


def test_results_are_those_of_the_evaluation_itself(job, tmp_path, models, items):
    status, outcomes = job({"choice": CHOICE})
    assert status == 0
    expected = to_table("choice", MultipleChoice().run(models["rotary"], EvalContext(items=items)))
    table = pq.read_table(tmp_path / "out" / "choice" / "items.parquet")
    assert table.drop_columns("value") == expected.drop_columns("value")
    assert table["value"].to_pylist() == pytest.approx(expected["value"].to_pylist(), abs=1e-4, rel=1e-6)
    record = outcomes["choice"].record
    assert record["n"] == len(table) == 6 * len(items)
    assert record["dtype"] == "float32"
    assert record["versions"] == versions()
    assert record["versions"]["lm-eval"] == record["fingerprint"]["lm_eval"]
    assert record["summary"].keys() == {item.benchmark for item in items}


def test_what_a_plan_does_not_hold_is_noted_and_no_error(job, tmp_path):
    status, outcomes = job({"choice": CHOICE, "texts": TEXTS}, items=None)
    assert status == 0
    for name in ("choice", "texts"):
        record = outcomes[name].record
        assert (record["n"], record["summary"]) == (0, {})
        assert ["nothing to score" in note for note in record["notes"]] == [True]
        assert pq.read_table(tmp_path / "out" / name / "items.parquet").num_rows == 0


def test_the_texts_of_a_plan_are_scored_beside_its_choices(job, tmp_path):
    status, outcomes = job({"choice": CHOICE, "texts": TEXTS})
    assert status == 0
    rows = pq.read_table(tmp_path / "out" / "texts" / "items.parquet").to_pylist()
    assert {(row["task"], row["item"]) for row in rows} == {("poems", "a"), ("poems", "b")}
    assert outcomes["texts"].record["fingerprint"]["n"] == 2
    assert outcomes["choice"].record["fingerprint"]["n"] == 24


def test_an_evaluation_of_ones_own(job, tmp_path, items, models):
    status, outcomes = job({"length": LENGTH})
    assert status == 0
    assert outcomes["length"].record["notes"] == ["counted"]
    table = pq.read_table(tmp_path / "out" / "length" / "items.parquet")
    lengths = [2.0 * len(models["rotary"].tokenizer.encode(item.query)) for item in items]
    assert table["value"].to_pylist() == lengths


@pytest.mark.parametrize(
    ("bad", "message", "user_error"),
    [
        (("own_evaluations.Raises", {}), "ZeroDivisionError: no items of this kind", False),
        (("own_evaluations.NotFinite", {}), "1 of 1 scores are not finite", False),
        (("own_evaluations.Silent", {}), "bad returned no scores, and no note that says why", False),
        (("own_evaluations.NoEvaluation", {}), "this is no evaluation", True),
        (("own_evaluations.Absent", {}), "has no Absent", True),
        (("absent_module.Kind", {}), "No module named 'absent_module'", True),
        (("own_evaluations.QueryLength", {"scale": "long"}), "valid number", True),
        (("own_evaluations.QueryLength", {"speed": 1}), "unknown key", True),
        (("pretrain_exp.eval.perplexity.Perplexity", {"files": ["absent.jsonl"]}), "no such file", True),
    ],
)
def test_a_failure_is_told_and_the_others_still_run(job, tmp_path, bad, message, user_error):
    status, outcomes = job({"before": LENGTH, "bad": bad, "after": LENGTH})
    assert status == 1
    assert outcomes["before"].record["n"] == outcomes["after"].record["n"] == 24
    assert outcomes["bad"].record is None
    error = outcomes["bad"].error
    assert message in error["message"]
    assert error["user_error"] is user_error
    assert not (tmp_path / "out" / "bad").exists()
    told = json.loads((tmp_path / "error.json").read_text())
    assert told == {"kind": "user" if user_error else "evaluation", "message": f"bad: {error['message']}"}


def test_a_failure_is_the_users_where_all_of_it_is(job, tmp_path):
    absent, raises = ("own_evaluations.Absent", {}), ("own_evaluations.Raises", {})
    for evaluations, kind in (([absent, absent], "user"), ([absent, raises], "evaluation")):
        job(dict(enumerate(evaluations)))
        assert json.loads((tmp_path / "error.json").read_text())["kind"] == kind


@pytest.mark.parametrize("when", ["before", "while"])
def test_no_result_is_kept_of_what_changed_after_it_was_named(job, tmp_path, monkeypatch, when):
    """The folder of a result is named by the content that was there when the job was planned."""
    (tmp_path / "texts.jsonl").write_text('{"text": "Ice melts."}\n')
    kind = ("pretrain_exp.eval.perplexity.Perplexity", {"files": [str(tmp_path / "texts.jsonl")]})
    task = EvalTask(name="e", target=kind[0], args=kind[1], out=str(tmp_path / "out" / "e"))
    planned = fingerprint(task, (), "auto")
    plain = Perplexity.run

    def edited(self, model, context):
        (tmp_path / "texts.jsonl").write_text('{"text": "Ice floats."}\n')
        return plain(self, model, context)

    assert job({"e": kind}, identity=planned)[0] == 0
    monkeypatch.setattr(Perplexity, "run", edited)
    if when == "before":
        edited(Perplexity(), None, EvalContext())
    status, outcomes = job({"e": kind}, identity=planned)
    assert status == 1
    assert "changed since its job was planned (files)" in outcomes["e"].error["message"]
    assert outcomes["e"].error["user_error"]


def test_a_failure_after_a_success_is_what_counts_and_a_success_takes_it_away(job, tmp_path):
    assert job({"e": LENGTH})[1]["e"].error is None
    assert "ZeroDivisionError" in job({"e": ("own_evaluations.Raises", {})})[1]["e"].error["message"]
    assert job({"e": ("own_evaluations.QueryLength", {"scale": 5.0})})[1]["e"].error is None
    assert pq.read_table(tmp_path / "out" / "e" / "items.parquet")["value"][0].as_py() % 5 == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["e"]  # nothing half-written is left


def test_a_result_is_never_seen_half(job, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "rename", lambda *paths: (_ for _ in ()).throw(OSError("the disk is full")))
    status, outcomes = job({"e": LENGTH})
    assert status == 1
    assert "the disk is full" in outcomes["e"].error["message"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["e.error.json"]


def test_what_a_killed_process_left_blocks_no_result(job, tmp_path):
    for kind in ("partial", "old"):
        for name in (f"e.{kind}-{os.getpid()}", f"e.{kind}-12345678"):
            (tmp_path / "out" / name).mkdir(parents=True)
            (tmp_path / "out" / name / "items.parquet").write_text("half")
    (tmp_path / "out" / "e").mkdir()
    assert job({"e": LENGTH})[0] == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["e"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "/nowhere"}, "/nowhere"),
        ({"items": "/nowhere.parquet"}, "/nowhere.parquet"),
        ({"device": "no"}, "no"),
    ],
)
def test_what_cannot_be_loaded_fails_every_evaluation(job, fields, message):
    status, outcomes = job({"a": LENGTH, "b": LENGTH}, **fields)
    assert status == 1
    assert all(message in outcome.error["message"] for outcome in outcomes.values())


def test_the_model_is_loaded_once(job, monkeypatch):
    loads = []
    plain = worker.load_model
    monkeypatch.setattr(worker, "load_model", lambda job: loads.append(job.model) or plain(job))
    job({"a": LENGTH, "b": LENGTH, "c": CHOICE})
    assert len(loads) == 1


def test_progress_is_written_as_it_goes(job, tmp_path):
    job({"choice": CHOICE, "fast": LENGTH}, progress=str(tmp_path / "progress.json"))
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert progress["evaluation"] == "choice"
    assert (progress["number"], progress["of"]) == (1, 2)
    assert progress["done"] == progress["total"] > 0


def test_bfloat16_is_recorded(job):
    record = job({"choice": CHOICE}, dtype="bfloat16")[1]["choice"].record
    assert record["dtype"] == "bfloat16"


def test_a_job_of_another_schema_is_refused(tmp_path):
    (tmp_path / "job.json").write_text('{"schema": 99}')
    with pytest.raises(UserError, match="has schema 99, this version reads 1"):
        EvalJob.read(tmp_path / "job.json")


def test_a_job_reads_as_it_was_written(tmp_path):
    job = EvalJob(model="m", evaluations=(EvalTask(name="a", target="b.C", args={"x": [1]}, out="o"),), threads=3)
    job.write(tmp_path / "job.json")
    assert EvalJob.read(tmp_path / "job.json") == job


def test_as_a_process(job, tmp_path):
    job({"length": LENGTH})
    command = [sys.executable, "-m", "pretrain_exp.eval.worker"]
    path = f"{HERE}{os.pathsep}{HERE.parents[1]}"
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(tmp_path / "job.json")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "24 scores" in done.stderr
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 2


def test_the_fingerprint_of_a_task_holds_the_dtype(items):
    task = EvalTask(name="a", target=CHOICE[0], args={}, out="")
    renamed = dataclasses.replace(task, name="b", out="elsewhere", args={"batch_size": 1})
    assert fingerprint(task, items, "float32") == fingerprint(renamed, items, "float32")
    assert fingerprint(task, items, "float32") != fingerprint(task, items, "bfloat16")


@pytest.mark.parametrize("name", KINDS)
def test_the_configuration_names_every_field_with_its_default(name):
    text = (HERE.parents[1] / "conf" / "eval" / f"{name}.yaml").read_text()
    assert text.startswith(f"# @package eval.{name}\n")
    node = yaml.safe_load(text)
    target = node.pop("_target_")
    evaluation = instantiate(target, node | KINDS[name])
    parameters = inspect.signature(type(evaluation)).parameters
    assert node.keys() == parameters.keys()
    defaults = {key: p.default for key, p in parameters.items() if p.default is not p.empty}
    assert {key: node[key] for key in defaults} == defaults


@pytest.mark.parametrize(
    ("name", "args", "key"),
    [
        ("multiple_choice", {"batch_size": 0}, "eval.batch_size"),
        ("multiple_choice", {"num_fewshot": -1}, "eval.num_fewshot"),
        ("multiple_choice", {"limit": 0}, "eval.limit"),
        ("lm_eval", {}, "eval.tasks"),
        ("lm_eval", {"tasks": []}, "eval.tasks"),
        ("perplexity", {"sequence_length": 0}, "eval.sequence_length"),
        ("olmes", {"tasks": []}, "eval.tasks"),
        ("reasoning", {"generated": {"min_ops": 4, "max_ops": 2}}, "eval.generated.max_ops"),
    ],
)
def test_a_field_out_of_bounds_is_named(name, args, key):
    target = yaml.safe_load((HERE.parents[1] / "conf" / "eval" / f"{name}.yaml").read_text())["_target_"]
    with pytest.raises(Problems) as error:
        instantiate(target, args)
    assert [problem.key for problem in error.value.problems] == [key]
