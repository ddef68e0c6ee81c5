"""Tasks of lm-eval: per-item values that add up to the harness's own aggregate."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lm_eval_rig import GENERATION, LAST_WORD, ROLLING, column, harness

from pretrain_exp.eval.base import EvalContext
from pretrain_exp.eval.lm_eval import LmEval
from pretrain_exp.eval.multiple_choice import MultipleChoice
from pretrain_exp.items.benchmarks import load_benchmark


@pytest.mark.parametrize("shots", [None, 2])
def test_accuracies_add_up_to_those_of_the_harness(models, task, shots):
    scores = LmEval(tasks=[task()], num_fewshot=shots, batch_size=3).run(models["rotary"], EvalContext())
    theirs = harness(models["rotary"], task(), num_fewshot=shots)["results"]["sums"]
    for metric in ("acc", "acc_norm"):
        ours = column(scores, metric)
        assert len(ours) == 12
        assert sum(ours.values()) / 12 == pytest.approx(theirs[f"{metric},none"])


def test_every_item_has_the_value_of_the_command_line_of_the_harness(models, task, tmp_path):
    """The same checkpoint, read by `lm_eval` itself in a process of its own."""
    model, folder, out = models["rotary"], tmp_path / "model", tmp_path / "out"
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    path = task()
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={folder},dtype=float32"]
    command += ["--tasks", path, "--device", "cpu", "--batch_size", "3"]
    command += ["--output_path", str(out), "--log_samples"]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "their_cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (samples,) = out.rglob("samples_sums_*.jsonl")
    theirs = {json.loads(line)["doc"]["q"]: json.loads(line) for line in samples.open()}
    scores, choices = LmEval(tasks=[path]).run(model, EvalContext()), MultipleChoice(benchmark=f"lm_eval:{path}")
    found = {name: column(scores, name) for name in ("acc", "acc_norm")}
    nll = column(choices.run(model, EvalContext()), "gold_nll")
    items = {item.id: item.query for item in load_benchmark(f"lm_eval:{path}")}
    assert len(theirs) == len(items) == 12
    for item, query in items.items():
        sample = theirs[query]
        for name in ("acc", "acc_norm"):
            assert found[name][item] == sample[name], (name, query)
        assert nll[item] == pytest.approx(-float(sample["filtered_resps"][1][0]), abs=1e-4)
    (aggregate,) = out.rglob("results_*.json")
    results = json.loads(aggregate.read_text())["results"]["sums"]
    for name in ("acc", "acc_norm"):
        assert sum(found[name].values()) / 12 == pytest.approx(results[f"{name},none"], abs=1e-9)


@pytest.mark.parametrize(
    ("fields", "theirs"),
    [
        ({"num_fewshot": 2}, {"num_fewshot": 2}),
        ({"system_instruction": "Count well."}, {"system_instruction": "Count well."}),
        ({"apply_chat_template": True}, {"apply_chat_template": True}),
        (
            {"apply_chat_template": True, "num_fewshot": 2, "system_instruction": "Count well."},
            {"apply_chat_template": True, "num_fewshot": 2, "system_instruction": "Count well."},
        ),
        (
            {"apply_chat_template": True, "num_fewshot": 2, "fewshot_as_multiturn": False},
            {"apply_chat_template": True, "num_fewshot": 2, "fewshot_as_multiturn": False},
        ),
        ({"apply_chat_template": "terse"}, {"apply_chat_template": True, "template": "terse"}),
    ],
)
def test_prompts_and_values_are_those_of_the_harness(chatting, task, monkeypatch, fields, theirs):
    """Item by item, the very requests and what came of them."""
    import lm_eval

    kept, plain = [], lm_eval.simple_evaluate
    monkeypatch.setattr(lm_eval, "simple_evaluate", lambda *a, **k: kept.append(plain(*a, **k)) or kept[-1])
    path = task()
    scores = LmEval(tasks=[path], **fields).run(chatting, EvalContext())
    ours, expected = kept[0]["samples"]["sums"], harness(chatting, path, **theirs)["samples"]["sums"]
    assert len(ours) == len(expected) == 12
    for one, other in zip(ours, expected, strict=True):
        assert one["arguments"] == other["arguments"]
        for (mine, _), (their, _) in zip(one["filtered_resps"], other["filtered_resps"], strict=True):
            assert mine == pytest.approx(their, abs=1e-3)
    assert sum(column(scores, "acc").values()) == sum(sample["acc"] for sample in expected)
    if fields.get("apply_chat_template"):
        assert ours[0]["arguments"][0][0].endswith("<bot>")
        assert ("<u>" in ours[0]["arguments"][0][0]) == (fields["apply_chat_template"] == "terse")


@pytest.mark.parametrize("name", ["counting", "tagged"])
def test_a_group_and_a_tag_are_their_tasks(models, task, tmp_path, name):
    folder = str(Path(task("sums", tag="tagged")).parent)
    task("other", tag="tagged", doc_to_text="Sum: {{q}}")
    (Path(folder) / "group.yaml").write_text(yaml.safe_dump({"group": "counting", "task": ["sums", "other"]}))
    scores = LmEval(tasks=[name], include_path=folder).run(models["rotary"], EvalContext())
    theirs = harness(models["rotary"], name, include_path=folder)["results"]
    for each in ("sums", "other"):
        ours = column([score for score in scores if score.task == each], "acc")
        assert len(ours) == 12
        assert sum(ours.values()) / 12 == pytest.approx(theirs[each]["acc,none"])
    assert {score.task for score in scores} == {"sums", "other"}


def test_a_limit_scores_what_the_harness_scores_of_these_items(models, task):
    path, model = task(), models["rotary"]
    ours = column(LmEval(tasks=[path], limit=5, num_fewshot=1).run(model, EvalContext()), "acc")
    items = {item.id: row for row, item in enumerate(load_benchmark(f"lm_eval:{path}"))}
    rows = sorted(items[item] for item in ours)
    theirs = harness(model, path, num_fewshot=1, samples={"sums": rows})["samples"]["sums"]
    assert {items[item]: value for item, value in ours.items()} == {s["doc_id"]: s["acc"] for s in theirs}


def test_an_item_has_the_id_that_it_is_planted_under(models, task):
    scores = LmEval(tasks=[task()]).run(models["rotary"], EvalContext())
    assert {score.item for score in scores} == {item.id for item in load_benchmark(f"lm_eval:{task()}")}


def test_texts_become_nats_and_units(models, task):
    scores = LmEval(tasks=[task(**ROLLING)]).run(models["absolute"], EvalContext())
    theirs = harness(models["absolute"], task(**ROLLING))["results"]["sums"]
    nll, words, size = (sum(column(scores, metric).values()) for metric in ("nll", "words", "bytes"))
    assert (words, size) == (36, sum(len(f"Text {i} ends.") for i in range(12)))
    assert nll / size / 0.6931471805599453 == pytest.approx(theirs["bits_per_byte,none"], rel=1e-6)


def test_a_log_likelihood_is_not_called_a_perplexity(models, task):
    scores = LmEval(tasks=[task(**LAST_WORD)]).run(models["rotary"], EvalContext())
    assert {score.metric for score in scores} == {"nll", "acc"}
    assert all(value > 0 for value in column(scores, "nll").values())


def test_generations_are_judged_one_by_one(models, task):
    scores = LmEval(tasks=[task(**GENERATION)]).run(models["rotary"], EvalContext())
    assert len(column(scores, "exact_match")) == 12


def test_repeated_documents_keep_a_row_each(models, task, tmp_path):
    data = tmp_path / "twice.jsonl"
    data.write_text((json.dumps({"q": "1 + 1 =", "c": ["1", "2"], "g": 1}) + "\n") * 2)
    scores = LmEval(tasks=[task(dataset_kwargs={"data_files": {"test": str(data)}})]).run(
        models["rotary"], EvalContext()
    )
    first, second = column(scores, "acc")
    assert second == f"{first}#2"


def test_what_no_single_item_has_is_noted(models, task):
    metrics = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    metrics += [{"metric": "brier_score", "aggregation": "brier_score", "higher_is_better": False}]
    context = EvalContext()
    scores = LmEval(tasks=[task(metric_list=metrics)]).run(models["rotary"], context)
    assert {score.metric for score in scores} == {"acc"}
    assert context.notes == ["sums: brier_score has no value for a single item and was left out"]


def test_a_limit_takes_a_seeded_subset_of_each_task(models, task):
    def items(seed):
        return set(column(LmEval(tasks=[task()], limit=4, seed=seed).run(models["rotary"], EvalContext()), "acc"))

    every = list(column(LmEval(tasks=[task()]).run(models["rotary"], EvalContext()), "acc"))
    assert len(items(0)) == 4
    assert items(0) == items(0) != items(1)
    assert items(0) != set(every[:4])


def test_a_limit_above_what_there_is_takes_all_and_says_so(models, task):
    context = EvalContext()
    scores = LmEval(tasks=[task()], limit=50).run(models["rotary"], context)
    assert len(column(scores, "acc")) == 12
    assert context.notes == ["limit asks for 50 items, sums has 12: all were scored"]


def test_a_folder_of_tasks_is_searched_without_the_tasks_of_the_harness(models, task, monkeypatch):
    from lm_eval import tasks

    asked = []
    plain = tasks.TaskManager.__init__
    monkeypatch.setattr(
        tasks.TaskManager,
        "__init__",
        lambda self, *arguments, **keywords: (
            asked.append(keywords.get("include_defaults", True)) or plain(self, *arguments, **keywords)
        ),
    )
    folder = str(task("mine").rpartition("/")[0])
    assert LmEval(tasks=["mine"], include_path=folder).run(models["rotary"], EvalContext())
    assert True not in asked


def test_the_fingerprint_follows_the_task_file(task):
    path = task()

    def key(**fields):
        return json.dumps(LmEval(**{"tasks": [path]} | fields).fingerprint([]), sort_keys=True)

    plain = key()
    assert key(batch_size=1) == plain
    assert len({plain, key(num_fewshot=1), key(limit=3), key(apply_chat_template=True)}) == 4
    task(doc_to_text="Sum: {{q}}")
    assert key() != plain
