"""Tasks of lm-eval over 12 rows of arithmetic, and what lm-eval itself makes of them."""

import json

import yaml

ROLLING = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "t", "doc_to_choice": None}
LAST_WORD = {"output_type": "loglikelihood", "doc_to_text": "Text", "doc_to_target": "t", "doc_to_choice": None}
GENERATION = {
    "output_type": "generate_until",
    "doc_to_choice": None,
    "doc_to_target": "{{c[g]}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 3},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}|{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
)


def write_task(folder, name="sums", **changes):
    """A task file, of changed fields; None leaves one out. Returns its path."""
    data = folder / "rows.jsonl"
    rows = [{"q": f"{i} + 1 =", "c": [str(i), str(i + 1), f"{i}1"], "g": 1, "t": f"Text {i} ends."} for i in range(12)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "q",
        "doc_to_choice": "c",
        "doc_to_target": "g",
    }
    (folder / "tasks").mkdir(exist_ok=True)
    path = folder / "tasks" / f"{name}.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (config | changes).items() if value is not None}))
    return str(path)


def harness(model, path, template=None, include_path=None, **keywords):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    return simple_evaluate(
        HFLM(
            pretrained=model.model,
            tokenizer=model.tokenizer,
            batch_size=4,
            max_length=model.context_length,
            chat_template_args={"chat_template": template} if template else None,
        ),
        tasks=[path],
        task_manager=TaskManager(include_path=include_path, include_defaults=False),
        bootstrap_iters=0,
        **keywords,
    )


def column(scores, metric):
    return {score.item: score.value for score in scores if score.metric == metric}
