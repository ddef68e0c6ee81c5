"""What jobs ask of Slurm by their kind, and what is refused before anything is submitted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from mock_slurm import job, options

from pretrain_exp.errors import Problems, UserError
from pretrain_exp.executor import slurm, slurm_site
from pretrain_exp.executor.slurm import Slurm
from pretrain_exp.executor.slurm_plan import describe, longest_chain
from pretrain_exp.executor.slurm_site import SlurmError, hidden_variables


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


@pytest.mark.parametrize("command", ["sbatch", "sinfo"])
@pytest.mark.parametrize(("way", "words"), [("hangs", "gave no answer within 0 s"), ("goes", "is not on PATH")])
def test_a_command_that_hangs_or_goes_away_is_an_error_with_a_way_out(mock, tmp_path, monkeypatch, command, way, words):
    if way == "hangs":
        (mock / command).write_text("#!/bin/sh\nexec sleep 600\n")
        answer = slurm_site._answer

        def impatient(asked):  # with this command alone: any other may be slow, on a busy machine
            monkeypatch.setattr(slurm_site, "ANSWER_SECONDS", 0.1 if asked[0] == command else 600.0)
            return answer(asked)

        monkeypatch.setattr(slurm_site, "_answer", impatient)
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
