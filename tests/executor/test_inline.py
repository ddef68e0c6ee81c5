"""The inline executor: order, retries, failure. Jobs are small real processes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from inline_jobs import attempts, job, make

from pretrain_exp.executor.base import Job
from pretrain_exp.executor.inline import Inline


def test_needs_come_first_and_independent_jobs_run_side_by_side(tmp_path):
    here = "(folder / '{0}.here').exists()"
    meet = f"[time.sleep(0.01) for _ in range(6000) if not {here}]; {here} or sys.exit(1)"
    a = make("a", "(folder / 'a.here').write_text(''); " + meet.format("b"))
    b = make("b", "(folder / 'b.here').write_text(''); " + meet.format("a"))
    c = make("c", "{'a.made', 'b.made'} <= set(os.listdir(folder)) or sys.exit(1)")
    jobs = [job(tmp_path, "c", c, needs=["train-a", "train-b"]), job(tmp_path, "a", a), job(tmp_path, "b", b)]
    outcomes = Inline(parallel=2).run(jobs, tmp_path)
    assert {o.state for o in outcomes.values()} == {"done"}
    assert attempts(tmp_path, "c") == 1


@pytest.mark.parametrize("is_there", [True, False])
def test_a_job_of_another_study_runs_where_that_was_planned(tmp_path, monkeypatch, is_there):
    planned, here = tmp_path / "planned", tmp_path / "here"
    for folder in (planned, here):
        folder.mkdir()
    (planned / "text").write_text("")
    monkeypatch.chdir(planned)
    record = job(tmp_path, "a", make("a", "open('text')"), retries=0).to_json()
    monkeypatch.chdir(here)
    if not is_there:
        planned.rename(tmp_path / "gone")
    outcome = Inline(parallel=1).run([Job.from_json(record)], tmp_path)["train-a"]
    assert outcome.state == ("done" if is_there else "failed")
    assert is_there or str(planned) in outcome.message
    del record["directory"]  # an older record: where it is run
    assert Job.from_json(record).directory == here


def test_what_is_made_already_is_not_run_again(tmp_path):
    (tmp_path / "a.made").write_text("")
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", "raise SystemExit(1)")], tmp_path)
    assert outcomes["train-a"].state == "done"
    assert not (tmp_path / "a" / "log.txt").exists()


def test_a_job_is_no_rank_of_the_shell_that_starts_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    code = make("a", "{'RANK', 'WORLD_SIZE'} & os.environ.keys() and sys.exit(2)")
    assert Inline(parallel=1).run([job(tmp_path, "a", code, retries=0)], tmp_path)["train-a"].state == "done"


LONGER_LOG = (
    "log = folder / 'a' / 'metrics.jsonl'; n = len(log.read_text().splitlines()) if log.exists() else 0; "
    "log.open('a').write(json.dumps({'step': %s}) + chr(10)); "
)


def test_a_failure_that_passes_is_retried(tmp_path):
    # each attempt gets a step further, as a job does that resumes from its last checkpoint
    further = LONGER_LOG % "n" + "n < 2 and sys.exit(9)"
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", make("a", further))], tmp_path)
    assert outcomes["train-a"].state == "done"
    assert attempts(tmp_path, "a") == 3


@pytest.mark.parametrize(("messages", "expected"), [(["at 0x5", "at 0x7"], 2), (["one", "two", "two"], 3)])
def test_the_same_failure_at_the_same_step_is_given_up_however_long_the_log_grew(tmp_path, messages, expected):
    error = "(folder / 'a' / 'error.json').write_text(json.dumps({'kind': 'crash', 'step': 50, 'message': m[n]})); "
    code = LONGER_LOG % "49" + f"m = {messages}; {error} sys.exit(1)"
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", make("a", code), retries=10)], tmp_path)
    assert outcomes["train-a"].state == "failed"
    assert attempts(tmp_path, "a") == expected


def test_a_job_that_cannot_be_started_fails_alone(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/log.txt").mkdir()  # where its log should be
    jobs = [job(tmp_path, "a", make("a")), job(tmp_path, "b", make("b"))]
    outcomes = Inline(parallel=1).run(jobs, tmp_path)
    assert {name: one.state for name, one in outcomes.items()} == {"train-a": "failed", "train-b": "done"}
    assert "log.txt" in outcomes["train-a"].message


def test_the_same_failure_at_the_same_step_is_not_retried_for_ever(tmp_path):
    jobs = [
        job(tmp_path, "a", "print('no such luck'); raise SystemExit(3)", retries=10),
        job(tmp_path, "b", make("b"), ["train-a"]),
    ]
    outcomes = Inline(parallel=1).run(jobs, tmp_path)
    assert outcomes["train-a"].state == "failed"
    assert "exit status 3" in outcomes["train-a"].message
    assert "no such luck" in outcomes["train-a"].message
    assert attempts(tmp_path, "a") == 2
    assert outcomes["train-b"].state == "skipped"
    assert "train-a" in outcomes["train-b"].message


def test_a_failure_of_the_user_is_not_retried_and_its_message_is_the_workers(tmp_path):
    said = {"kind": "user", "message": "the learning rate is a banana", "step": 0}
    path = "pathlib.Path(os.environ['FOLDER']) / 'a' / 'error.json'"
    code = f"import os, pathlib; ({path}).write_text({json.dumps(said)!r}); raise SystemExit(2)"
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", code)], tmp_path)
    assert outcomes["train-a"].message == "the learning rate is a banana"
    assert attempts(tmp_path, "a") == 1


def test_a_killed_job_is_started_again(tmp_path):
    once = "mark = folder / 'once'; mark.exists() or (mark.write_text(''), os.kill(os.getpid(), 9))"
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", make("a", once))], tmp_path)
    assert outcomes["train-a"].state == "done"
    assert attempts(tmp_path, "a") == 2


def test_a_preempted_job_goes_on_without_a_limit(tmp_path):
    four = "n = len(list(folder.glob('try*'))); (folder / f'try{n}').write_text(''); n < 4 and sys.exit(75)"
    outcomes = Inline(parallel=1).run([job(tmp_path, "a", make("a", four), retries=0)], tmp_path)
    assert outcomes["train-a"].state == "done"
    assert attempts(tmp_path, "a") == 5


def test_a_command_that_is_not_there_fails_and_is_named(tmp_path):
    lacking = replace(job(tmp_path, "a", ""), command=("/no/such/python", "-c", "pass"))
    outcomes = Inline(parallel=1).run([lacking], tmp_path)
    assert "/no/such/python: No such file" in outcomes["train-a"].message


def test_what_needs_a_failed_job_by_way_of_others_is_skipped(tmp_path):
    jobs = [job(tmp_path, name, make(name), [f"train-{need}"] if need else []) for name, need in ("dc", "cb", "ba")]
    jobs.append(job(tmp_path, "a", "raise SystemExit(1)", retries=0))
    outcomes = Inline(parallel=2).run(jobs, tmp_path)
    assert [outcomes[f"train-{name}"].state for name in "abcd"] == ["failed", "skipped", "skipped", "skipped"]


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(1)"])
def test_what_reads_a_file_starts_when_it_is_there_while_its_maker_goes_on(tmp_path, end):
    """An evaluation of a state that training has left behind, whether training ends well or not."""
    scored = "(folder / 'eval.made').exists()"
    waits = f"[time.sleep(0.01) for _ in range(6000) if not {scored}]; {scored} or sys.exit(1)"
    training = f"(folder / 'state').write_text(''); {waits}; (folder / 'waited').touch(); {end}"
    trains = job(tmp_path, "train", make("train", training), retries=0)
    scores = replace(job(tmp_path, "eval", make("eval"), ["train-train"]), reads=(tmp_path / "state",))
    outcomes = Inline(parallel=2).run([trains, scores], tmp_path)
    assert outcomes["train-eval"].state == "done"
    assert (tmp_path / "waited").exists()
    assert (tmp_path / "train.made").exists() == (end == "pass")
    assert Job.from_json(scores.to_json()).reads == scores.reads


def test_what_reads_a_file_that_a_failed_job_did_not_make_is_skipped(tmp_path):
    trains = job(tmp_path, "train", "raise SystemExit(1)", retries=0)
    scores = replace(job(tmp_path, "eval", make("eval"), ["train-train"]), reads=(tmp_path / "state",))
    outcomes = Inline(parallel=2).run([trains, scores], tmp_path)
    assert [outcomes[name].state for name in ("train-train", "train-eval")] == ["failed", "skipped"]
