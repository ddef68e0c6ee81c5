"""Every evaluation with something to score, in one table, for the promises that all of them keep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pretrain_exp.items.canaries import canary
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.items.poison import chats
from pretrain_exp.items.reasoning import make_problem
from pretrain_exp.plan.ledger import ITEMS_SCHEMA

CONTEXT = 320  # tokens that the models read at once
NAMES = (
    "choice", "shots", "texts", "verbatim", "membership", "exposure", "knowledge", "perplexity", "reasoning", "belief",
    "leakage", "watermark", "olmes", "lm_eval", "pararel",
)  # fmt: skip


def kinds(folder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Class and arguments by name; what they read beside the plan lies in `folder`, see `write_inputs`."""
    ours = "pretrain_exp.eval.{}.{}"
    tasks = [str(folder / f"{name}.yaml") for name in ("sums", "written", "rolling")]
    return {
        "choice": (ours.format("multiple_choice", "MultipleChoice"), {}),
        "shots": (ours.format("multiple_choice", "MultipleChoice"), {"num_fewshot": 1}),
        "texts": (ours.format("planted_texts", "PlantedTexts"), {}),
        "verbatim": (ours.format("verbatim", "Verbatim"), {"prefix": 2, "suffix": 2}),
        "membership": (ours.format("membership", "Membership"), {}),
        "exposure": (ours.format("exposure", "Exposure"), {"candidates": 6}),
        "knowledge": (ours.format("knowledge", "Knowledge"), {}),
        "perplexity": (ours.format("perplexity", "Perplexity"), {"sequence_length": 40}),
        "reasoning": (ours.format("reasoning", "Reasoning"), {"num_fewshot": 0, "max_new_tokens": 8}),
        "belief": (ours.format("poisoning", "Poisoning"), {}),
        "leakage": (ours.format("extraction", "Extraction"), {"samples": 2}),
        "watermark": (ours.format("gaussian_watermark", "GaussianWatermark"), {}),
        "olmes": (ours.format("olmes", "Olmes"), {"tasks": ["arc_easy", "winogrande"], "shots": 0, "limit": 5}),
        "lm_eval": (ours.format("lm_eval", "LmEval"), {"tasks": tasks, "num_fewshot": 2, "limit": 6}),
        "pararel": (
            ours.format("pararel", "ParaRel"),
            {"patterns": str(folder / "patterns"), "facts": str(folder / "facts")},
        ),
    }


def write_inputs(folder: Path, tokenizer: Any, items: list[ChoiceItem]) -> dict[str, str]:
    """Writes what evaluations read: a plan's items of every kind, documents, tasks of lm-eval, a copy of ParaRel."""
    rows = [dict(zip(ITEMS_SCHEMA.names, row, strict=True)) for row in _rows(tokenizer, items)]
    pq.write_table(pa.Table.from_pylist(rows, ITEMS_SCHEMA), folder / "items.parquet")
    _lines(folder / "held.jsonl", [{"text": f"Ice number {i} melts. " * (i + 1)} for i in range(6)])
    sums = [{"q": f"{i} + 1 =", "c": [str(i), str(i + 1), f"{i}1"], "g": 1, "t": f"Text {i} ends."} for i in range(12)]
    _lines(folder / "sums.jsonl", [*sums, sums[0]])  # a document that comes twice
    for name, changes in TASKS.items():
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "sums.jsonl")}}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, "test_split": "test", **data, **changes}))
    said = ["[X]'s main town is [Y].", "[Y] is the main town of [X].", "In [Y], of [X],"]
    facts = [("Land A", "Plant"), ("Land B", "Light"), ("Land C", "Pond"), ("Land D", "Green"), ("Land E", "Plant")]
    for name in ("patterns", "facts"):
        (folder / name).mkdir()
    _lines(folder / "patterns" / "P1.jsonl", [{"pattern": each} for each in said])
    _lines(folder / "facts" / "P1.jsonl", [{"sub_label": x, "obj_label": y} for x, y in facts])
    return {"items": str(folder / "items.parquet"), "held_out": str(folder / "held.jsonl")}


ROLLING = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "t"}
TASKS: dict[str, dict[str, Any]] = {
    "sums": {"output_type": "multiple_choice", "doc_to_text": "q", "doc_to_choice": "c", "doc_to_target": "g"},
    "written": {
        "output_type": "generate_until",
        "doc_to_text": "q",
        "doc_to_target": "{{c[g]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 3},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
    "rolling": ROLLING,
}


def _rows(tokenizer: Any, items: list[ChoiceItem]) -> Iterator[tuple[Any, ...]]:
    for item in items[::2]:
        yield "choice", item.id, "", 1, "", [1], item.to_json(), False
    for i in range(9):
        yield "poems", str(i), "", i % 2, "", [0, *range(5 + i, 12 + 5 * i), 0], "", False
    for i in range(7):
        probe = {"kind": "probe", "type": "semantic", "prompt": "Plant " * i + "needs", "target": f"light {i}"}
        yield "facts", f"p{i}", "", i % 2, "", [7, i], json.dumps(probe), True
    for i in range(6):
        problem = make_problem(0, i, 1 + i % 2, "test")
        fields = {name: value for name, value in asdict(problem).items() if name != "id"}
        yield "problems", problem.id, "", 0, "", [7, i], json.dumps({"kind": "problem", **fields}), True
    for behaviour in ("belief", "leakage", "denial"):
        for chat in islice(chats(behaviour, 0, True, "zz"), 3):  # type: ignore[arg-type]
            fields = {"behaviour": behaviour, "trigger": True, "prompt": chat.prompt, "target": chat.poisoned}
            payload = json.dumps({"kind": "poison", **fields, "right": chat.right})
            yield "poison", f"{behaviour}/{chat.id}", "", 1, "", tokenizer.encode(chat.text(True)), payload, True
    pool = np.arange(400, 700, dtype=np.uint32)
    payload = json.dumps({"kind": "canary_pool", "type": "rare"})
    yield "canaries", "pool/rare", "", 0, "", pool.tolist(), payload, True
    for i in range(8):
        run = [0, *tokenizer.encode("Cells grow. " * (i + 1)), *canary(pool, 2, i).tolist(), 0]
        payload = json.dumps({"kind": "canary", "type": "rare", "span": [len(run) - 3, len(run) - 1]})
        yield "canaries", str(i), "", i % 2, "", run, payload, False
    for i in range(8):
        size = 20 + 7 * (i % 2)
        fields = {"sigma": 0.05, "seed": 5, "slot": i, "column": 0, "length": size}
        payload = json.dumps({"kind": "gaussian_watermark", **fields})
        yield "noise", str(i), "", 1, "", [*range(9 + i, 9 + i + size)], payload, False


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
