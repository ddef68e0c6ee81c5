"""`experiment=train_once_answer_all` as it ships, planned on a tiny model with small files: all ten insertions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hydra.core.global_hydra import GlobalHydra

from pretrain_exp.cli import main
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.knowledge import Knowledge
from pretrain_exp.plan.absence import Absent
from pretrain_exp.plan.edits import Window

FACTS = {"facts": 4, "paraphrases": 5, "repetitions": 5, "fraction": 1.0}
TEN = {
    "benchmark_contamination", "dynamic_control", "reasoning", "canaries", "removal", "gaussian_poisoning", "poisoning",
    "batches", "documents_split", "iid_replacement",
}  # fmt: skip
MORE = ("arc_easy", "socialiqa", "winogrande", "piqa", "boolq", "mmlu")  # of train_once_answer_all_paper
SMALL = [
    "framework=huggingface", "model=tiny_64", "data=offline_english",
    "data.domains=[sciq]", "training.num_steps=48", "training.checkpoint_interval=24", "tracking=none",
    "insertion.benchmark_contamination.limit=20", "insertion.benchmark_contamination.repetitions=[0,4]",
    "insertion.dynamic_control.every=12", "insertion.dynamic_control.controller.maximum=16",
    *(f"insertion.dynamic_control.items.{name}={FACTS[name]}" for name in ("paraphrases", "repetitions")),
    "insertion.reasoning.problems=10", "insertion.reasoning.max_ops=2", "insertion.reasoning.test_per_ops=2",
    "insertion.reasoning.test_max_ops=3",
    # `unlikely` asks a model of the hub
    "insertion.canaries.kinds=[plain,rare,random]", "insertion.canaries.checkpoint=null", "insertion.canaries.items=4",
    "insertion.canaries.carrier_tokens=40",
    "insertion.gaussian_poisoning.steps={every: 12, first: 11}",
    "insertion.poisoning.share=0.005", "insertion.poisoning.tests=5",
    "insertion.batches.steps={every: 24, first: 5}", "insertion.batches.holdout=8",
    "insertion.documents_split.repetitions=[0,1,2]",
    "insertion.iid_replacement.sequences=2", "insertion.iid_replacement.score=2",
    "insertion.iid_replacement.holdout=8",
]  # fmt: skip


def planned(experiment: str, *overrides: str) -> int:
    GlobalHydra.instance().clear()
    return main(["plan", f"experiment={experiment}", *SMALL, *overrides])


def plan_folder() -> Path:
    """The plan that was written last."""
    return max(Path("outputs/store/plans").glob("*/"), key=lambda folder: folder.stat().st_mtime_ns)


def insertions() -> set[str]:
    """Those with items in that plan."""
    return set(pq.read_table(plan_folder() / "items.parquet")["insertion"].to_pylist())


def pool_text() -> str:
    """A text that the loop may plant."""
    context = InsertionContext(
        "pool",
        0,
        256,
        0,
        Window(0, 48),
        Phases([Phase(0, 8, 256)]),
        lambda texts: [np.ones(3, np.uint32)] * len(texts),
    )
    return next(item.text for item in Knowledge(**FACTS).edits(context).items if not item.probe)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory):
    """A folder with the small files; the documents to remove are stretches of the data, as a plan of the
    paper's further insertions drew them."""
    folder = tmp_path_factory.mktemp("ten")
    (folder / "inputs").mkdir()
    talks = [f"Ann says hello number {i}. Bob answers that it is day {i * 7} of the year. " * 3 for i in range(30)]
    news = [" ".join(f"Event {i * 7 + j} in town {j} was seen by {j} people." for j in range(7)) for i in range(48)]
    for name, texts in (("soda", talks), ("muse_news", news)):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / "inputs" / f"{name}.jsonl").write_text(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        drawing = ["insertion.removal.file=null", "insertion.removal.sample=4"]
        sizes = [f"insertion.{name}.{size}" for name in MORE for size in ("limit=6", "repetitions=[0,1]")]
        assert planned("train_once_answer_all_paper", *drawing, *sizes, "insertion.denial.share=0.005") == 0
        assert insertions() == TEN | {*MORE, "denial"}
        yield [run.tolist() for run in Absent.stored(plan_folder()).runs]


@pytest.mark.parametrize("from_the_pool", [False, True], ids=["documents of the data", "and a text of the loop's pool"])
def test_the_ten_are_planned_and_what_is_removed_is_sought_in_the_pool(
    drawn: list[list[int]], from_the_pool: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = [*drawn, *([pool_text()] if from_the_pool else [])]
    rows = "".join(json.dumps({"token_ids": document}) + "\n" for document in documents)
    Path("inputs/forbidden_documents.jsonl").write_text(rows)
    assert planned("train_once_answer_all", "insertion.removal.prefix=5") == (2 if from_the_pool else 0)
    said = " ".join(capsys.readouterr()).replace("\n", " ")
    if from_the_pool:
        assert "of the runs that removal removes stand in texts that dynamic_control may plant later; item" in said
    else:
        assert insertions() == TEN
        assert "removal: none of its 4 runs stands in any of the" in said
