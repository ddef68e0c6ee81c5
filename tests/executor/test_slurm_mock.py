"""The Slurm executor against commands that only pretend: what sbatch is asked, and what happens when Slurm says no."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pretrain_exp.errors import Problems, UserError
from pretrain_exp.executor import slurm, slurm_agent, slurm_job, slurm_site
from pretrain_exp.executor.base import Job
from pretrain_exp.executor.slurm import Slurm, in_order
from pretrain_exp.executor.slurm_files import (
    Attempts,
    Submission,
    read_attempts,
    read_submission,
    write_spec,
    write_submission,
)
from pretrain_exp.executor.slurm_plan import describe, longest_chain
from pretrain_exp.executor.slurm_queue import Queued, alive, look
from pretrain_exp.executor.slurm_site import SlurmError, hidden_variables, minutes, partitions
from pretrain_exp.executor.slurm_status import cancel_jobs, standings
from pretrain_exp.framework.ranked import START
from pretrain_exp.study.registry import write_study
from pretrain_exp.study.status import print_status
from pretrain_exp.verbs import read_verb

COMMANDS = {
    "sbatch": """
if [ "$1" = --test-only ]; then echo "$@" >>tests; [ ! -f refuse ] || { cat refuse >&2; exit 1; }; exit 0; fi
n=$(($(cat count) + 1)); echo $n >count
if [ -f fail_at ] && [ $n = $(cat fail_at) ]; then echo "sbatch: error: Node count invalid" >&2; exit 1; fi
cp "$1" script.$n; env >environment.$n; echo "Submitted batch job $n" """,
    "squeue": '[ ! -f busy ] || { rm busy; echo "slurm_load_jobs error: Socket timed out" >&2; exit 1; }\n'
    '[ ! -f silent ] || { echo "squeue: error: Unable to contact slurm controller" >&2; exit 1; }\n'
    "for word; do case $word in --jobs=*) ids=,${word#--jobs=},;; esac; done\n"
    """awk -F'|' -v ids="$ids" '!ids || index(ids, "," $1 ",")' queue""",
    "sinfo": "printf 'gpu|2:00:00\\ncpu|infinite\\n'",
    "scancel": 'echo "$@" >>cancelled',
    "scontrol": 'echo "$@" >>control; [ ! -f refuse ] || { cat refuse >&2; exit 1; }',
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
}


@pytest.fixture
def mock(tmp_path, monkeypatch) -> Path:
    """A folder whose commands stand first on PATH and note there what they were asked."""
    folder = tmp_path / "mock"
    folder.mkdir()
    for name, script in COMMANDS.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n[ {name} = srun ] || cd {folder}\n{script.strip()}\n")
        path.chmod(0o755)
    (folder / "count").write_text("0")
    (folder / "queue").write_text("")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm_site, "RETRY_SECONDS", (0.0,))
    for name in hidden_variables(os.environ):
        monkeypatch.delenv(name)
    return folder


def job(store: Path, key: str, *needs: Job, kind: str = "train", **fields) -> Job:
    folder = store / "jobs" / f"{kind}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    made = {"command": ("true",), "environment": {}, "makes": (store / f"{key}.json",), "total": 10, **fields}
    return Job(key=key, kind=kind, title=key, folder=folder, needs=frozenset(need.id for need in needs), **made)


def options(mock: Path, number: int) -> dict[str, str]:
    """What the script of a submission asks of sbatch."""
    lines = (mock / f"script.{number}").read_text().splitlines()
    flags = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")]
    return {name: value for name, _, value in (flag.partition("=") for flag in flags)}


def test_each_job_asks_for_its_own_resources_and_depends_on_what_it_needs(mock, tmp_path):
    train = job(tmp_path, "t")
    evaluation = job(tmp_path, "e", train, kind="evaluate")
    report = job(tmp_path, "r", train, evaluation, kind="report")
    executor = Slurm(
        nodes=2,
        gpus_per_node=8,
        time="1:30:00",
        partition="gpu",
        cpu_partition="cpu",
        account="lab",
        extra={"mail_type": "FAIL", "exclusive": True},
        evaluate={"time": 20},
        report={"mem": "2G"},
        setup=("module load cuda",),
    )
    executor.run([report, evaluation, replace(train, rank_command=("python", "rank.py"))], tmp_path)
    asked = [options(mock, number) for number in (1, 2, 3)]
    assert [one["job-name"] for one in asked] == ["train-t", "evaluate-e", "report-r"]
    assert [one.get("dependency") for one in asked] == [None, "afterok:1", "afterany:1:2"]
    assert [one["nodes"] for one in asked] == ["2", "1", "1"]
    assert [one.get("gpus-per-node") for one in asked] == ["8", "1", None]
    assert [one["time"] for one in asked] == ["90", "20", "90"]
    assert [one["partition"] for one in asked] == ["gpu", "gpu", "cpu"]
    assert [one.get("mem") for one in asked] == [None, None, "2G"]
    assert {one["signal"] for one in asked} == {"USR2@120"}
    assert {one["account"] for one in asked} == {"lab"}
    assert asked[0]["mail-type"] == "FAIL"
    assert all("requeue" in one and one["kill-on-invalid-dep"] == "yes" for one in asked)
    # sites without keys refuse one
    assert not any("wckey" in one for one in asked)
    script = (mock / "script.1").read_text()
    assert "\nmodule load cuda\n" in script
    assert f"exec {sys.executable} -u -m submitit.core._submit" in script


def test_no_variable_of_a_job_that_submits_reaches_sbatch_or_the_other_way_round(mock, tmp_path, monkeypatch):
    given = {
        "SLURM_JOB_ID": "7",
        "SLURM_CPU_BIND": "cores",
        "SLURM_CONF": "/etc/x",
        "RANK": "3",
        "SBATCH_ACCOUNT": "lab",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    Slurm(gpus_per_node=0).run([job(tmp_path, "t")], tmp_path)
    seen = dict(line.partition("=")[::2] for line in (mock / "environment.1").read_text().splitlines())
    assert given.keys() & seen.keys() == {"SLURM_CONF", "SBATCH_ACCOUNT"}
    assert {name: os.environ[name] for name in given} == given


@pytest.mark.parametrize(
    ("environment", "hidden"),
    [
        ({"SLURM_CONF": "x", "SLURM_CLUSTERS": "x", "SLURM_JWT": "x", "PATH": "x"}, []),
        ({"SLURM_MEM_PER_CPU": "1", "SRUN_CPUS_PER_TASK": "1", "SUBMITIT_EXECUTOR": "slurm"}, None),
        ({"SBATCH_PARTITION": "x", "SBATCH_MEM_BIND": "x"}, ["SBATCH_MEM_BIND"]),
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, []),
        ({"CUDA_VISIBLE_DEVICES": "2,3", "SLURM_JOB_ID": "1"}, None),
        ({"MASTER_ADDR": "x", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}, None),
    ],
)
def test_hidden_variables(environment, hidden):
    assert hidden_variables(environment) == (sorted(environment) if hidden is None else hidden)


def test_a_submission_that_fails_midway_takes_back_those_before(mock, tmp_path):
    (mock / "fail_at").write_text("3")
    first = job(tmp_path, "a")
    jobs = [first, job(tmp_path, "b", first), job(tmp_path, "c", first)]
    with pytest.raises(SlurmError, match="sbatch refused c: sbatch: error: Node count invalid"):
        Slurm(gpus_per_node=0).run(jobs, tmp_path)
    assert (mock / "cancelled").read_text() == "1 2\n"
    assert [read_submission(one.folder) for one in jobs] == [None] * 3


def test_what_another_job_depends_on_by_now_is_not_taken_back_nor_what_that_needs(mock, tmp_path):
    """Between its submission and the failure of a later one, another study found job 2 alive, and needs it."""
    (mock / "fail_at").write_text("4")
    first = job(tmp_path, "a")
    second = job(tmp_path, "b", first)
    (mock / "queue").write_text("1|\n2|afterok:1(unfulfilled)\n3|afterok:1(unfulfilled)\n9|afterok:12:2(unfulfilled)\n")
    jobs = [first, second, job(tmp_path, "c", first), job(tmp_path, "d", first)]
    with pytest.raises(SlurmError, match="sbatch refused d"):
        Slurm(gpus_per_node=0).run(jobs, tmp_path)
    assert (mock / "cancelled").read_text() == "3\n"
    kept = [found.id if (found := read_submission(one.folder)) else None for one in jobs]
    assert kept == ["1", "2", None, None]


@pytest.mark.parametrize("command", ["sbatch", "sinfo"])
@pytest.mark.parametrize(("way", "words"), [("hangs", "gave no answer within 0 s"), ("goes", "is not on PATH")])
def test_a_command_that_hangs_or_goes_away_is_an_error_with_a_way_out(mock, tmp_path, monkeypatch, command, way, words):
    if way == "hangs":
        (mock / command).write_text("#!/bin/sh\nexec sleep 5\n")
        monkeypatch.setattr(slurm_site, "ANSWER_SECONDS", 0.1)
    else:
        (mock / command).unlink()
        monkeypatch.setattr(slurm, "missing_commands", list)  # there a moment ago
        monkeypatch.setenv("PATH", f"{mock}:{tmp_path}")
    with pytest.raises(SlurmError, match=f"{command} {words}") as caught:
        Slurm(gpus_per_node=0, partition="gpu").check([job(tmp_path, "a")])
    assert caught.value.fix


@pytest.mark.parametrize(
    ("fields", "evaluate", "report"),
    [
        (
            {"gpus_per_node": 8, "nodes": 4, "cpus_per_task": 96, "mem": "1000G", "time": "1-00:00:00"},
            {"nodes": 1, "gpus-per-node": 1, "cpus-per-task": 12, "mem": "128000M", "time": 120},
            {"nodes": 1, "cpus-per-task": 12, "mem": "128000M", "time": 120},
        ),
        ({"gpus_per_node": 2, "time": 30, "mem": 0}, {"gpus-per-node": 1, "time": 30}, {"time": 30}),
        (
            {"gpus_per_node": 0, "cpus_per_task": 6, "mem": 500},
            {"cpus-per-task": 6, "mem": "500M"},
            {"cpus-per-task": 6, "mem": "500M"},
        ),
        (
            {"gpus_per_node": 4, "mem": "400G", "evaluate": {"gpus_per_node": 2, "mem": "9G", "time": 600}},
            {"gpus-per-node": 2, "mem": "9G", "time": 600},
            {"mem": "102400M"},
        ),
        (
            {
                "gpus_per_node": 4,
                "extra": {"exclusive": True, "gres": "gpu:a100:4", "mail_type": "FAIL", "exclude": "n7"},
            },
            {"gres": "gpu:a100:1", "mail-type": "FAIL", "exclude": "n7"},
            {"mail-type": "FAIL"},
        ),
        ({"gpus_per_node": 4, "extra": {"gres": "gpu:4,shard:2"}}, {"gpus-per-node": 1}, {}),
        (
            {"constraint": "h100", "account": "lab", "qos": "q"},
            {"constraint": "h100", "account": "lab", "qos": "q"},
            {},
        ),
    ],
)
def test_what_evaluations_and_reports_get_of_what_training_gets(fields, evaluate, report):
    executor = Slurm(**fields)
    told = {"nodes", "gpus-per-node", "cpus-per-task", "mem", "time", "gres", "exclusive", "mail-type", "exclude"}
    for kind, expected in (("evaluate", evaluate), ("report", report)):
        options = executor.resources(kind).options()
        fixed = {"nodes": 1, "time": 60}
        if kind == "evaluate" and fields.get("gpus_per_node", 1) and "gres" not in expected:
            fixed["gpus-per-node"] = 1
        wanted = fixed | expected
        assert {name: options[name] for name in options.keys() & told | expected.keys()} == wanted
    assert executor.resources("report").options().get("constraint") is None


def test_a_job_that_lives_is_not_submitted_again_but_depended_upon(mock, tmp_path):
    first = job(tmp_path, "a", payload={"steps": 1})
    second = job(tmp_path, "b", first, payload={"steps": 2})
    write_submission(first.folder, Submission("41", 0.0, [], {}))
    (mock / "queue").write_text("41|PENDING|Priority|\n")
    outcomes = Slurm(gpus_per_node=0).run([first, second], tmp_path)
    # nor is what it reads written under its hands
    assert not (first.folder / "job.json").exists()
    assert json.loads((second.folder / "job.json").read_text()) == {"steps": 2}
    assert (mock / "count").read_text().strip() == "1"
    assert options(mock, 1)["dependency"] == "afterok:41"
    assert {key: outcome.state for key, outcome in outcomes.items()} == {"train-a": "submitted", "train-b": "submitted"}


def test_what_is_done_is_not_submitted_and_what_ended_is_submitted_anew(mock, tmp_path):
    done, ended = job(tmp_path, "done"), job(tmp_path, "ended")
    done.makes[0].touch()
    write_submission(ended.folder, Submission("41", 0.0, [], {}))
    (ended.folder / "slurm").mkdir()
    (ended.folder / "slurm" / "cancelled").touch()
    (mock / "queue").write_text("41|FAILED|NonZeroExitCode|n1\n")
    outcomes = Slurm(gpus_per_node=0).run([done, ended, job(tmp_path, "next", done, ended)], tmp_path)
    assert outcomes["train-done"].state == "done"
    assert read_submission(ended.folder).id == "1"
    assert not (ended.folder / "slurm" / "cancelled").exists()
    assert options(mock, 2)["dependency"] == "afterok:1"


@pytest.mark.parametrize(("queue", "number"), [("2|PENDING|Priority|\n", "2"), ("2|FAILED|None|\n", "3")])
def test_what_a_call_submitted_that_was_killed_before_it_could_note_it(mock, tmp_path, monkeypatch, queue, number):
    first, second = job(tmp_path, "a"), job(tmp_path, "b")
    executor = Slurm(gpus_per_node=0)
    executor.run([first], tmp_path)
    (mock / "queue").write_text("1|FAILED|None|\n")
    with monkeypatch.context() as patched:
        patched.setattr(slurm, "write_submission", lambda *_: os._exit(0))
        if not (pid := os.fork()):
            executor.run([first], tmp_path)
    os.waitpid(pid, 0)
    assert (read_submission(first.folder).id, (mock / "count").read_text()) == ("1", "2\n")
    (mock / "queue").write_text("1|FAILED|None|\n" + queue)
    executor.run([first, replace(second, needs=frozenset({first.id}))], tmp_path)
    assert read_submission(first.folder).id == number
    assert options(mock, int(number) + 1)["dependency"] == f"afterok:{number}"


def test_who_waits_goes_on_when_squeue_was_away(mock, tmp_path, monkeypatch, capsys):
    """It answers when it was asked four times: jobs in the queue have not ended by that."""
    one = job(tmp_path, "a")
    away = "echo x >>asked; [ $(wc -l <asked) -ge 4 ] || { echo 'Unable to contact slurm controller' >&2; exit 1; }"
    (mock / "squeue").write_text(f"#!/bin/sh\ncd {mock}\n{away}\ntouch {one.makes[0]}; echo '1|COMPLETED|None|n1'\n")
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.0)
    assert Slurm(gpus_per_node=0, wait=True).run([one], tmp_path)[one.id].state == "done"
    assert capsys.readouterr().err.count("Unable to contact slurm controller") == 1


def test_where_squeue_does_not_answer_nothing_is_taken_for_ended(mock, tmp_path):
    one = job(tmp_path, "a")
    write_submission(one.folder, Submission("41", 0.0, [], {}))
    (mock / "silent").touch()
    with pytest.raises(SlurmError, match="squeue failed: Unable to contact slurm controller"):
        Slurm(gpus_per_node=0).run([one], tmp_path)
    assert (mock / "count").read_text() == "0"
    assert standings([one])[one.id][0] == "unknown"


@pytest.mark.parametrize("missing", ["sbatch", "squeue", "srun"])
def test_a_machine_without_slurm_is_told_so_before_anything(mock, tmp_path, monkeypatch, missing):
    (mock / missing).unlink()
    monkeypatch.setenv("PATH", f"{mock}:{tmp_path}")
    with pytest.raises(Problems, match=f"not on PATH: {missing}"):
        Slurm(gpus_per_node=0).run([job(tmp_path, "a")], tmp_path)
    assert (mock / "count").read_text() == "0"


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"nodes": 0}, "executor.nodes"),
        ({"gpus_per_node": -1}, "executor.gpus_per_node"),
        ({"time": "soon"}, "executor.time"),
        ({"time": 1, "signal_delay_s": 60}, "executor.signal_delay_s"),
        ({"partition": "gpu,nosuch"}, "executor.partition"),
        ({"partition": "gpu", "time": 121}, "executor.time"),
        ({"extra": {"dependency": "afterok:1"}}, "executor.extra.dependency"),
        ({"extra": {"no_requeue": True}}, "executor.extra.no_requeue"),
        ({"extra": {"time": 3}}, "executor.extra.time"),
        ({"extra": {"exclusive": False}}, "executor.extra.exclusive"),
        ({"nodes": 2}, "executor.nodes"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_submitted(mock, tmp_path, fields, key):
    with pytest.raises(Problems) as caught:
        Slurm(**{"gpus_per_node": 0, **fields}).run([job(tmp_path, "a")], tmp_path)
    assert [problem.key for problem in caught.value.problems] == [key]
    assert (mock / "count").read_text() == "0"


def test_the_problems_of_all_kinds_of_jobs_are_told_at_once_in_sbatchs_own_words(mock, tmp_path):
    (mock / "refuse").write_text("sbatch: error: invalid account\nallocation failure: Invalid account\n")
    train = job(tmp_path, "a")
    with pytest.raises(Problems) as caught:
        Slurm().run([train, job(tmp_path, "e", train, kind="evaluate")], tmp_path)
    assert [problem.key for problem in caught.value.problems] == ["executor", "executor.evaluate"]
    assert "invalid account; allocation failure: Invalid account" in caught.value.problems[0].problem
    with pytest.raises(UserError, match=r"evaluate\.timee: unknown key"):
        Slurm(evaluate={"timee": 3})
    with pytest.raises(UserError, match=r"report\.gpus_per_node: .*valid integer"):
        Slurm(report={"gpus_per_node": "some"})


def test_a_site_that_asks_for_gpus_in_its_own_way(mock, tmp_path):
    executor = Slurm(gpus_per_node=4, extra={"gres": "gpu:a100:4"})
    executor.run([job(tmp_path, "a")], tmp_path)
    assert options(mock, 1)["gres"] == "gpu:a100:4"
    assert "gpus-per-node" not in options(mock, 1)
    assert executor.resources("train").ranks == 4
    assert executor.resources("report").options().keys() & {"gres", "gpus-per-node"} == set()


@pytest.mark.parametrize(
    ("time", "expected"),
    [(90, 90), ("90", 90), ("1:30", 2), ("1:30:00", 90), ("1-2", 1560), ("1-2:30", 1590), ("1-00:00:01", 1441)],
)
def test_minutes(time, expected):
    assert minutes(time) == expected


def test_partitions_and_their_limits(mock):
    assert {name: partition.limit for name, partition in partitions().items()} == {"gpu": 120, "cpu": None}


def test_a_busy_controller_is_asked_again(mock):
    (mock / "queue").write_text("7|RUNNING|None|node1\n")
    (mock / "busy").touch()
    assert alive(["7"]) == {"7"}
    assert not (mock / "busy").exists()


def test_the_queue(mock):
    (mock / "queue").write_text("1|RUNNING|None|n[1-2]\n2|COMPLETED|None|n1\n3|SOMETHING_NEW|None|\n")
    assert look(["1"])["1"] == Queued("RUNNING", "None", "n[1-2]")
    # a state that a later Slurm invents is not taken for an end
    assert alive(["1", "2", "3", "4"]) == {"1", "3"}
    assert look([]) == {}


def test_cancel_ends_what_waits_and_asks_what_runs_and_insists_the_second_time(mock, tmp_path):
    jobs = [job(tmp_path, key) for key in ("runs", "waits", "ended")]
    for number, one in enumerate(jobs, 1):
        (one.folder / "slurm").mkdir()
        write_submission(one.folder, Submission(str(number), 0.0, [], {}))
    (mock / "queue").write_text("1|RUNNING|None|n1\n2|PENDING|Dependency|\n3|FAILED|None|n1\n")
    assert len(cancel_jobs(jobs)) == 2
    assert (mock / "cancelled").read_text() == "--signal=USR2 1\n2\n"
    cancel_jobs(jobs[:1])
    assert (mock / "cancelled").read_text().endswith("\n1\n")


def test_status_logs_and_cancel_of_a_study_in_the_queue(mock, tmp_path, capsys):
    train = job(tmp_path, "t")
    jobs = [train, job(tmp_path, "e", train, kind="evaluate")]
    Slurm(gpus_per_node=0).run(jobs, tmp_path)
    (mock / "queue").write_text("1|RUNNING|None|n[1-2]\n2|PENDING|Dependency|\n")
    record = {"title": "x", "store": str(tmp_path), "status": "running", "reused": [], "members": []}
    write_study(tmp_path / "study", {**record, "jobs": [one.record() for one in jobs], "controller": None})
    console = Console(width=200, record=True)
    assert print_status(tmp_path / "study", console)
    shown = console.export_text()
    assert "Slurm job 1 on n[1-2]" in shown
    assert "Slurm job 2: Dependency" in shown
    (train.folder / "slurm" / "1_0_log.out").write_text("module: command not found\n")
    capsys.readouterr()
    assert read_verb("logs", [str(tmp_path / "study"), "train-t"]) == 0
    assert capsys.readouterr().out == "module: command not found\n"
    assert read_verb("cancel", [str(tmp_path / "study")]) == 0
    assert (mock / "cancelled").read_text() == "--signal=USR2 1\n2\n"
    (mock / "queue").write_text("1|FAILED|None|n1\n")
    assert not print_status(tmp_path / "study", console)
    assert console.export_text().count("cancelled") >= 2


def test_what_a_study_would_ask_for(tmp_path):
    first = job(tmp_path, "a", total=3600)
    second = replace(job(tmp_path, "b", first), first=3600, total=7200)
    jobs = [first, second, replace(job(tmp_path, "c", first), first=3600, total=10800)]
    jobs.append(job(tmp_path, "e", second, kind="evaluate"))
    seconds = {job.id: 2.0 * (job.total - job.first) for job in jobs[:3]} | {jobs[3].id: 600.0}
    rows = describe(jobs, Slurm(nodes=2, gpus_per_node=8).resources, seconds)
    assert [(row.kind, row.jobs, row.gpus, row.hours) for row in rows] == [
        ("train", 3, 16, 8.0),
        ("evaluate", 1, 1, pytest.approx(1 / 6)),
    ]
    assert rows[0].gpu_hours == 128.0
    assert "--gpus-per-node=8" in rows[0].sbatch
    assert longest_chain(jobs, seconds) == 7200 + 14400
    without = {**seconds, first.id: None}
    assert describe(jobs, Slurm().resources, without)[0].hours is None
    assert longest_chain(jobs, without) is None
    assert longest_chain(jobs, {**seconds, jobs[3].id: None}) == 7200 + 14400


def test_jobs_are_put_in_the_order_of_their_needs(tmp_path):
    first = job(tmp_path, "a")
    second = job(tmp_path, "b", first)
    assert in_order([second, first]) == [first, second]
    with pytest.raises(UserError, match="2 jobs need each other"):
        in_order([second, replace(first, needs=frozenset({second.id}))])


@pytest.fixture
def batch(mock, tmp_path, monkeypatch):
    """batch(shell command, fields of Job) --> the batch side of a job; srun runs its command here."""
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGCONT)}

    def make(command: str, **fields) -> slurm_job.Batch:
        one = job(tmp_path, "a", command=("sh", "-c", command), **fields)
        write_spec(one, tmp_path, Slurm(gpus_per_node=0, time=10).resources("train"))
        return slurm_job.Batch(one.folder)

    yield make
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_stopped_job_requeues_itself_and_stays_until_slurm_ends_it(batch, mock, monkeypatch):
    monkeypatch.setattr(slurm_job, "REQUEUE_SECONDS", 0.0)
    made = batch("exit 75")
    assert made.run() == 75
    assert (mock / "control").read_text() == "requeue 5\n"
    assert read_attempts(made.folder).failures == 0


@pytest.mark.parametrize("code", [128 + signal.SIGTERM, 128 + signal.SIGUSR2, 256 - signal.SIGUSR2])
def test_a_process_that_dies_of_the_signal_was_stopped_not_wrong(batch, mock, monkeypatch, code):
    monkeypatch.setattr(slurm_job, "REQUEUE_SECONDS", 0.0)
    assert batch(f"exit {code}").run() == 75
    assert (mock / "control").exists()


@pytest.mark.parametrize("squeue", ["answers", "silent"])
def test_a_job_that_cannot_be_requeued_fails_and_says_so(batch, mock, monkeypatch, squeue):
    (mock / "refuse").write_text("scontrol: error: Requested operation is presently disabled\n")
    (mock / "queue").write_text("5|RUNNING|None|n1\n")
    if squeue == "silent":
        (mock / "silent").touch()
        monkeypatch.setattr(slurm_job, "REQUEUE_SECONDS", 0.0)
    made = batch("exit 75")
    assert made.run() == 1
    assert "could not be requeued (scontrol failed: Requested operation" in read_attempts(made.folder).given_up


@pytest.mark.parametrize("squeue", ["answers", "silent"])
def test_a_controller_that_was_away_requeues_the_job_when_it_is_back(batch, mock, monkeypatch, squeue):
    """squeue may answer again when scontrol just did not. In the end Slurm ends the batch script."""
    times = {"answers": 2, "silent": 4}[squeue]
    away = f"[ $(wc -l <control) -ge {times} ] || {{ echo 'Unable to contact slurm controller' >&2; exit 1; }}"
    (mock / "scontrol").write_text(f'#!/bin/sh\ncd {mock}\necho "$@" >>control\n{away}\nkill -TERM $PPID\n')
    (mock / "queue").write_text("5|RUNNING|None|n1\n")
    if squeue == "silent":
        (mock / "silent").touch()
    made = batch("exit 75")
    assert made.run() == 75
    assert (mock / "control").read_text() == times * "requeue 5\n"
    assert not read_attempts(made.folder).given_up


def test_a_job_that_never_gets_anywhere_within_its_time_is_given_up(batch, mock, monkeypatch):
    monkeypatch.setattr(slurm_job, "REQUEUE_SECONDS", 0.0)
    codes = []
    for _ in range(3):
        made = batch("exit 75")
        made.deadline = 0.0
        codes.append(made.run())
    assert codes == [75, 75, 1]
    assert "10 min were over 2 times in a row without a step of progress" in read_attempts(made.folder).given_up


def test_a_job_that_something_stops_again_and_again_is_given_up_in_the_end(batch, mock, monkeypatch):
    monkeypatch.setattr(slurm_job, "REQUEUE_SECONDS", 0.0)
    monkeypatch.setattr(slurm_job, "IDLE_STOPS", 2)
    assert [batch("exit 143").run() for _ in range(3)] == [75, 75, 1]


def test_near_the_end_of_its_time_a_job_is_requeued_instead_of_waiting(batch, mock, monkeypatch):
    monkeypatch.setattr(slurm_job, "REQUEUE_SECONDS", 0.0)
    made = batch("exit 1", retries=3, retry_seconds=600.0)
    made.deadline -= 10 * 60 - 120 - 30
    assert made.run() == 75
    assert read_attempts(made.folder).failures == 1


def test_a_job_is_done_when_what_it_makes_is_there_and_only_then(batch, tmp_path):
    lying = batch("exit 0")
    assert lying.run() == 1
    assert "exit status 0" in read_attempts(lying.folder).given_up
    assert batch(f"echo x >>{tmp_path}/ran; touch {tmp_path}/a.json; exit 3").run() == 0
    assert batch(f"echo x >>{tmp_path}/ran").run() == 0
    assert (tmp_path / "ran").read_text() == "x\n"


def test_a_failure_is_known_again_by_its_way_and_step_not_by_its_numbers(tmp_path):
    def print_of(message: str, step: int | None, code: int = 1, furthest: int = 7) -> str:
        (tmp_path / "error.json").write_text(json.dumps({"message": message, "step": step}))
        return slurm_job.fingerprint(tmp_path, code, furthest)

    first = print_of("timeout on 10.0.0.3:4242\nmore", 5)
    assert first == print_of("timeout on 10.1.0.3:17\nother", 5)
    assert first != print_of("timeout on 10.0.0.3:4242", 6)
    assert first != print_of("out of memory", 5)
    assert print_of("x", None, furthest=7) != print_of("x", None, furthest=8)
    (tmp_path / "error.json").unlink()
    assert slurm_job.fingerprint(tmp_path, 137, 7) != slurm_job.fingerprint(tmp_path, 1, 7)


def test_the_command_of_a_step(mock, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    one = job(tmp_path, "a", rank_command=("/its/python", "-m", "worker", "{device}"))
    write_spec(one, tmp_path, Slurm(nodes=2, gpus_per_node=4, cpus_per_task=32).resources("train"))
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    planned = Path.cwd()
    monkeypatch.chdir(tmp_path)  # somebody else's
    made = slurm_job.Batch(one.folder)
    command = slurm_job.step_command(made.spec, "5", 3)
    assert command[0] == "srun"
    asked = {"--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=32", "--cpu-bind=none", f"--chdir={planned}"}
    assert asked <= set(command)
    agent = command[command.index("/its/python") :]
    assert agent[:5] == ["/its/python", START, "pretrain_exp.executor.slurm_agent", "--nodes=2", "--ranks=4"]
    assert "--id=5-2-3" in agent
    assert agent[agent.index("--") + 1 :] == ["/its/python", "-m", "worker", "cuda"]
    assert slurm_job.port_of("5", 3) != slurm_job.port_of("5", 4)


def test_attempts_outlive_a_requeue(batch):
    made = batch("exit 1", retries=0)
    assert read_attempts(made.folder) == Attempts()
    made.run()
    again = batch("exit 1")
    assert again.attempts.attempts == 1
    assert again.attempts.failures == 1


def test_the_address_where_nodes_meet_needs_no_name_that_resolves(mock, monkeypatch):
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.3")
    assert slurm_agent.master_address() == "10.0.0.3"
    monkeypatch.delenv("SLURM_LAUNCH_NODE_IPADDR")
    assert slurm_agent.master_address() == "127.0.0.1"
    (mock / "scontrol").write_text("#!/bin/sh\n[ \"$*\" = 'show hostnames n[1-2]' ] && printf 'n1\\nn2\\n'")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    assert slurm_agent.master_address() == "n1"
    assert slurm_agent.own_address("127.0.0.1") == "127.0.0.1"


def test_the_agent_imports_nothing_but_the_standard_library_until_it_runs():
    """It runs in the Python of a framework, which may have none of our dependencies."""
    code = "import sys, pretrain_exp.executor.slurm_agent; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    ours = [name for name in done.stdout.split() if name not in sys.stdlib_module_names]
    assert [name for name in ours if not name.startswith("_")] == ["pretrain_exp"]
