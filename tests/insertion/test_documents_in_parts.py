"""Documents whole, split once and split anew: what each copy holds, and that the whole is what is scored."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chisquare

from pretrain_exp.errors import UserError
from pretrain_exp.eval.planted_runs import planted
from pretrain_exp.insertion.documents_split import DocumentsSplit
from pretrain_exp.items.planned import planted_items
from pretrain_exp.plan.compile import compile_plan

EOS = 999
FIELDS = {"repetitions": [0, 1, 5], "parts": 4}


@pytest.fixture
def documents(write) -> str:
    """28 documents of 14 tokens that tell where they stand."""
    return write([{"text": " ".join(str(100 + 20 * i + k) for k in range(14))} for i in range(28)], "documents.jsonl")


def test_every_copy_holds_the_whole_document(documents, context, tmp_path: Path) -> None:
    asked = DocumentsSplit(file=documents, **FIELDS).edits(context)
    plan = compile_plan([asked], context.phases, context.window, context.seed, "treated", tmp_path)
    assert plan.audit["ok"], plan.audit["findings"]
    subjects = plan.audit["insertions"][context.name]["subjects"]
    assert subjects["name"] == "documents"
    assert {dose: counts["items"] for dose, counts in subjects["doses"].items()} == {"0": 4, "1": 12, "5": 12}
    assert subjects["doses"]["5"]["edits"] == 5 * (4 + 4 * 4 + 4 * 4)
    tokens = {item.id: item.tokens for item in asked.items}
    read = defaultdict(list)
    for row in plan.ledger().to_pylist():
        read[row["item"].split("/")[0]].append((row["item"], row["copy"], row["position"]))
    whole = planted(planted_items(str(plan.folder / "items.parquet")).texts)
    assert Counter((text.group, text.dose) for text in whole) == {
        ("holdout", 0): 4,
        **{(condition, dose): 4 for condition in ("whole", "split", "resplit") for dose in (1, 5)},
    }
    for text in whole:
        assert text.tokens[0] == text.tokens[-1] == EOS
        assert len(text.tokens) == 16
        rows = read[text.item]
        if text.group in ("whole", "holdout"):
            assert [name for name, _, _ in rows] == [text.item] * text.dose
            continue
        copies = defaultdict(list)
        for name, copy, position in rows:
            copies[name.split("/")[1] if text.group == "resplit" else copy].append((name, position))
        assert len(copies) == text.dose
        cuts = set()
        for parts in copies.values():
            assert len(parts) == 4
            ordered = sorted(parts)  # by the number of the part
            runs = [tokens[name][1:-1] for name, _ in ordered]
            assert np.concatenate(runs).tolist() == text.tokens[1:-1].tolist()
            assert min(map(len, runs)) >= 1
            cuts.add(tuple(map(len, runs)))
        assert len(cuts) == 1 if text.group == "split" else len(cuts) > min(1, text.dose - 1)


def test_cuts_are_uniform(documents, context) -> None:
    fields = {"repetitions": [100], "conditions": ["resplit"], "parts": 2}
    items = DocumentsSplit(file=documents, **fields).edits(context).items
    first = [len(item.tokens) - 2 for item in items if item.id.endswith("part0")]
    assert len(first) == 2800
    assert chisquare(np.bincount(first, minlength=14)[1:]).pvalue > 1e-3


def test_long_documents_are_cut_alike_or_refused(write, context) -> None:
    long = write([{"text": " ".join(str(40 * i + k) for k in range(40))} for i in range(7)])
    with pytest.raises(UserError, match="longer than a sequence of 32"):
        DocumentsSplit(file=long, **FIELDS).edits(context)
    edits = DocumentsSplit(file=long, too_long="truncate", **FIELDS).edits(context)
    assert any("longer than a sequence" in note for note in edits.notes)
    planted_tokens = defaultdict(set)
    for item in edits.items:
        planted_tokens[item.id.split("/")[0]] |= set(item.tokens.tolist()) - {EOS}
    assert {len(tokens) for tokens in planted_tokens.values()} == {30}


def test_a_dose_follows_the_seed_and_a_cut_its_own(documents, context) -> None:
    from dataclasses import replace

    def found(placement: int, **fields: object) -> tuple[dict, dict]:
        items = DocumentsSplit(file=documents, **FIELDS, **fields).edits(replace(context, seed=placement)).items
        cells = {item.id: (item.group, item.dose) for item in items if "/" not in item.id}
        return cells, {item.id: item.tokens.tolist() for item in items if "/" in item.id}

    one, other = found(0), found(1)
    assert one == found(0)
    assert one[0] != other[0]
    shared = one[1].keys() & other[1].keys()
    assert shared
    assert all(one[1][name] == other[1][name] for name in shared)
    recut = found(0, seed=1)
    assert recut[0] == one[0]
    assert recut[1] != one[1]


def test_the_shipped_passages(context) -> None:
    edits = DocumentsSplit(too_long="truncate", repetitions=[0, 1]).edits(context)
    assert Counter(item.group for item in edits.items if "/" not in item.id) == {
        "holdout": 15, "whole": 15, "split": 15, "resplit": 15,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"mode": "explicit"}, "positions"),
        ({"too_long": "split"}, "condition"),
        ({"parts": 1}, "2 or more"),
        ({"parts": 15}, "fewer tokens than parts"),
        ({"conditions": []}, "distinct"),
        ({"repetitions": [1, 1]}, "distinct"),
        ({"documents": 0}, "documents: must be 1 or more"),
        ({"documents": 29}, "29 documents of 28"),
        ({"documents": 3}, "3 documents of 28 for 7"),
    ],
)
def test_wrong_input(fields, says, documents, context) -> None:
    with pytest.raises(UserError, match=says):
        DocumentsSplit(**({"file": documents} | FIELDS | fields)).edits(context)
