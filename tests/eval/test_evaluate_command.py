"""`pretrain-exp evaluate`: what a checkpoint comes with reaches its evaluation, and what it lacks is said first."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from checkpoint_rig import score

from pretrain_exp.errors import UserError
from pretrain_exp.study.jobs import evaluation_specs
from pretrain_exp.study.targets import resolve_target

KEY = "eval.perplexity.files"


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
    found = resolve_target(folder).targets
    assert [(target.identity, target.items) for target in found] == [("abc", None), ("abc", "plans/p/items.parquet")]


@pytest.mark.parametrize(("state", "status"), [("submitted", 0), ("failed", 1)])
def test_what_is_submitted_has_not_failed(evaluate, study, documents, capsys, state, status):
    found, _, _ = evaluate(study(held_out=documents, held_out_digest="d"), state=state)
    said = capsys.readouterr().out
    assert found == status
    assert ("failed" in said, "submitted 1 jobs" in said) == (state == "failed", state == "submitted")


def test_a_state_is_converted_by_the_framework_that_trained_it(evaluate, study, documents):
    _, executor, _ = evaluate(study(framework="theirs.Framework"), files=[documents], state="submitted")
    assert executor.jobs[0].payload["framework"] == {"_target_": "theirs.Framework"}


def test_states_that_are_not_there_are_named(evaluate, study, documents, capsys):
    arms = {"treated": {"states": {"12": "gone", "24": "abc"}}}
    evaluate(study(arms=arms), files=[documents], state="submitted")
    said = " ".join(capsys.readouterr().out.split())
    assert "note: 1 state is left out" in said
    assert "treated seed 0 step 12" in said


def test_what_is_noted_beside_scores_is_printed(evaluate, study, documents, tmp_path, capsys):
    states = {"12": "one", "24": "other"}
    folder = study(states=tuple(states.values()), arms={"treated": {"states": states}})
    _, _, config = evaluate(folder, files=[documents], state="submitted")
    for key, notes in (("one", ["t: brier_score was left out"]), ("other", ["t: brier_score was left out", "cut"])):
        score(config, tmp_path / "store", key, {"a": 1.0}, notes)
    evaluate(folder, files=[documents])
    said = capsys.readouterr().out.splitlines()
    assert "note: perplexity: t: brier_score was left out" in said
    assert "note: perplexity: cut (treated seed 0 step 24)" in said


def test_a_study_without_weights_is_refused(evaluate, study, documents):
    with pytest.raises(UserError, match=r"has no state with weights \(1 named\)"):
        evaluate(study(states=()), files=[documents])


def test_texts_in_brackets_are_no_markup(evaluate, study, documents, capsys):
    """Labels of members hold lists, messages of failures anything."""
    evaluate(study(label="insertion=[canaries,batches]"), files=[documents], state="failed", message="[rank0] [/INST]")
    said = capsys.readouterr().out
    assert "insertion=[canaries,batches]" in "".join(said.replace("│", "").split())
    assert "[rank0] [/INST]" in " ".join(said.split())


def test_a_second_folder_of_the_same_content_has_its_rows(evaluate, hf_folder, documents, tmp_path, capsys):
    copy = shutil.copytree(hf_folder, tmp_path / "copy")
    _, executor, config = evaluate(str(hf_folder), str(copy), str(copy), files=[documents], state="submitted")
    assert len(executor.jobs) == 1
    score(config, tmp_path / "store", resolve_target(str(copy)).targets[0].identity, {"a": 1.0})
    evaluate(str(hf_folder), str(copy), str(copy), files=[documents])
    table = pq.read_table(tmp_path / "out" / "items.parquet")
    assert table["checkpoint"].to_pylist() == [str(hf_folder), str(copy)]


def test_a_state_of_two_studies_is_scored_once_and_stands_with_both(evaluate, study, documents, tmp_path):
    first = study()
    second = str(shutil.copytree(first, tmp_path / "again"))
    _, executor, config = evaluate(first, second, f"{first}/.", files=[documents], state="submitted")
    assert len(executor.jobs) == 1
    score(config, tmp_path / "store", "abc", {"a": 1.0})
    evaluate(first, second, f"{second}/.", files=[documents])
    assert pq.read_table(tmp_path / "out" / "items.parquet")["study"].to_pylist() == [first, second]


@pytest.mark.parametrize(
    ("name", "counts"),
    [("tokenizer.json", True), ("tokenizer_config.json", True), ("chat_template.jinja", True), ("README.md", False)],
)
def test_a_folder_is_known_by_its_tokenizer_too(hf_folder, name, counts):
    def identity():
        return resolve_target(str(hf_folder)).targets[0].identity

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
