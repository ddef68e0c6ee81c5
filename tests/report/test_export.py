"""The export of a study's ground truth: what is in it is what was planted, and Hugging Face datasets open it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pretrain_exp.analysis.recall import recall_at_k
from pretrain_exp.data.order import ShuffledOrder
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.data.token_files import TokenFile, TokenFiles
from pretrain_exp.data.tokenizer import EOS
from pretrain_exp.errors import UserError
from pretrain_exp.items.choice import ChoiceItem
from pretrain_exp.plan.audit import CHECKS
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import EditItem, Edits, Window
from pretrain_exp.study.export import IGNORED, export_study
from pretrain_exp.verbs import read_verb

S, BATCH, WORDS = 16, 4, 600
PHASES, WINDOW = Phases([Phase(0, BATCH, S)]), Window(2, 8)
QUESTION = ChoiceItem.create("numbers", "500 501 502", ("503 504", "505"), 0)


def planted(name: str, items: list[EditItem], columns: list[int]) -> Edits:
    """One copy of each item of dose 1, two of dose 2, at these columns after the first token of step 3."""
    item = np.repeat(np.arange(len(items)), [0 if i.probe else i.dose for i in items])
    copy = np.array([int((item[:k] == i).sum()) for k, i in enumerate(item)], dtype=np.int32)
    first = PHASES.position_of_step(3)
    return Edits(name, items, item.astype(np.int32), copy, "explicit", position=np.array([first + c for c in columns]))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A question read twice, one held out; a fact whose text is read once, with two probes; a text over a row's end."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    folder = tmp_path_factory.mktemp("study")
    backend = Tokenizer(WordLevel({str(i): i for i in range(WORDS)}, unk_token="0"))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.add_special_tokens([AddedToken(EOS, special=True)])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOS}))
    tokens = np.arange(32 * S, dtype="<u4") % 400
    tokens.tofile(folder / "0.bin")
    files = TokenFiles((TokenFile(str(folder / "0.bin"), "uint32", 0, len(tokens), "d", "0.bin"),), WORDS)
    order = ShuffledOrder(files, S, 3)

    def of(*ids: int) -> np.ndarray:
        return np.array(ids, dtype=np.uint32)

    held = ChoiceItem.create("numbers", "510 511", ("512", "513"), 1)
    probe = json.dumps({"kind": "probe", "prompt": "520 521", "target": "522 523"})
    requests = [
        planted(
            "questions",
            [
                EditItem(QUESTION.id, of(500, 501, 502, 503, 504), dose=2, payload=QUESTION.to_json()),
                EditItem(held.id, of(510, 511, 513), payload=held.to_json()),
            ],
            [2, S + 3],
        ),
        planted(
            "facts",
            [
                EditItem("fact1:text0", of(520, 521, 522, 523), dose=1),
                EditItem("fact1:probe", of(520, 521, 522, 523), dose=1, payload=probe, probe=True),
            ],
            [9],
        ),
        planted("texts", [EditItem("long", of(*range(550, 570)), dose=1)], [2 * S + 8]),
    ]
    plan = compile_plan(requests, PHASES, WINDOW, 0, "treated", folder / "plans", order=order)
    record = {
        "arms": {"treated": {"plan": str(plan.folder)}, "control": {"plan": None}}, "label": "", "seed": 0,
        "order": order.to_json(), "phases": PHASES.to_json(), "tokenizer": str(folder), "plan": str(plan.folder),
        "plan_fingerprint": None,
    }  # fmt: skip
    (folder / "member.json").write_text(json.dumps(record))
    bare = folder / "bare"
    bare.mkdir()
    (bare / "member.json").write_text(json.dumps({**record, "plan": None}))
    fields = {"store": str(folder / "store"), "title": "t", "command": "c"}
    (folder / "study.json").write_text(json.dumps({"members": [str(folder), str(bare)], **fields}))
    return folder


@pytest.fixture(scope="module")
def export(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_study(study, tmp_path_factory.mktemp("out") / "truth")


def test_every_copy_is_where_its_row_says(export: Path) -> None:
    truth = pq.read_table(export / "ground_truth.parquet").to_pylist()
    rows = {row["slot"]: row for row in pq.read_table(export / "train_rows" / "train.parquet").to_pylist()}
    tokens = {
        "long": list(range(550, 570)),
        "fact1:text0": [520, 521, 522, 523],
        QUESTION.id: [500, 501, 502, 503, 504],
    }
    assert len(truth) == 4
    for copy in truth:
        assert copy["position"] == copy["slot"] * S + copy["column"]
        assert rows[copy["slot"]]["step"] == copy["step"] == 3
        assert rows[copy["slot"]]["row"] == copy["row"]
        near = [rows[copy["slot"] + k] for k in range(2) if copy["slot"] + k in rows]
        read = [token for row in near for token in row["input_ids"]]
        assert read[copy["column"] : copy["column"] + copy["length"]] == tokens[copy["item"]]
    assert sorted(rows) == [12, 13, 14, 15]


def test_the_audit_of_the_plan_is_told(export: Path) -> None:
    told = json.loads((export / "summary.json").read_text())["audit"]
    assert (told["ok"], told["checks"]) == (True, CHECKS)
    assert f"Audit of the plan: passed. Checked: {CHECKS}." in (export / "README.md").read_text()


def test_queries_ask_for_the_target_only(export: Path) -> None:
    queries = pq.read_table(export / "queries" / "train.parquet").to_pylist()
    by = {query["item"]: query for query in queries}
    assert by[QUESTION.id]["input_ids"] == [500, 501, 502, 503, 504]
    assert by[QUESTION.id]["labels"] == [IGNORED] * 3 + [503, 504]
    assert by["fact1:probe"]["labels"] == [IGNORED] * 2 + [522, 523]
    assert by["long"]["labels"] == by["long"]["input_ids"]
    assert [query["query_index"] for query in queries] == list(range(len(queries)))
    assert sorted(query["dose"] for query in queries) == [0, 1, 1, 1, 2]


def test_the_matrix_joins_both(export: Path) -> None:
    pairs = pq.read_table(export / "relevance.parquet").to_pylist()
    items = pq.read_table(export / "queries" / "train.parquet")["item"].to_pylist()
    slots = pq.read_table(export / "train_rows" / "train.parquet")["slot"].to_pylist()
    found = {(items[pair["query_index"]], slots[pair["train_index"]]): pair["copies"] for pair in pairs}
    assert found == {
        (QUESTION.id, 12): 1, (QUESTION.id, 13): 1, ("fact1:text0", 12): 1, ("fact1:probe", 12): 1,
        ("long", 14): 1, ("long", 15): 1,
    }  # fmt: skip


def test_a_method_that_knows_the_truth_finds_all_of_it(export: Path) -> None:
    pairs, queries = pq.read_table(export / "relevance.parquet"), pq.read_table(export / "queries" / "train.parquet")
    truth = np.zeros((len(pq.read_table(export / "train_rows" / "train.parquet")), len(queries)))
    truth[pairs["train_index"], pairs["query_index"]] = pairs["copies"]
    found, reverse = (recall_at_k(scores.T, pairs, queries, k=1) for scores in (truth, -truth))
    assert (found.recall, reverse.recall) == (1.0, 0.0)
    assert (found.n, found.counted, found.unasked) == (3, "facts", 1)  # a question, a text, a fact with its probe


def test_datasets_opens_it(export: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    for name, columns in (("train_rows", {"train_index", "slot"}), ("queries", {"query_index", "item"})):
        data = load_dataset(str(export / name), split="train", cache_dir=str(tmp_path))
        assert {"input_ids", "labels", "length", *columns} <= set(data.column_names)
        assert all(len(row["input_ids"]) == len(row["labels"]) == row["length"] for row in data)


def test_the_command_writes_it_and_replaces_only_its_own(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert read_verb("report", [str(study), "--export", str(tmp_path / "truth")]) == 0
    assert f"export: {tmp_path / 'truth'}" in capsys.readouterr().out
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        export_study(study, tmp_path / "other")
    with pytest.raises(UserError, match="is a file"):
        export_study(study, tmp_path / "other" / "notes.txt")
    with pytest.raises(UserError, match="no such member"):
        export_study(study, tmp_path / "truth", 2)
    with pytest.raises(UserError, match="no plan"):
        export_study(study, tmp_path / "truth", 1)
