"""What lm-eval cannot do is said before anything is trained, with its key and the way out; the worker says it too."""

import pytest
from lm_eval_rig import GENERATION, TEMPLATE
from tiny_models import CONTEXT

from pretrain_exp.errors import UserError
from pretrain_exp.eval.base import EvalContext, ModelToCome
from pretrain_exp.eval.lm_eval import LmEval
from pretrain_exp.eval.lm_eval_checks import check_tasks

DATA = {"data_files": {"test": "rows.jsonl"}}
FIRST = {"fewshot_split": "test", "fewshot_config": {"sampler": "first_n", "split": "test"}}


def answers(**settings):
    return {**GENERATION, "generation_kwargs": {"until": ["\n"], **settings}}


REFUSED = {
    "more than there are": ({}, 13, "num_fewshot", "sums has 12 examples", "at most 12, or null: it asks for 0"),
    "more than there are beside the item": ({"fewshot_split": "test"}, 12, "num_fewshot", "has 11", "at most 11"),
    "the first ones": (FIRST, 12, "num_fewshot", "has 11", "at most 11"),
    "more than the task has itself": ({"num_fewshot": 20}, None, "num_fewshot", "has 12", "at most 12"),
    "examples of its own": (
        {"fewshot_config": {"samples": [{"q": "1 + 1 =", "c": ["2", "3"], "g": 0}]}},
        2, "num_fewshot", "has 1 examples", "at most 1",
    ),
    "a task that fixes them": ({"num_fewshot": 0}, 2, "num_fewshot", "takes no examples", "null, each task"),
    "no token to write": (answers(max_gen_toks=0), None, "tasks", "lets a model write 0 tokens", "set max_gen_toks"),
    "no room to write": (answers(max_tokens=CONTEXT), None, "tasks", f"reads {CONTEXT} at once", "max_gen_toks below"),
    "lm-eval's own limit": (answers(), None, "tasks", "up to 256 tokens", "max_gen_toks below"),
    "a limit that is none": (answers(max_gen_toks="few"), None, "tasks", "cannot be read", "mend them"),
    "data out of reach": ({"dataset_kwargs": DATA}, None, "tasks", "cannot load the task or its data set", "check"),
}  # fmt: skip
SERVED = {
    "all there are": ({}, 12),
    "all but the item": ({"fewshot_split": "test"}, 11),
    "none, as the task fixes": ({"num_fewshot": 0}, 0),
    "few tokens": (answers(max_gen_toks=3), None),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_task_that_cannot_be_done(models, task, case):
    changes, shots, key, problem, fix = REFUSED[case]
    evaluation = LmEval(tasks=[task(**changes)], num_fewshot=shots)
    (error,) = evaluation.check(ModelToCome(context_length=CONTEXT))
    assert (error.key, problem in error.problem) == (key, True)
    assert error.fix.startswith(fix) or fix in error.fix
    with pytest.raises(UserError) as said:
        evaluation.run(models["rotary"], EvalContext())
    assert said.value.render() == error.render()


@pytest.mark.parametrize("case", SERVED)
def test_a_task_that_can_be_done(models, task, case):
    changes, shots = SERVED[case]
    evaluation = LmEval(tasks=[task(**changes)], num_fewshot=shots)
    assert evaluation.check(ModelToCome(context_length=CONTEXT)) == []
    assert evaluation.run(models["rotary"], EvalContext())


def test_what_is_not_known_of_a_model_is_not_judged(task):
    assert LmEval(tasks=[task(**answers())], apply_chat_template=True).check(ModelToCome()) == []


@pytest.mark.parametrize("words", [["experiment=smoke", "tracking=none"], ["evaluate", "model"]])
def test_all_of_it_is_said_before_anything_runs(command, task, hf_folder, tmp_path, words):
    given = {"tasks": f"[{task(**answers())}]", "num_fewshot": 13, "apply_chat_template": "true"}
    settings = [f"eval.lm_eval.{name}={value}" for name, value in given.items()]
    status, said = command(*words, "eval=lm_eval", "store=kept", *settings)
    assert status == 2
    assert "the evaluations cannot be made: 3 problems" in said
    for key in given:
        assert f"eval.lm_eval.{key}: " in said
    assert not (tmp_path / "kept" / "jobs").exists()


@pytest.mark.parametrize(("name", "word"), [("UNSAFE_CODE", "runs code"), ("MULTIMODAL", "shows pictures")])
def test_a_kind_of_task_that_is_not_done(task, name, word):
    class Kind:
        OUTPUT_TYPE = "multiple_choice"

        def get_config(self, field):
            return None

    (error,) = check_tasks({"humaneval": type("Own", (Kind,), {name: True})()}, None, None)
    assert (error.key, error.value, word in error.problem) == ("tasks", "humaneval", True)


@pytest.mark.parametrize(
    ("templates", "wanted", "fix"),
    [
        (None, True, "false, or a checkpoint whose tokenizer has one"),
        (TEMPLATE, "terse", "choose true"),
        ({"default": TEMPLATE, "tools": TEMPLATE}, "terse", "choose true or default or tools"),
        ({"tools": TEMPLATE}, True, "choose tools"),
    ],
)
def test_a_template_that_the_tokenizer_has_not(chatting, task, tmp_path, templates, wanted, fix):
    chatting.tokenizer.chat_template = templates
    chatting.tokenizer.save_pretrained(tmp_path / "tokenizer")
    evaluation = LmEval(tasks=[task()], apply_chat_template=wanted)
    (error,) = evaluation.check(ModelToCome(str(tmp_path / "tokenizer")))
    assert (error.key, error.problem, error.fix) == (
        "apply_chat_template",
        "the tokenizer has no such chat template",
        fix,
    )
    with pytest.raises(UserError) as said:
        evaluation.run(chatting, EvalContext())
    assert said.value.render() == error.render()


def test_a_task_without_per_item_metrics_is_an_error(models, task):
    metrics = [{"metric": "brier_score", "aggregation": "brier_score", "higher_is_better": False}]
    with pytest.raises(RuntimeError, match="no metric with a value for a single item"):
        LmEval(tasks=[task(metric_list=metrics)]).run(models["rotary"], EvalContext())


@pytest.mark.parametrize("name", ["absent.yaml", "/nowhere/absent.yaml"])
def test_a_task_file_that_is_absent_is_said(models, name):
    with pytest.raises(UserError, match="cannot load the task") as error:
        LmEval(tasks=[name]).run(models["rotary"], EvalContext())
    assert error.value.key == "tasks"
