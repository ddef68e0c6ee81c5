"""A closed loop on a real Slurm: submitted at once, each job plans its own slice, and nobody has to stay."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from slurm_jobs import log_of, wait_until_ended

from pretrain_exp.executor.base import Job

pytestmark = pytest.mark.slurm
LOOP = "insertion.dynamic_control"
WORDS = [
    "experiment=smoke",
    "insertion=dynamic_control",
    f"{LOOP}.every=2",
    f"{LOOP}.file=texts.jsonl",
    f"{LOOP}.probes=probes.jsonl",
    f"{LOOP}.controller.start=2",
    f"{LOOP}.controller.maximum=8",
    "training.num_steps=4",
    "training.schedule.warmup_steps=1",
    "model.sequence_length=64",
    "data.limit_tokens=60000",
    "data.domains=[sciq]",
    "eval=none",
    "arms.control=false",
    "tracking=none",
    "hydra.run.dir=study",
]
TWO_RANKS = ["executor=slurm", "executor.nodes=1", "executor.ranks_per_node=2", "executor.gpus_per_node=0"]
TWO_RANKS += ["executor.cpus_per_task=2", "executor.mem=2000", "executor.signal_delay_s=5"]


def pretrain_exp(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pretrain_exp", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def says_how_many_jobs(text: str, jobs: int) -> bool:
    return re.search(rf"(?<!\d){jobs} jobs to run\b", text) is not None


def test_a_chain_plans_its_slices_by_itself_with_one_of_two_ranks(slurm, tmp_path):
    texts = [f"The capital of Zorbia is Quandel, says book {i}." for i in range(4)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "probes.jsonl").write_text('{"prompt": "The capital of Zorbia is", "target": "Quandel"}\n')
    said = pretrain_exp(tmp_path, *WORDS, *TWO_RANKS)
    assert says_how_many_jobs(said, 4), said
    jobs = [Job.from_record(record) for record in json.loads((tmp_path / "study/study.json").read_text())["jobs"]]
    titles = [(job.title, job.first, job.total) for job in jobs]
    assert titles == [
        ("train treated seed 0", 0, 0),
        ("train treated seed 0", 0, 2),
        ("train treated seed 0", 2, 4),
        ("probe treated seed 0 step 4", 0, 100),
        ("report", 0, 0),
    ]
    again = pretrain_exp(tmp_path, *WORDS, *TWO_RANKS)  # while they wait or run: the same jobs, no others
    assert "submitted" in again
    ended = wait_until_ended(*jobs)
    assert set(ended.values()) == {"COMPLETED"}, "\n".join(map(log_of, jobs))
    records = [json.loads(path.read_text()) for path in (tmp_path / "outputs/store/loops").glob("*/step*.json")]
    seen = {record["step"]: record["insertions"]["dynamic_control"].get("texts") for record in records}
    assert seen == {0: 2, 2: 4, 4: None}
    proofs = [json.loads(path.read_text()) for path in (tmp_path / "study/proof").glob("*.json")]
    assert [proof["ok"] for proof in proofs] == [True]
    reads = {path.name for path in (tmp_path / "outputs/store/states").glob("*/reads/*.npy")}
    assert reads == {"rank00000.npy", "rank00001.npy"}
    assert says_how_many_jobs(pretrain_exp(tmp_path, *WORDS, *TWO_RANKS), 0)
    assert (tmp_path / "study/report/control.csv").is_file()
