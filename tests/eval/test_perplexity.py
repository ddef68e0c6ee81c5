"""Perplexity against the definition, token by token; what is left out or cut is said."""

import gzip
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext
from pretrain_exp.eval.perplexity import Perplexity
from pretrain_exp.eval.text_loss import Run, windows
from pretrain_exp.items.content import content_id

LINES = "".join(json.dumps({"text": str(i**3)}) + "\n" for i in range(60_000)).encode()
CUT_OFF = zstandard.compress(LINES)
CUT_OFF = CUT_OFF[: len(CUT_OFF) * 9 // 10]
TEXTS = ["Plants need light. " * n for n in (1, 3, 40)] + ["Ice melts.", "Wasser gefriert bei 0 °C."]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def values(scores):
    table = {}
    for score in scores:
        table.setdefault((score.task, score.item), {})[score.metric] = score.value
    return table


@given(tokens=st.integers(0, 60), length=st.integers(1, 20))
def test_windows_score_every_token_once_after_the_one_before(tokens, length):
    found = list(windows(Run(-1, range(tokens)), length))
    assert [token for _, scored in found for token in scored] == list(range(tokens))
    assert all(before == scored[0] - 1 and len(scored) <= length for before, scored in found)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("length", [None, 7])
def test_equal_to_the_definition_whatever_the_batch_size(model, naive, tmp_path, batch_size, length):
    file = write(tmp_path / "docs.jsonl", [{"text": text, "domain": "abc"[i % 3]} for i, text in enumerate(TEXTS)])
    found = values(Perplexity(files=[file], batch_size=batch_size, sequence_length=length).run(model, EvalContext()))
    assert len(found) == len(TEXTS)
    for i, text in enumerate(TEXTS):
        tokens, step = model.tokenizer.encode(text), length or model.context_length
        nll = 0.0
        for start in range(0, len(tokens), step):
            before = tokens[start - 1] if start else model.tokenizer.eos_token_id
            nll -= naive(model, [before], tokens[start : start + step])
        size = len(text.encode())
        assert found["abc"[i % 3], content_id(text)] == {
            "nll": pytest.approx(nll, abs=1e-4, rel=1e-6),
            "tokens": len(tokens),
            "bytes": size,
            "bits_per_byte": pytest.approx(nll / math.log(2) / size, rel=1e-6),
        }


def test_every_kind_of_file_says_the_same(models, tmp_path):
    rows = [{"text": text, "domain": "d"} for text in TEXTS]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(lines))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    expected = Perplexity(files=[str(tmp_path / "a.jsonl")]).run(models["rotary"], EvalContext())
    for name in ("a.jsonl.gz", "a.jsonl.zst", "a.parquet"):
        assert Perplexity(files=[str(tmp_path / name)]).run(models["rotary"], EvalContext()) == expected


def test_a_text_file_is_one_document_and_its_name_the_domain(models, tmp_path):
    (tmp_path / "novel.txt").write_text(TEXTS[0])
    found = values(Perplexity(files=[str(tmp_path / "novel.txt")]).run(models["rotary"], EvalContext()))
    assert found.keys() == {("novel", content_id(TEXTS[0]))}


def test_documents_may_be_given_as_tokens(models, tmp_path):
    model = models["rotary"]
    text = write(tmp_path / "text.jsonl", [{"text": TEXTS[0], "domain": "d"}])
    tokens = write(tmp_path / "tokens.jsonl", [{"tokens": model.tokenizer.encode(TEXTS[0]), "domain": "d"}])
    by_text, by_tokens = (
        list(values(Perplexity(files=[f]).run(model, EvalContext())).values()) for f in (text, tokens)
    )
    assert by_text == by_tokens


def test_the_held_out_documents_are_measured_where_no_file_is_named(models, tmp_path):
    from pathlib import Path

    file = write(tmp_path / "held_out.jsonl", [{"text": TEXTS[0]}])
    context = EvalContext(held_out=Path(file))
    assert values(Perplexity().run(models["rotary"], context)).keys() == {("held_out", content_id(TEXTS[0]))}


def test_what_is_left_out_is_noted(models, tmp_path):
    file = write(tmp_path / "docs.jsonl", [{"text": text} for text in ("a b", "", "a b", "c", "a b")])
    context = EvalContext()
    assert len(values(Perplexity(files=[file]).run(models["rotary"], context))) == 2
    assert context.notes == ["1 empty documents were left out", "2 repeated documents were scored once"]


def test_a_limit_takes_a_seeded_subset(models, tmp_path):
    file = write(tmp_path / "docs.jsonl", [{"text": f"Number {i}"} for i in range(30)])

    def items(seed):
        return set(values(Perplexity(files=[file], limit=4, seed=seed).run(models["rotary"], EvalContext())))

    assert len(items(0)) == 4
    assert items(0) == items(0) != items(1)
    assert items(0) != {("docs", content_id(f"Number {i}")) for i in range(4)}


@pytest.mark.parametrize(("domain", "task"), [(0, "0"), ("", "docs"), (None, "docs"), ("d", "d")])
def test_only_where_a_row_names_no_domain_it_is_the_file(models, tmp_path, domain, task):
    file = write(tmp_path / "docs.jsonl", [{"text": "a b", "domain": domain}])
    assert {key for key, _ in values(Perplexity(files=[file]).run(models["rotary"], EvalContext()))} == {task}


def test_a_key_that_holds_no_text_is_found_before_anything_is_trained(tmp_path):
    file = write(tmp_path / "docs.jsonl", [{"text": "a b"}])
    Perplexity(files=[file]).fingerprint([])
    with pytest.raises(UserError, match="neither a text under 'body'"):
        Perplexity(files=[file], text_key="body").fingerprint([])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": 1}\n', "line 1 has neither a text under 'text' nor token ids"),
        ("a.jsonl", b'{"body": "x"}\n', "line 1 has neither"),
        ("a.jsonl", b'{"text": "x"}\n{', "line 2 is not JSON"),
        ("a.jsonl", b"[1]\n", "line 1 is not a JSON object"),
        ("a.jsonl", b"", "no document to measure"),
        ("a.jsonl", b"\xff\xff", "damaged"),
        ("a.jsonl.gz", b"nonsense", "damaged"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 999)[:-20], "damaged"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 9)[:10] + b"\xff" * 40, "damaged"),
        ("a.jsonl.zst", b"nonsense", "damaged"),
        ("a.jsonl.zst", CUT_OFF, "damaged"),
        ("a.parquet", b"nonsense", "damaged"),
        ("a.csv", b"x", "not a kind of file"),
    ],
)
def test_a_damaged_file_is_named(models, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        Perplexity(files=[str(tmp_path / name)]).run(models["rotary"], EvalContext())


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (Perplexity(files=["absent.jsonl"]), "no such file"),
        (Perplexity(files=["docs.jsonl"], sequence_length=97), "reads 96 tokens at once"),
    ],
)
def test_what_cannot_be_measured_is_said(models, tmp_path, monkeypatch, evaluation, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "docs.jsonl", [{"text": "x"}])
    with pytest.raises(UserError, match=message):
        evaluation.run(models["rotary"], EvalContext())


def test_a_source_that_holds_nothing_out_is_noted_not_failed(models):
    context = EvalContext()
    assert Perplexity().run(models["rotary"], context) == []
    assert "holds no documents out" in context.notes[0]


def test_a_limit_above_the_number_of_documents_takes_all_and_says_so(models, tmp_path):
    context = EvalContext()
    path = write(tmp_path / "docs.jsonl", [{"text": "x"}, {"text": "y"}])
    scores = Perplexity(files=[str(path)], limit=5).run(models["rotary"], context)
    assert len({score.item for score in scores}) == 2
    assert "limit asks for 5 documents, there are 2" in context.notes[-1]


def test_the_fingerprint_is_of_the_content(tmp_path):
    (tmp_path / "moved").mkdir()
    here = write(tmp_path / "a.jsonl", [{"text": "x"}])
    there = write(tmp_path / "moved" / "a.jsonl", [{"text": "x"}])
    named = write(tmp_path / "b.jsonl", [{"text": "x"}])  # the domain of its rows
    other = write(tmp_path / "c.jsonl", [{"text": "y"}])

    def key(**fields):
        return json.dumps(Perplexity(**fields).fingerprint([]), sort_keys=True)

    assert key(files=[here]) == key(files=[there], batch_size=1) != key(files=[named])
    assert len({key(), key(files=[here]), key(files=[other]), key(files=[here], sequence_length=8)}) == 4
