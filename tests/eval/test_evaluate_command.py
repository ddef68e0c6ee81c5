"""`pretrain-exp evaluate`: what a checkpoint comes with reaches its evaluation, and what it lacks is said first."""

import json
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from pretrain_exp.config import EvaluationConfig
from pretrain_exp.errors import UserError
from pretrain_exp.eval.perplexity import Perplexity
from pretrain_exp.executor.base import Outcome
from pretrain_exp.framework.huggingface.framework import HuggingFace
from pretrain_exp.study.checkpoints import evaluate_checkpoints, resolve_target
from pretrain_exp.study.jobs import evaluation_specs

KEY = "eval.perplexity.files"


class Recorder:
    """An executor that starts nothing: every job ends in one state."""

    def __init__(self, state, meanwhile=None):
        self.state, self.waits, self.jobs, self.stores = state, state != "submitted", None, []
        self.local, self.meanwhile = self.waits, meanwhile

    def run(self, jobs, store, planned):
        planned()
        self.jobs = [*(self.jobs or []), *jobs]
        self.stores.append(store)
        if self.meanwhile:
            self.meanwhile()
        return {job.id: Outcome(job, self.state, "the reason") for job in jobs}


@pytest.fixture
def hf_folder(tmp_path, models):
    models["rotary"].model.save_pretrained(tmp_path / "model")
    models["rotary"].tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def documents(tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "Plants need light.", "domain": "d"}\n')
    return str(tmp_path / "texts.jsonl")


@pytest.fixture
def study(tmp_path):
    """A study of one state, as its folder and its store tell of it."""

    def make(**fields):
        store, folder = tmp_path / "store", tmp_path / "study"
        (store / "states" / "abc").mkdir(parents=True)
        (store / "states" / "abc" / "state.json").write_text("{}")
        folder.mkdir()
        (folder / "study.json").write_text(json.dumps({"store": str(store), "members": [str(folder)]}))
        arms = {"treated": {"states": {"24": "abc"}}}
        member = {"label": "", "seed": 0, "plan": None, "arms": arms} | fields
        (folder / "member.json").write_text(json.dumps(member))
        return str(folder)

    return make


@pytest.fixture
def evaluate(tmp_path):
    """Evaluates perplexity on targets; returns exit status, executor and configuration."""

    def run(*targets, state="done", files=None, store=None, out="out", meanwhile=None):
        fields = {} if files is None else {"files": files}
        config = SimpleNamespace(
            store=str(store or tmp_path / "store"),
            eval={"perplexity": {"_target_": "pretrain_exp.eval.perplexity.Perplexity", **fields}},
            evaluation=EvaluationConfig(device="cpu"),
            framework={"_target_": "pretrain_exp.framework.huggingface.framework.HuggingFace"},
            training=SimpleNamespace(retries=0),
        )
        executor = Recorder(state, meanwhile)
        evaluations = {"perplexity": Perplexity(**fields)}
        kinds = SimpleNamespace(framework=HuggingFace(), executor=executor, evaluations=evaluations)
        composed = SimpleNamespace(config=config, kinds=kinds)
        run.executor = executor
        return evaluate_checkpoints(composed, tmp_path / out, "the command", targets), executor, config

    return run


def test_the_documents_that_a_study_held_out_reach_its_evaluation(evaluate, study, documents):
    _, executor, config = evaluate(study(held_out=documents, held_out_digest="d1"), state="submitted")
    (job,) = executor.jobs
    assert job.payload["held_out"] == documents
    (spec,) = evaluation_specs(config, None, "d1")
    assert job.makes[0].parent.name == spec.fingerprint  # that of the study itself, so its result is taken
    assert spec.fingerprint != evaluation_specs(config, None)[0].fingerprint


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "comes with no held-out documents"),  # a study of a version that did not write them down
        ({"held_out": None, "held_out_digest": ""}, "comes with no held-out documents"),
        ({"held_out": "/nowhere/held_out.jsonl", "held_out_digest": "d"}, "are gone"),
    ],
)
def test_a_study_without_held_out_documents_needs_files(evaluate, study, documents, fields, message):
    folder = study(**fields)
    with pytest.raises(UserError, match=message) as error:
        evaluate(folder)
    assert error.value.key == KEY
    assert evaluate.executor.jobs is None
    evaluate(folder, files=[documents], state="submitted")
    assert len(evaluate.executor.jobs) == 1


def test_a_folder_needs_files_and_nothing_runs_before_that_is_said(evaluate, study, documents, hf_folder):
    whole = study(held_out=documents, held_out_digest="d")
    with pytest.raises(UserError, match="comes with no held-out documents") as error:
        evaluate(whole, str(hf_folder))
    assert error.value.key == KEY
    assert evaluate.executor.jobs is None


def test_states_are_scored_in_the_store_of_their_study(evaluate, study, documents, hf_folder, tmp_path):
    whole = study(held_out=documents, held_out_digest="d")
    _, executor, _ = evaluate(whole, str(hf_folder), files=[documents], store=tmp_path / "mine")
    theirs, mine = tmp_path / "store", tmp_path / "mine"
    assert executor.stores == [theirs, mine]
    for job, store in zip(executor.jobs, executor.stores, strict=True):
        assert job.folder.is_relative_to(store)
        assert job.makes[0].is_relative_to(store)
    assert executor.jobs[0].payload["state"] == str(theirs / "states" / "abc")
    assert executor.jobs[1].payload["model"] == str(hf_folder)


def test_what_another_evaluates_at_the_moment_is_not_evaluated_again(evaluate, study, documents, hf_folder):
    """The second call finds the jobs of the first announced, and adopts them; when the first has ended it does not."""
    targets = [study(held_out=documents, held_out_digest="d"), str(hf_folder)]
    seen = []

    def call(out, meanwhile=None):
        _, executor, _ = evaluate(*targets, files=[documents], out=out, meanwhile=meanwhile)
        seen.append(sorted((job.id, job.adopted) for job in executor.jobs))

    call("first", lambda: call("second"))
    call("third")
    inner, outer, after = seen
    assert outer == after
    assert inner == [(name, True) for name, _ in outer]
    assert not any(adopted for _, adopted in outer)


def test_a_state_of_two_members_is_scored_on_the_items_of_both(study, tmp_path):
    folder = study()
    other = tmp_path / "other"
    other.mkdir()
    member = json.loads((tmp_path / "study" / "member.json").read_text())
    (other / "member.json").write_text(json.dumps({**member, "label": "x=2", "plan": "plans/p"}))
    record = json.loads((tmp_path / "study" / "study.json").read_text())
    (tmp_path / "study" / "study.json").write_text(json.dumps({**record, "members": [folder, str(other)]}))
    found = resolve_target(folder)
    assert [(target.identity, target.items) for target in found] == [("abc", None), ("abc", "plans/p/items.parquet")]


@pytest.mark.parametrize(("state", "status"), [("submitted", 0), ("failed", 1)])
def test_what_is_submitted_has_not_failed(evaluate, study, documents, capsys, state, status):
    found, _, _ = evaluate(study(held_out=documents, held_out_digest="d"), state=state)
    said = capsys.readouterr().out
    assert found == status
    assert ("failed" in said, "submitted 1 jobs" in said) == (state == "failed", state == "submitted")


@pytest.mark.parametrize(
    ("name", "counts"),
    [("tokenizer.json", True), ("tokenizer_config.json", True), ("chat_template.jinja", True), ("README.md", False)],
)
def test_a_folder_is_known_by_its_tokenizer_too(hf_folder, name, counts):
    def identity():
        return resolve_target(str(hf_folder))[0].identity

    before = identity()
    assert before == identity()
    with open(hf_folder / name, "a") as file:
        file.write("\n")
    assert (identity() != before) == counts


def test_a_folder_is_scored_and_what_it_has_not_is_noted(command, hf_folder, documents, tmp_path):
    overrides = [f"eval.perplexity.files=[{documents}]", "hydra.run.dir=scores", "eval=[multiple_choice,perplexity]"]
    status, said = command("evaluate", str(hf_folder), *overrides)
    assert status == 0, said
    table = pq.read_table(tmp_path / "scores" / "items.parquet")
    assert set(table["metric"].to_pylist()) == {"nll", "tokens", "bytes", "bits_per_byte"}
    assert "nothing to score" in " ".join(said.replace("│", " ").split())
