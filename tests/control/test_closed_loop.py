"""Closed loops through the command line, a tiny model from step 0: trained, killed, continued, run again, reported."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from pretrain_exp.control import loop as loops
from pretrain_exp.control import plan_slice
from pretrain_exp.control.loop import Loop
from pretrain_exp.control.plan_slice import Slice
from pretrain_exp.kinds import check_kind
from pretrain_exp.plan.folder import Plan
from pretrain_exp.store.keys import digest

HERE = Path(__file__).parent
LOOP = "insertion.dynamic_control"
WHOLE = [
    "experiment=smoke",
    "insertion=dynamic_control",
    f"{LOOP}.every=3",
    f"{LOOP}.file=texts.jsonl",
    f"{LOOP}.probes=probes.jsonl",
    f"{LOOP}.controller.start=8",
    f"{LOOP}.controller.maximum=16",
    f"{LOOP}.on_full=pack",
    "+insertion@insertion.add_texts=add_texts",
    "insertion.add_texts.file=static.jsonl",
    "training.num_steps=5",  # slices of 3 and 2 steps
    "training.schedule.warmup_steps=2",
    "model.sequence_length=64",
    "model.optimizer.lr=0.02",
    "data.limit_tokens=60000",
    "data.domains=[sciq]",
    "tracking=none",
    "hydra.run.dir=study",
    "eval=[knowledge]",
    "arms.placebo=true",
    "training.additional_checkpoint_steps=[4]",
]


def pretrain_exp(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pretrain_exp", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def home(folder: Path) -> Path:
    """A folder to type commands in, with the files of the loop."""
    folder.mkdir(exist_ok=True)
    facts = [("The capital of Zorbia is", "Quandel"), ("The river Pelmo flows into the", "Sarrow sea")]
    texts = [f"{prompt} {target}. Book {i} says so." for i in range(3) for prompt, target in facts]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    probes = [{"prompt": prompt, "target": target} for prompt, target in facts]
    (folder / "probes.jsonl").write_text("".join(json.dumps(probe) + "\n" for probe in probes))
    (folder / "static.jsonl").write_text("".join(json.dumps({"text": f"static text {i}"}) + "\n" for i in range(12)))
    return folder


def records(folder: Path) -> list[dict]:
    """What was recorded of the study's loop, by step."""
    told = member(folder)["arms"]["treated"]["loop"]
    return loops.records(folder / "outputs/store", Loop.from_json(told))


def member(folder: Path) -> dict:
    record = json.loads((folder / "study/member.json").read_text())
    return loops.realised(folder / "outputs/store", record)


def weights(folder: Path, key: str) -> dict[str, torch.Tensor]:
    out = folder / f"{key}.pt"
    dcp_to_torch_save(folder / "outputs/store/states" / key / "checkpoint", out)
    return torch.load(out, weights_only=True)


def same(a: object, b: object) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def run_and_kill(folder: Path, wait_for: str) -> None:
    """Starts the study and kills everything that belongs to it when a file is there."""
    command = [sys.executable, "-m", "pretrain_exp", *WHOLE]
    run = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 600
    while not list((folder / "outputs/store").glob(wait_for)):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Killed when its second slice was planned, and gone on with."""
    folder = home(tmp_path_factory.mktemp("whole") / "home")
    run_and_kill(folder, "loops/*/step3.json")
    shutil.copytree(own_plans(folder), folder / "first")
    pretrain_exp(folder, *WHOLE)
    return folder


def own_plans(folder: Path) -> Path:
    """Where the plans of the loop are until all its slices are planned."""
    told = json.loads((folder / "study/member.json").read_text())["arms"]["treated"]["loop"]
    return folder / "outputs/store/loops" / told["key"] / "plans"


def as_before_its_last_slice(folder: Path) -> None:
    """The plan of the first slice comes back, without its end nor the record of the last slice."""
    shutil.copytree(folder / "first", own_plans(folder))
    for name in ("step3.json", "step5.json"):
        own_plans(folder).with_name(name).unlink()


def test_it_runs_from_step_0_and_records_what_it_saw_and_did(study):
    found = records(study)
    assert [record["step"] for record in found] == [0, 3, 5]
    seen = [record["insertions"]["dynamic_control"] for record in found]
    assert [one["target"] for one in seen] == pytest.approx([0.0, 0.08 * 3 / 5, 0.08])
    assert [one.get("texts") for one in seen] == [8, 16, None]  # so small a model learns none of it: doubled
    assert [one.get("next") for one in seen] == [2, 0, None]
    assert all(len(one["probes"]) == 2 for one in seen)
    mean = [np.mean([probe["probability"] for probe in one["probes"]]) for one in seen]
    assert [one["value"] for one in seen] == pytest.approx(mean)
    assert len({one["value"] for one in seen}) == 3  # another model each time


def test_the_realised_plan_is_proved_and_keeps_off_what_else_is_planned(study):
    proofs = [json.loads(path.read_text()) for path in sorted((study / "study/proof").glob("*.json"))]
    assert {(proof["arm"], proof["ok"], proof["rows_checked"]) for proof in proofs} == {
        (arm, True, 5 * 8) for arm in ("control", "placebo", "treated")
    }
    treated, placebo = (Plan.open(member(study)["arms"][arm]["plan"]) for arm in ("treated", "placebo"))
    rows = treated.ledger().to_pylist()
    by_slice = [sum(row["insertion"] == "dynamic_control" and row["step"] // 3 == k for row in rows) for k in range(2)]
    assert by_slice == [8, 16]
    assert sum(row["insertion"] == "add_texts" for row in rows) == 12
    taken = sorted((row["position"], row["position"] + row["length"]) for row in rows)
    assert all(stop <= start for (_, stop), (start, _) in pairwise(taken))
    assert not own_plans(study).exists()
    followed = sorted((row["position"], row["position"] + row["length"]) for row in placebo.ledger().to_pylist())
    assert followed == taken


def test_every_arm_is_scored_on_the_probes_and_the_report_has_the_table(study):
    results = pq.read_table(study / "study/report/results.parquet").to_pylist()
    probed = [row for row in results if row["metric"] == "target_prob"]
    assert {row["arm"] for row in probed} == {"control", "treated", "placebo"}
    assert {row["dose"] for row in probed} == {(8 + 16) // 6}  # the mean over the texts of the pool
    last = [row["value"] for row in probed if row["arm"] == "treated"]
    with open(study / "study/report/control.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["step"], row["texts"]) for row in table] == [("0", "8"), ("3", "16"), ("5", "")]
    assert float(table[-1]["achieved"]) == pytest.approx(np.mean(last))
    page = (study / "study/report/report.html").read_text()
    section = page.partition('<section id="control">')[2].partition("</section>")[0]
    assert "Target against achieved" in section
    assert '<figure id="closed_loop">' in section
    for suffix in ("png", "svg", "csv"):
        assert (study / f"study/report/figures/closed_loop.{suffix}").is_file()


def test_the_same_loop_again_does_nothing_and_other_checkpoints_start_from_what_is_there(study):
    before = records(study)
    assert "0 jobs to run" in pretrain_exp(study, *WHOLE)
    other = [word for word in WHOLE if not word.startswith("training.additional")]
    planned = pretrain_exp(study, "plan", *other, "training.additional_checkpoint_steps=[2]", "arms.placebo=false")
    assert "2 of its 2 segments are planned" in planned
    assert re.findall(r"(\d+) to (\d+) ", planned.partition("jobs to run")[2]) == [("0", "2")] * 2
    assert records(study) == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([f"{LOOP}.on_full=error"], "of which other insertions take"),
        (["data.limit_tokens=2850"], "the placebo needs"),  # 2,560 are read; the static texts alone would fit
    ],
    ids=["segment", "placebo"],
)
def test_what_finds_no_room_is_refused_before_anything_is_trained(study, given, said):
    command = [sys.executable, "-m", "pretrain_exp", "plan", *WHOLE, *given]
    done = subprocess.run(command, cwd=study, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stdout
    assert said in done.stderr


def test_a_slice_that_was_planned_and_not_recorded_is_planned_alike(study, monkeypatch):
    """Killed between any two files: what was written stays, what was not is made again, and is the same."""
    job, values = job_of(study, step=3)
    resolved = json.loads(job.with_name("resolved.json").read_text())
    path, end = (own_plans(study).with_name(name) for name in ("step3.json", "step5.json"))
    record, last = json.loads(path.read_text()), end.read_text()
    as_before_its_last_slice(study)
    with monkeypatch.context() as patch:
        patch.setattr(loops, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            plan_slice.main(job)
    assert not path.exists()
    assert plan_slice.main(job) == 0
    assert json.loads(path.read_text()) == record
    assert json.loads(job.with_name("resolved.json").read_text()) == resolved
    assert values["save"] != resolved["save"]
    end.write_text(last)
    shutil.rmtree(own_plans(study))


def test_a_program_of_ones_own_is_the_controller(study, tmp_path):
    """Composed on the command line; then called in place of the study's own controller, in a loop of another name."""
    program = ["control@insertion.dynamic_control.controller=script", f"{LOOP}.file=null", f"{LOOP}.probes=null"]
    program += [f"{LOOP}.controller.script={HERE / 'loop_program.py'}", f"+{LOOP}.controller.args.word=hello"]
    words = [word for word in WHOLE if ".controller" not in word and f"{LOOP}.file" not in word]
    words = [word for word in words if f"{LOOP}.probes" not in word]
    assert "is not known" in pretrain_exp(study, "plan", *words, *program)
    told = {"_target_": "pretrain_exp.control.script.ScriptController", "script": str(HERE / "loop_program.py")}
    told |= {"args": {"word": "hello"}, "state": {"calls": 0}}
    for step, calls in ((0, 1), (3, 2)):
        _, values = job_of(study, step)
        node = {**values["loop"]["insertions"]["dynamic_control"], "file": None, "probes": None, "controller": told}
        values["loop"] |= {"key": "program", "insertions": {"dynamic_control": node}, "prints": {}}
        kind = check_kind(node, "insertion")
        values["loop"]["prints"]["dynamic_control"] = digest(kind.fingerprint(Slice(values).context("dynamic_control")))
        values |= {"live": str(tmp_path), "save": [{**save, "key": f"of-{save['step']}"} for save in values["save"]]}
        (tmp_path / "job.json").write_text(json.dumps(values))
        assert plan_slice.main(tmp_path / "job.json") == 0
        record = json.loads((study / f"outputs/store/loops/program/step{step}.json").read_text())
        seen = record["insertions"]["dynamic_control"]
        assert (seen["target"], seen["value"], seen["texts"]) == (0.5, calls / 10, calls)
        assert seen["state"]["steps"] == [0, 3][:calls]
        assert "model.safetensors" in seen["state"]["model"]
    items = Plan.open(study / "outputs/store/plans" / record["plan"]).items().to_pylist()
    doses = {row["text"]: row["dose"] for row in items if row["text"].startswith("hello")}
    assert doses == {"hello number 0": 2, "hello number 1": 1}


def test_killed_in_the_middle_it_came_to_the_weights_of_a_run_that_was_not(study):
    """The slice in which the study was killed, once more and undisturbed."""
    store, before = study / "outputs/store", records(study)
    last = member(study)["arms"]["treated"]["last"]
    killed_in = weights(study, last)
    for key in (last, member(study)["arms"]["treated"]["states"]["4"]):
        shutil.rmtree(store / "states" / key)
    as_before_its_last_slice(study)
    assert "2 jobs to run" in pretrain_exp(study, *WHOLE)
    assert records(study) == before
    assert not own_plans(study).exists()
    assert member(study)["arms"]["treated"]["last"] == last
    assert same(weights(study, last), killed_in)


def test_status_inspect_and_gc_read_a_loop_like_any_arm(study):
    assert "done" in pretrain_exp(study, "status")
    row = next(row for row in Plan.open(member(study)["plan"]).ledger().to_pylist() if row["step"] == 4)
    assert f"{row['insertion']}, item {row['item']}" in pretrain_exp(study, "inspect", "study", "--step", "4")
    states = member(study)["arms"]["treated"]["states"]
    pretrain_exp(study, "gc", "--apply")
    kept = {step for step, key in states.items() if (study / "outputs/store/states" / key / "checkpoint").is_dir()}
    assert kept == {"4", "5"}
    assert not own_plans(study).with_name("overlays").exists(), "no job of a slice is left"
    assert "0 jobs" in pretrain_exp(study, "plan", *WHOLE)


def job_of(study: Path, step: int) -> tuple[Path, dict]:
    """The training job of the treated arm that starts at a step: job.json and what it holds."""
    for path in (study / "outputs/store/jobs").glob("train-*/resolved.json"):
        values = json.loads(path.with_name("job.json").read_text())
        if values["loop"]["role"] == "treated" and values["start"]["step"] == step:
            return path.with_name("job.json"), values
    raise AssertionError(f"no job of the loop starts at step {step}")


def killed(*_: object) -> None:
    raise KeyboardInterrupt
