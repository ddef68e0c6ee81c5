"""Tasks of lm-eval: names in, its task objects or our multiple-choice items out.

A task's data set must be within reach: a hub download, its cache, or local files that the task names. lm-eval needs
seconds to index its own tasks; it is asked to only where a name is not found otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.items.benchmarks import Benchmark, distinct
from pretrain_exp.items.choice import DELIMITER, ChoiceItem


def load_tasks(names: Sequence[str], include_path: str | None = None, key: str = "tasks") -> dict[str, Any]:
    """lm-eval's task objects by name, groups and tags taken apart.

    names:        of tasks, groups or tags, or paths of .yaml files.
    include_path: a folder with task files of one's own.
    Raises UserError, under `key`, for a name that is not there and for a data set that is not within reach.
    """
    from datasets.exceptions import DatasetGenerationError, DatasetsError

    manager = find_tasks(names, include_path, key)
    tasks: dict[str, Any] = {}
    for name in names:
        try:
            tasks |= manager.load(name)["tasks"]
        except (OSError, KeyError, ValueError, DatasetsError, DatasetGenerationError) as error:
            raise UserError(
                f"lm-eval cannot load the task or its data set: {type(error).__name__}: {error}",
                key=key,
                value=name,
                fix="check the path or the network, fill the Hugging Face cache first, or use an olmes: benchmark",
            ) from error
    return tasks


def find_tasks(names: Sequence[str], include_path: str | None = None, key: str = "tasks") -> Any:
    """lm-eval's TaskManager that knows all the names; no data is read. UserError, under `key`, for one unknown."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=include_path, include_defaults=False)
    if any(not _is_file(name) and name not in manager.all_tasks for name in names):
        manager = _all_tasks(include_path)
    for name in names:
        if not _is_file(name) and name not in manager.all_tasks:
            near = [task for task in manager.all_tasks if name.split("_")[0] in task][:20]
            raise UserError(
                f"lm-eval has no task of this name among its {len(manager.all_tasks)}",
                key=key,
                value=name,
                fix=f"choose one of {', '.join(near)}, ..." if near else "run `lm-eval ls tasks` for the names",
            )
    return manager


@lru_cache(maxsize=1)
def _all_tasks(include_path: str | None) -> Any:
    """The TaskManager of lm-eval's own tasks beside those of a folder; a process asks for it more than once."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include_path)


def load_harness(name: str) -> Benchmark:
    """The test split (else validation) of lm-eval's multiple-choice task `name`, or of the task in a .yaml file."""
    spec = f"lm_eval:{name}"
    tasks = load_tasks([name], key="benchmark")
    if len(tasks) != 1:
        raise UserError(
            f"this is a group of {len(tasks)} tasks",
            key="benchmark",
            value=spec,
            fix=f"choose one of {', '.join(list(tasks)[:20])}",
        )
    task = next(iter(tasks.values()))
    label, rows = f"lm_eval:{task.task_name}", []
    for doc in task.eval_docs:
        item = choice_item(task, doc, label)
        if isinstance(item, str):
            raise UserError(
                f"this task cannot be planted and scored option by option: {item}",
                key="benchmark",
                value=spec,
                fix="choose another task, or write the items to a .jsonl file",
            )
        rows.append(item)
    return distinct(label, rows, source=f"lm-eval task {name}")


def choice_item(task: Any, doc: dict[str, Any], benchmark: str) -> ChoiceItem | str:
    """A document of an lm-eval task as our item, or why it cannot be one."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return f"its output is {task.OUTPUT_TYPE}"
    if task.config.target_delimiter != DELIMITER:
        return f"its options follow {task.config.target_delimiter!r} instead of a space"
    query, gold, choices = task.doc_to_text(doc), task.doc_to_target(doc), task.doc_to_choice(doc)
    if not isinstance(query, str):
        return "its options stand in the question, not after it"
    if isinstance(gold, str) and gold in choices:
        gold = choices.index(gold)
    if not isinstance(gold, int):
        return f"its gold answer is {gold!r}, not one option"
    try:
        return ChoiceItem.create(benchmark, query, tuple(choices), gold, str(doc.get("id", "")))
    except ValueError as error:
        return f"one of its documents: {error}"


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))
