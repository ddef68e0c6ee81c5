"""A whole experiment on a real Slurm: training over two nodes, proof, report; the same weights as on one machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from slurm_jobs import log_of, wait_until_ended
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from pretrain_exp.executor.base import Job

pytestmark = pytest.mark.slurm
SMALL = ["experiment=smoke", "training.num_steps=4", "training.schedule.warmup_steps=1", "tracking=none"]
ONE_JOB = ["~insertion.benchmark_contamination", "~eval.multiple_choice", "~eval.planted_texts", "~eval.perplexity"]
TWO_NODES = ["executor=slurm", "executor.nodes=2", "executor.ranks_per_node=2", "executor.gpus_per_node=0"]
TWO_NODES += ["executor.cpus_per_task=2", "executor.mem=1000", "executor.signal_delay_s=5"]


def pretrain_exp(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pretrain_exp", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def weights(folder: Path, out: Path) -> dict[str, torch.Tensor]:
    """The model's tensors in the only state of the store below `folder`."""
    (state,) = (folder / "outputs/store/states").iterdir()
    dcp_to_torch_save(state / "checkpoint", out)
    return torch.load(out, weights_only=True)["model"]


def test_two_nodes_of_two_ranks_train_what_four_ranks_of_one_machine_do(slurm, tmp_path):
    inline, cluster = tmp_path / "inline", tmp_path / "cluster"
    only = [*SMALL, *ONE_JOB]
    for folder in (inline, cluster):
        folder.mkdir()
    pretrain_exp(cluster, *only, *TWO_NODES)
    pretrain_exp(inline, *only, "++framework.devices=4")
    study = next((cluster / "outputs/runs").rglob("study.json"))
    jobs = [Job.from_record(record) for record in json.loads(study.read_text())["jobs"]]
    assert [job.kind for job in jobs] == ["train", "report"]
    ended = wait_until_ended(*jobs)
    assert set(ended.values()) == {"COMPLETED"}, "\n".join(map(log_of, jobs))
    assert all(job.done() for job in jobs)
    ours, theirs = weights(inline, tmp_path / "inline.pt"), weights(cluster, tmp_path / "cluster.pt")
    assert ours.keys() == theirs.keys()
    assert len(ours) > 5
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    told = pretrain_exp(cluster, "status", str(study.parent))
    assert told.count("done") >= 3
    assert pretrain_exp(cluster, "logs", str(study.parent), "train").startswith("--- attempt 1, Slurm job")


def test_a_sweep_over_seeds_and_doses_is_one_graph_of_jobs_with_one_report(slurm, tmp_path):
    """Training is held, and all others wait for it, until the jobs were counted and submitted for a second time."""
    doses = ["-m", "seed=0,1", "insertion.benchmark_contamination.repetitions=1,4", "hydra.sweep.dir=sweep"]
    doses += ["~eval.planted_texts", "~eval.perplexity", "insertion.benchmark_contamination.limit=10"]
    one_node = ["executor=slurm", "executor.gpus_per_node=0", "executor.mem=500", "executor.signal_delay_s=5"]
    sweep = [*SMALL, *doses, *one_node, "+executor.extra.hold=true"]

    def asked_for() -> dict[str, str]:
        """What Slurm has of this folder: name of each job, by its number."""
        listed = ["squeue", "-h", "-t", "all", "-o", "%i %Z %j"]
        rows = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines()
        return {number: name for number, place, name in map(str.split, rows) if place == str(tmp_path)}

    pretrain_exp(tmp_path, *sweep)
    records = json.loads((tmp_path / "sweep/study.json").read_text())["jobs"]
    # of each seed: one control, and one arm of each dose; what they share is trained once
    kinds = Counter(record["kind"] for record in records)
    assert kinds == {"train": 6, "evaluate": 6, "report": 1}
    numbers = asked_for()
    assert sorted(numbers.values()) == sorted(record["id"] for record in records)
    pretrain_exp(tmp_path, *sweep)
    assert asked_for() == numbers, "nothing was submitted again"
    subprocess.run(["scontrol", "release", ",".join(numbers)], check=True)
    jobs = [Job.from_record(record) for record in records]
    assert set(wait_until_ended(*jobs).values()) == {"COMPLETED"}, "\n".join(map(log_of, jobs))
    study = json.loads((tmp_path / "sweep/study.json").read_text())
    assert (study["status"], study["failures"]) == ("done", [])
    proofs = [json.loads(path.read_text()) for path in sorted((tmp_path / "sweep").rglob("proof/*.json"))]
    assert [proof["ok"] for proof in proofs] == [True] * 8  # of two arms of four members
    assert [path.parts[-3:] for path in tmp_path.rglob("report.html")] == [("sweep", "report", "report.html")]


def test_members_that_run_in_jobs_of_hydras_launcher_submit_and_wait_there_and_are_reported_together(slurm, tmp_path):
    """For controllers that must see results. The outer job asks for memory a CPU, the inner one for memory a node."""
    launcher = ["-m", "seed=5,6", "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=10"]
    launcher += ["hydra.launcher.mem_gb=null", "hydra.launcher.mem_per_cpu=100", "hydra.sweep.dir=sweep"]
    one_node = ["executor=slurm", "executor.gpus_per_node=0", "executor.mem=500", "executor.wait=true"]
    pretrain_exp(tmp_path, *launcher, *SMALL, *ONE_JOB, *one_node)
    for member in ("0", "1"):
        study = tmp_path / "sweep" / member
        assert json.loads((study / "study.json").read_text())["status"] == "done"
        assert (study / "report/report.html").is_file()
    states = list((tmp_path / "outputs/store/states").iterdir())
    assert len(states) == 2
    assert all((state / "state.json").is_file() for state in states)
    pretrain_exp(tmp_path, "report", "sweep")
    together = json.loads((tmp_path / "sweep/study.json").read_text())
    assert (together["status"], together["failures"], len(together["jobs"])) == ("done", [], 2)
    proofs = [json.loads(path.read_text()) for path in sorted((tmp_path / "sweep/proof").iterdir())]
    assert [(proof["seed"], proof["arm"], proof["ok"]) for proof in proofs] == [
        (5, "control", True),
        (6, "control", True),
    ]
    page = (tmp_path / "sweep/report/report.html").read_text()
    assert "seed 5" in page
    assert "seed 6" in page
    assert pretrain_exp(tmp_path, "status", "sweep").count("done") >= 2
